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
 * @typedef {{base: URL, ort: Ort, session: import('onnxruntime-web').InferenceSession, gpu: Gpu | null,
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
      if (this.#lost !== null) throw new Error(`The GPU device was lost (${this.#lost || 'no reason given'}). Reload the page.`);
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
    const { variant } = this.#parts;
    const { outputs: specs, preprocessing } = this.info.rung;
    const photo = await decode(new Blob([await this.#file(golden.photo)]));
    const input = await this.#floats(golden.input);
    const made = this.#input(preprocessing.clip ? cut(photo, preprocessing.clip.frames) : [photo]);
    /** @type {Record<string, Float32Array>} */
    const expected = {};
    for (const [name, path] of Object.entries(golden.outputs)) expected[name] = await this.#floats(path);
    const { outputs, ms } = await this.runTensor(input);
    const off = distances(outputs, expected, specs, variant.metric);
    return { name: golden.name, preprocessing: largestDifference(made, input), off, ms };
  }

  /** @param {string} path */
  async #floats(path) {
    return new Float32Array((await this.#file(path)).buffer);
  }

  /** @param {string} path */
  #file(path) {
    return fetchVerified(this.info.manifest, this.#parts.base, path);
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

