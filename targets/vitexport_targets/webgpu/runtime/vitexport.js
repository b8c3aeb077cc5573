/**
 * Runs a vitexport bundle in a browser: any page or worker may import this.
 *
 * ```js
 * import { load } from './vitexport.js';
 * const model = await load('./');                  // the bundle's folder
 * const { readings } = await model.run(file);      // File, Blob, <img>, <canvas>, ImageBitmap, ImageData, VideoFrame
 * console.log(model.info.choices);                 // what runs where, and why
 * ```
 */

import { rank, rankRungs } from './vitexport/choose.js';
import { adopt, createDevice } from './vitexport/device.js';
import { BundleError, UnavailableError, sentence } from './vitexport/errors.js';
import { canVerify, fetchManifest, fetchVerified } from './vitexport/files.js';
import { Model } from './vitexport/model.js';
import { buildFor, exclusively, loadOrt, threadsOf, withThreads } from './vitexport/ort.js';
import { personMask } from './vitexport/readout.js';

export { BundleError, UnavailableError, personMask };

/** @typedef {import('./manifest').Manifest} Manifest */
/** @typedef {import('./manifest').Variant} Variant */
/** @typedef {import('./manifest').Rung} Rung */
/** @typedef {import('./manifest').Size} Size */
/** @typedef {import('./vitexport/choose.js').Provider} Provider */
/** @typedef {import('./vitexport/choose.js').Candidate} Candidate */
/** @typedef {import('./vitexport/device.js').Gpu} Gpu */
/** @typedef {import('./vitexport/ort.js').Ort} Ort */
/** @typedef {import('./vitexport/ort.js').BuildName} BuildName */
/** @typedef {import('./vitexport/ort.js').Builds} Builds */
/** @typedef {import('./vitexport/files.js').Progress} Progress */
/** @typedef {import('./vitexport/files.js').Fetch} Fetch */
/** @typedef {import('./vitexport/files.js').Source} Source */
/** @typedef {import('./vitexport/model.js').Model} LoadedModel */
/** @typedef {import('./vitexport/model.js').Choice} Choice */
/** @typedef {import('./vitexport/model.js').Info} Info */
/** @typedef {import('./vitexport/model.js').Answer} Answer */
/** @typedef {import('./vitexport/model.js').Inference} Inference */
/** @typedef {import('./vitexport/exam.js').ExamResult} ExamResult */
/** @typedef {import('./vitexport/readout.js').Reading} Reading */

/**
 * What a page may decide itself; all of it is optional.
 * @typedef {object} LoadOptions
 * @property {Size} [size] Only this rung of a ladder.
 * @property {Size} [frame] What the pictures will be like: of a ladder, the rung nearest in shape is taken.
 * @property {number} [budgetMs] Of a ladder, the largest rung whose median inference here keeps this is taken; where
 *   none does, the smallest.
 * @property {string} [precision] Only this one, such as `fp32`.
 * @property {Provider} [provider] Only this one.
 * @property {GPUDevice} [device] A device of the page's own, to share buffers with. It is not destroyed by `dispose`.
 * @property {Ort} [ort] The page's own onnxruntime-web, for bundles exported with `--runtime none`.
 * @property {Builds} [runtime] Where else than in the bundle onnxruntime-web's files lie.
 * @property {BuildName} [build] Only this build of the runtime.
 * @property {number} [threads] WebAssembly threads. More than one needs a cross-origin isolated page. The first load in a
 *   page or worker decides.
 * @property {boolean} [verbose] Write the runtime's own log, with the placement of every node, to the console.
 * @property {(progress: Progress) => void} [onProgress] Called while the model's files are fetched.
 * @property {Fetch} [fetch] How the bundle's files are had, where they lie on no server (dropped onto the page, say);
 *   the runtime's are not had so: name them with `runtime` or `ort`.
 */

/**
 * Load the first variant that can run here: the manifest's order on WebGPU, then WebAssembly; of a ladder, at the size
 * that `size`, `frame` and `budgetMs` ask for.
 *
 * @param {string | URL} url the bundle's folder (ending in `/`) or its `manifest.json`, relative to the page
 * @param {LoadOptions} [options]
 * @returns {Promise<LoadedModel>} throws `BundleError` (damaged, incomplete) or `UnavailableError` (cannot run here)
 */
export async function load(url, options = {}) {
  const source = await fetchManifest(new URL(url, globalThis.location.href), options.fetch);
  const rungs = rankRungs(source.manifest.rungs, options);
  const { budgetMs } = options;
  for (const rung of rungs) {
    const model = await loadRung(source, rung, options);
    if (budgetMs === undefined || rung === rungs.at(-1)) return model;
    // One that loads and does not run (out of the GPU's memory, say) keeps no budget: a smaller one may run.
    if ((await model.medianMs().catch(() => NaN)) <= budgetMs) return model;
    await model.dispose();
  }
  throw new UnavailableError('This bundle lists no size to run at.');
}

/**
 * @param {Source} source
 * @param {Rung} rung
 * @param {LoadOptions} options
 */
