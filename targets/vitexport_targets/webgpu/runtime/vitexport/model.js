/** A loaded model: pictures or tensors in, named outputs and what they mean out, and its own exam. */

import { cut, preprocessClip } from './clip.js';
import { distances, judge, median } from './exam.js';
import { fetchVerified } from './files.js';
import { exclusively } from './ort.js';
import { decode, preprocess, seenRegion } from './preprocess.js';
import { read } from './readout.js';

/** @typedef {import('../manifest').Manifest} Manifest */
/** @typedef {import('../manifest').GoldenCase} GoldenCase */
/** @typedef {import('../manifest').Rung} Rung */
/** @typedef {import('../manifest').Variant} Variant */
/** @typedef {import('./ort.js').Ort} Ort */
/** @typedef {import('./files.js').Source} Source */
/** @typedef {import('./device.js').Gpu} Gpu */
/** @typedef {import('./device.js').Adapter} Adapter */
/** @typedef {import('./choose.js').Provider} Provider */
/** @typedef {import('./choose.js').Candidate} Candidate */
/** @typedef {import('./preprocess.js').Picture} Picture */
/** @typedef {import('./preprocess.js').Region} Region */
/** @typedef {import('./readout.js').Output} Output */
/** @typedef {import('./readout.js').Reading} Reading */
/** @typedef {import('./exam.js').CaseResult} CaseResult */
/** @typedef {import('./exam.js').ExamResult} ExamResult */

/** One way this model could have run, and why it was or was not taken. @typedef {{precision: string, provider: Provider, chosen: boolean, reason: string}} Choice */
/**
 * What runs where, and why. `rung` is the size that was chosen; `verified` says whether hashes could be checked;
 * `threads` are WebAssembly's.
 * @typedef {{manifest: Manifest, rung: Rung, precision: string, provider: Provider, runtime: string, build: string, adapter: Adapter | null,
 *   threads: number, verified: string, choices: Choice[], loadMs: number}} Info
 */
/** @typedef {{outputs: Record<string, Output>, ms: number}} Inference `ms`: from the call until the outputs are in CPU memory. */
/**
 * `readings`: what each output means; `region`: the part of the picture that the network saw, in the picture's pixels.
 * @typedef {Inference & {readings: Record<string, Reading>, region: Region}} Answer
 */
/**
 * @typedef {{source: Source, ort: Ort, session: import('onnxruntime-web').InferenceSession, gpu: Gpu | null,
 *   ownsDevice: boolean, variant: Variant, info: Info}} Parts
 */

/** Steady runs of a self-check: enough for a median, unless the adapter is so slow that they would bore. */
const STEADY_RUNS = 10;
const STEADY_BUDGET_MS = 2000;

/** To tell whether a rung keeps a latency budget: odd, so that one hiccup does not decide. */
const BUDGET_RUNS = 3;

