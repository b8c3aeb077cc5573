/**
 * The page that vitexport itself drives, to prove a bundle: the bundle's own loader, called from Python.
 * Tensors cross as base64, which is what a browser's automation protocol can carry.
 */

/** @typedef {typeof import('../runtime/vitexport.js')} Vitexport */
/** @typedef {import('../runtime/vitexport.js').LoadOptions} LoadOptions */
/** @typedef {import('../runtime/vitexport.js').LoadedModel} LoadedModel */
/** @typedef {LoadOptions & {runtimeBase?: string}} Options */
/** @typedef {{data: string, dims: readonly number[]}} Packed */
/** @typedef {{error: {name: string, message: string}}} Failure */

/** The bundle is mounted at the server's root. */
const loader = new URL('/vitexport.js', globalThis.location.href).href;

/** @type {LoadedModel | null} */
let model = null;

/** @type {string[]} */
const lines = [];

// WebAssembly takes hold of these functions when it starts, so they are replaced before.
for (const level of /** @type {const} */ (['debug', 'log', 'info', 'warn', 'error'])) {
  console[level] = (...said) => void lines.push(said.join(' '));
}

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
      const { outputs, ms } = await model.runTensor(unpack(pixelValues));
      /** @type {Record<string, Packed>} */
      const packed = {};
      for (const [name, { data, dims }] of Object.entries(outputs)) packed[name] = { data: pack(data), dims };
      return { outputs: packed, ms };
    }),
};

/**
 * @template T
 * @param {() => Promise<T>} job
 * @returns {Promise<T | Failure>}
 */
async function caught(job) {
  try {
    return await job();
  } catch (thrown) {
    const { name, message } = thrown instanceof Error ? thrown : new Error(String(thrown));
    return { error: { name, message } };
  }
}

/** @param {string} text */
function unpack(text) {
  return new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}

/** @param {Float32Array} values */
function pack(values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const chunks = [];
  // String.fromCharCode takes its characters as arguments, of which there may not be many.
  for (let i = 0; i < bytes.length; i += 0x8000) chunks.push(String.fromCharCode(...bytes.subarray(i, i + 0x8000)));
  return btoa(chunks.join(''));
}

Object.assign(globalThis, { harness });