async function loadRung(source, rung, options) {
  const { manifest, base } = source;
  const started = performance.now();
  const gpu = await findGpu(options);
  try {
    const features = typeof gpu === 'string' ? gpu : gpu.device.features;
    const candidates = rank(rung.variants, features, options);
    const usesGpu = candidates.some(({ provider, obstacle }) => provider === 'webgpu' && obstacle === null);
    if (!candidates.some(({ obstacle }) => obstacle === null)) throw new UnavailableError(refusal(rung, candidates, options));
    const build = options.build ?? buildFor(usesGpu);
    const ort = options.ort ?? (await loadOrt(options.runtime ?? { builds: manifest.runtime?.builds ?? {}, base }, build));
    const { chosen, session } = await openFirst({ source, rung, ort, gpu, candidates, options });
    const onGpu = chosen.provider === 'webgpu' && typeof gpu !== 'string' ? gpu : null;
    /** @type {Info} */
    const info = {
      manifest,
      rung,
      precision: chosen.variant.precision,
      provider: chosen.provider,
      runtime: `onnxruntime-web ${ort.env.versions.web ?? ''}`.trimEnd(),
      build: options.ort ? 'the page’s own' : build,
      adapter: onGpu?.adapter ?? null,
      threads: threadsOf(ort),
      verified: canVerify() ? 'SHA-256 of every model and golden file' : 'not checked: hashing needs https or localhost',
      choices: explain(candidates, chosen),
      loadMs: performance.now() - started,
    };
    if (onGpu === null) release(gpu, options);
    return new Model({ source, ort, session, gpu: onGpu, ownsDevice: !options.device, variant: chosen.variant, info });
  } catch (error) {
    release(gpu, options);
    throw error;
  }
}

/**
 * @param {LoadOptions} options
 * @returns {Promise<Gpu | string>} or why there is none
 */
async function findGpu({ provider, device }) {
  if (provider === 'wasm') return 'WebAssembly was asked for';
  return device ? adopt(device) : createDevice();
}

/**
 * @param {Gpu | string} gpu
 * @param {LoadOptions} options
 */
function release(gpu, options) {
  if (typeof gpu !== 'string' && !options.device) gpu.device.destroy();
}

/**
 * Why nothing can run here.
 * @param {Rung} rung
 * @param {Candidate[]} candidates
 * @param {LoadOptions} options
 */
function refusal(rung, candidates, { precision }) {
  if (candidates.length === 0) {
    const known = rung.variants.map((variant) => variant.precision).join(', ');
    return `This bundle has no precision '${precision ?? ''}'. It has: ${known}.`;
  }
  return candidates.map(({ variant, provider, obstacle }) => `${variant.precision} on ${provider}: ${obstacle ?? ''}`).join('; ');
}

/**
 * Open the candidates in order until the runtime accepts one; each refusal becomes that candidate's obstacle.
 * @param {{source: Source, rung: Rung, ort: Ort, gpu: Gpu | string, candidates: Candidate[], options: LoadOptions}} context
 */
async function openFirst({ source, rung, ort, gpu, candidates, options }) {
  for (const candidate of candidates) {
    if (candidate.obstacle !== null) continue;
    const files = await fetchModel(source, candidate.variant, options);
    try {
      const session = await exclusively(ort, () =>
        withThreads(ort, options.threads, () => openSession(ort, files, candidate.provider, gpu, options)),
      );
      return { chosen: candidate, session };
    } catch (refused) {
      if (refused instanceof UnavailableError) throw refused;
      candidate.obstacle = `the runtime refused it (${sentence(refused)})`;
    }
  }
  throw new Error(`onnxruntime-web cannot load ${source.manifest.model}. ${refusal(rung, candidates, options)}`);
}

/** @typedef {{path: string, data: Uint8Array<ArrayBuffer>}} ModelFile */

/**
 * @param {Source} source
 * @param {Variant} variant
 * @param {LoadOptions} options
 * @returns {Promise<ModelFile[]>} the graph first, then its weight shards
 */
function fetchModel(source, variant, { onProgress }) {
  return Promise.all(
    variant.files.map(async (path) => ({ path, data: await fetchVerified(source, path, onProgress) })),
  );
}

/**
 * @param {Ort} ort
 * @param {ModelFile[]} files
 * @param {Provider} provider
 * @param {Gpu | string} gpu
 * @param {LoadOptions} options
 */
function openSession(ort, [graph, ...externalData], provider, gpu, { verbose }) {
  if (graph === undefined) throw new BundleError('The manifest lists a variant without files. Export the model again.');
  const device = typeof gpu === 'string' ? undefined : gpu.device;
  return ort.InferenceSession.create(graph.data, {
    executionProviders: provider === 'webgpu' && device ? [{ name: 'webgpu', device }] : ['wasm'],
    externalData,
    logSeverityLevel: verbose ? 0 : 3,
  });
}

/**
 * @param {Candidate[]} candidates
 * @param {Candidate} chosen
 * @returns {Choice[]}
 */
function explain(candidates, chosen) {
  return candidates.map((candidate) => ({
    precision: candidate.variant.precision,
    provider: candidate.provider,
    chosen: candidate === chosen,
    reason: candidate === chosen ? 'the first that can run here' : (candidate.obstacle ?? 'could run, but comes later'),
  }));
}