export class Model {
  #parts;
  /** @type {number | null} */
  #coldMs = null;
  /** @type {string | null} */
  #lost = null;
  /** @type {WeakMap<GPUBuffer, import('onnxruntime-web').Tensor>} */
  #tensors = new WeakMap();

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
    void parts.gpu?.device.lost.then(({ message }) => (this.#lost = message));
  }

  /** @returns {Info} */
  get info() {
    return this.#parts.info;
  }

  /**
   * Preprocess a picture, or the frames of a clip, as the manifest says and run it.
   * @param {Picture | Picture[]} picture a clip's frames oldest first, one in `preprocessing.clip.stride` of the video's
   * @returns {Promise<Answer>}
   */
  async run(picture) {
    const { outputs: specs, preprocessing } = this.info.rung;
    const photos = await Promise.all([picture].flat().map(decode));
    const [photo] = photos;
    if (photo === undefined) throw new Error('There is no picture to run on.');
    const inference = await this.runTensor(this.#input(photos));
    /** @type {Record<string, Reading>} */
    const readings = {};
    for (const spec of specs) {
      const output = inference.outputs[spec.name];
      if (output !== undefined) readings[spec.name] = read(spec, output);
    }
    return { ...inference, readings, region: seenRegion(photo, preprocessing) };
  }

  /**
   * Run float32 NCHW values (or clips) that are preprocessed already; as many pictures as the length holds.
   * @param {Float32Array} values
   * @returns {Promise<Inference>}
   */
  async runTensor(values) {
    const { ort, session } = this.#parts;
    const { manifest, rung } = this.info;
    const [, ...picture] = rung.input_shape;
    const batch = values.length / picture.reduce((a, b) => a * b, 1);
    if (!Number.isInteger(batch) || batch === 0) {
      throw new Error(`${values.length} values are no whole number of ${picture.join(' x ')} pictures.`);
    }
    return exclusively(ort, async () => {
      this.#assertDevice();
      const feeds = { [manifest.input_name]: new ort.Tensor('float32', values, [batch, ...picture]) };
      const started = performance.now();
      const results = await session.run(feeds, { logSeverityLevel: 2 });
      const ms = performance.now() - started;
      this.#coldMs ??= ms;
      const outputs = Object.fromEntries(Object.entries(results).map(([name, tensor]) => [name, toOutput(name, tensor)]));
      return { outputs, ms };
    });
  }

  /**
   * Run on the GPU's own buffers, in and out: nothing is read back, and nothing is allocated after the first run. Resolves
   * when the work is handed to the queue: commands submitted later find the outputs complete.
   *
   * Buffers belong to the device that was given to `load`, have usage STORAGE | COPY_SRC | COPY_DST, and are not in use
   * elsewhere until this resolves.
   * @param {GPUBuffer} input float32 in `rung.input_shape`, preprocessed
   * @param {Record<string, GPUBuffer>} outputs where each wanted output goes: float32 in the shape of its `OutputSpec`
   * @returns {Promise<void>}
   */
  async runOnGpu(input, outputs) {
    const { ort, session, gpu } = this.#parts;
    const { manifest, rung } = this.info;
    if (gpu === null) throw new Error('This model runs on WebAssembly, which has no use for buffers of the GPU.');
    const feeds = { [manifest.input_name]: this.#tensor(input, rung.input_shape) };
    /** @type {Record<string, import('onnxruntime-web').Tensor>} */
    const fetches = {};
    for (const [name, buffer] of Object.entries(outputs)) {
      const spec = rung.outputs.find((output) => output.name === name);
      if (spec === undefined) throw new Error(`This model has no output '${name}'. It has: ${rung.outputs.map((o) => o.name).join(', ')}.`);
      fetches[name] = this.#tensor(buffer, spec.shape);
    }
    await exclusively(ort, async () => {
      this.#assertDevice();
      // Given tensors for all that it fetches, the runtime writes into them.
      await session.run(feeds, fetches, { logSeverityLevel: 2 });
    });
  }

  /**
   * Take the bundle's own exam, here, now.
   * @returns {Promise<ExamResult>}
   */
  async selfCheck() {
    const { variant, info } = this.#parts;
    /** @type {CaseResult[]} */
    const cases = [];
    /** @type {number[]} */
    const times = [];
    for (const golden of info.rung.golden) {
      const wasCold = this.#coldMs === null;
      const result = await this.#sit(golden);
      cases.push(result);
      if (!wasCold) times.push(result.ms);
    }
    const blank = this.#blank();
    for (let spent = 0; times.length < 1 || (times.length < STEADY_RUNS && spent < STEADY_BUDGET_MS); ) {
      const { ms } = await this.runTensor(blank);
      times.push(ms);
      spent += ms;
    }
    const timings = { loadMs: info.loadMs, coldMs: this.#coldMs ?? NaN, steadyMs: median(times), steadyRuns: times.length };
    return { ...judge(cases, variant), ...timings };
  }

  /**
   * A part of the exam that a page can afford at every start: the first golden picture, made into the network's input
   * here. No fetch of the tensor that Python made of it, which is several times the picture's size, and no timing.
   * @returns {Promise<Pick<ExamResult, 'verdict' | 'reason' | 'metric' | 'worst' | 'tolerance'>>}
   */
  async spotCheck() {
    const { variant, info } = this.#parts;
    const cases = await Promise.all(info.rung.golden.slice(0, 1).map((golden) => this.#answer(golden)));
    const { verdict, reason, metric, worst, tolerance } = judge(cases, variant);
    return { verdict, reason, metric, worst, tolerance };
  }

  /** Median time of a steady inference here, from a few runs after the cold one. */
  async medianMs() {
    const blank = this.#blank();
    if (this.#coldMs === null) await this.runTensor(blank);
    /** @type {number[]} */
    const times = [];
    while (times.length < BUDGET_RUNS) times.push((await this.runTensor(blank)).ms);
    return median(times);
  }

  /** @param {ImageData[]} photos one picture, or a clip's frames */
  #input(photos) {
    const { preprocessing } = this.info.rung;
    if (preprocessing.clip) return preprocessClip(photos, preprocessing);
    const [photo, ...more] = photos;
    if (photo === undefined || more.length > 0) throw new Error(`This network takes one picture at a time, and ${photos.length} came.`);
    return preprocess(photo, preprocessing);
  }

  #blank() {
    return new Float32Array(this.info.rung.input_shape.slice(1).reduce((a, b) => a * b, 1));
  }

  /**
   * One golden case.
   * @param {GoldenCase} golden
   * @returns {Promise<CaseResult>}
   */
  async #sit(golden) {
    return this.#answer(golden, await this.#floats(golden.input));
  }

  /**
   * @param {GoldenCase} golden
   * @param {Float32Array} [input] Python's; without it, what is made of the photo here is run and compared with nothing
   * @returns {Promise<CaseResult>}
   */
  async #answer(golden, input) {
    const { variant } = this.#parts;
    const { outputs: specs, preprocessing } = this.info.rung;
    const photo = await decode(new Blob([await this.#file(golden.photo)]));
    const made = this.#input(preprocessing.clip ? cut(photo, preprocessing.clip.frames) : [photo]);
    /** @type {Record<string, Float32Array>} */
    const expected = {};
    for (const [name, path] of Object.entries(golden.outputs)) expected[name] = await this.#floats(path);
    const { outputs, ms } = await this.runTensor(input ?? made);
    const off = distances(outputs, expected, specs, variant.metric);
    return { name: golden.name, preprocessing: input ? largestDifference(made, input) : 0, off, ms };
  }

  #assertDevice() {
    if (this.#lost !== null) throw new Error(`The GPU device was lost (${this.#lost || 'no reason given'}). Reload the page.`);
  }

  /**
   * @param {GPUBuffer} buffer
   * @param {readonly number[]} dims
   */
  #tensor(buffer, dims) {
    const known = this.#tensors.get(buffer);
    if (known) return known;
    const tensor = this.#parts.ort.Tensor.fromGpuBuffer(buffer, { dataType: 'float32', dims });
    this.#tensors.set(buffer, tensor);
    return tensor;
  }

  /** @param {string} path */
  async #floats(path) {
    return new Float32Array((await this.#file(path)).buffer);
  }

  /** @param {string} path */
  #file(path) {
    const { source } = this.#parts;
    return fetchVerified(source, path);
  }

  /** Give back the GPU's and WebAssembly's memory. A device that the page brought stays as it is. */
  async dispose() {
    const { ort, session, gpu, ownsDevice } = this.#parts;
    await exclusively(ort, () => session.release());
    if (ownsDevice) gpu?.device.destroy();
  }
}

/**
 * @param {string} name
 * @param {import('onnxruntime-web').OnnxValue} tensor
 * @returns {Output}
 */
function toOutput(name, tensor) {
  if (tensor.data instanceof Float32Array) return { data: tensor.data, dims: tensor.dims };
  if (tensor.type === 'string' || (tensor.type === 'float16' && tensor.data instanceof Uint16Array)) {
    throw new Error(`Output '${name}' is ${tensor.type}, which this browser cannot read as numbers.`);
  }
  return { data: Float32Array.from(/** @type {ArrayLike<number>} */ (tensor.data), Number), dims: tensor.dims };
}

/**
 * @param {Float32Array} a
 * @param {Float32Array} b
 */
function largestDifference(a, b) {
  if (a.length !== b.length) return Infinity;
  return a.reduce((worst, x, i) => Math.max(worst, Math.abs(x - (b[i] ?? NaN))), 0);
}

