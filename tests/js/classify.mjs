// Opens an exported folder in transformers.js, unchanged, and prints its answer to one photo as JSON.
// usage: node classify.mjs FOLDER PHOTO.png DTYPE
import path from "node:path";
import { AutoModelForImageClassification, AutoProcessor, RawImage, env } from "@huggingface/transformers";

const [folder, photo, dtype] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = path.dirname(path.resolve(folder)) + path.sep;
const name = path.basename(folder);

const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModelForImageClassification.from_pretrained(name, { dtype });
const { pixel_values } = await processor(await RawImage.read(photo));
const { logits } = await model({ pixel_values });
console.log(JSON.stringify({
  logits: Array.from(logits.data),
  pixels: pixel_values.dims,
  labels: Object.keys(model.config.id2label).length,
}));
