/** The page that vitexport itself drives, to prove a bundle: the bundle's own loader, called from Python. */

import { caught, lines, pack, unpack } from './wire.js';

/** @typedef {typeof import('../runtime/vitexport.js')} Vitexport */
/** @typedef {import('../runtime/vitexport.js').LoadOptions} LoadOptions */
/** @typedef {import('../runtime/vitexport.js').LoadedModel} LoadedModel */
/** @typedef {LoadOptions & {runtimeBase?: string}} Options */
/** @typedef {{data: string, dims: readonly number[]}} Packed */

/** The bundle is mounted at the server's root. */
const loader = new URL('/vitexport.js', globalThis.location.href).href;

/** @type {LoadedModel | null} */
let model = null;

/**
 * @param {Options} options
 * @returns {Promise<LoadedModel>}
 */
async function loadBundle({ runtimeBase, ...options }) {
  /** @type {Vitexport} */
  const { load } = await import(loader);
  if (options.runtime && runtimeBase) options.runtime.base = new URL(runtimeBase, globalThis.location.href);
  return load('/', options);
}

const harness = {
  /** @param {Options} options */
  open: (options) =>
    caught(async () => {
      model = await loadBundle(options);
      const { precision, provider, runtime, build, adapter, threads, loadMs } = model.info;
      return { precision, provider, runtime, build, adapter, threads, loadMs };
    }),

  /**
   * The runtime's own account of creating such a session. It takes a session of its own: one that logs creation logs
   * every dispatch too, and would be slower than what is measured.
   * @param {Options} options
   */
  log: (options) =>
    caught(async () => {
      lines.length = 0;
      const verbose = await loadBundle({ ...options, verbose: true });
      await verbose.dispose();
      return { lines: [...lines] };
    }),

  /** @param {string} pixelValues base64 of little-endian float32 */
  run: (pixelValues) =>
    caught(async () => {
      if (model === null) throw new Error('No model is open.');
      const { outputs, ms } = await model.runTensor(new Float32Array(unpack(pixelValues)));
      /** @type {Record<string, Packed>} */
      const packed = {};
      for (const [name, { data, dims }] of Object.entries(outputs)) packed[name] = { data: pack(data), dims };
      return { outputs: packed, ms };
    }),
};

Object.assign(globalThis, { harness });
