// Opens an exported folder in transformers.js, unchanged, and prints as JSON what it makes of one golden case.
// usage: node classify.mjs FOLDER CASE DTYPE, where CASE is the number of a golden case and DTYPE fp32, fp16, q8, ...
import { readFile } from "node:fs/promises";
import path from "node:path";
import { AutoModelForImageClassification, AutoProcessor, RawImage, Tensor, env } from "@huggingface/transformers";

const [folder, number, dtype] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(path.resolve(folder)) + path.sep;
const name = path.basename(folder);
const golden = JSON.parse(await readFile(path.join(folder, "manifest.json"), "utf8")).rungs[0].golden[Number(number)];

const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModelForImageClassification.from_pretrained(name, { dtype });
const { pixel_values } = await processor(await RawImage.read(path.join(folder, golden.photo)));

const bytes = await readFile(path.join(folder, golden.input));
const exact = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
const { logits } = await model({ pixel_values: new Tensor("float32", exact, pixel_values.dims) });

const differences = exact.map((value, i) => Math.abs(value - pixel_values.data[i]));
console.log(JSON.stringify({
  logits: Array.from(logits.data),
  dims: pixel_values.dims,
  labels: Object.keys(model.config.id2label).length,
  meanPixelDifference: differences.reduce((sum, value) => sum + value, 0) / differences.length,
}));
