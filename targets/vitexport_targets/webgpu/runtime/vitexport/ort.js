/** onnxruntime-web: the smallest build that serves this browser, loaded once, used by one call at a time. */

import { BundleError, UnavailableError } from './errors.js';
import { request } from './files.js';

/** @typedef {typeof import('onnxruntime-web')} Ort */
/** @typedef {import('../manifest').RuntimeBuild} RuntimeBuild */
/** @typedef {'jspi' | 'asyncify' | 'wasm'} BuildName */
/** @typedef {{builds: Record<string, RuntimeBuild>, base: URL}} Builds */

/** @type {Map<string, Promise<Ort>>} */
const loading = new Map();

/** @type {WeakMap<Ort, Promise<unknown>>} */
const busy = new WeakMap();

/**
 * Of runtimes that have started: how many threads they run with, and how many were wished for.
 * @type {WeakMap<Ort, {threads: number, wish: number | undefined}>}
 */
const running = new WeakMap();

/**
 * JSPI suspends WebAssembly natively; asyncify rewrites it to the same end at 1.6 times the size; without WebGPU
 * neither is needed.
 * @param {boolean} hasGpu
 * @returns {BuildName}
 */
export function buildFor(hasGpu) {
  if (!hasGpu) return 'wasm';
  return 'Suspending' in WebAssembly ? 'jspi' : 'asyncify';
}

/**
 * @param {Builds} runtime
 * @param {BuildName} name
 * @returns {Promise<Ort>}
 */
export function loadOrt({ builds, base }, name) {
  const build = builds[name];
  if (build === undefined) {
    throw new UnavailableError(
      `This bundle carries no '${name}' build of its runtime. Pass your own onnxruntime-web as options.ort, ` +
        'or export the model with --runtime copy.',
    );
  }
  const address = new URL(build.module, base).href;
  const started = loading.get(address) ?? importOrt(address, build, base);
  loading.set(address, started);
  started.catch(() => loading.delete(address));
  return started;
}

/**
 * @param {string} address
 * @param {RuntimeBuild} build
 * @param {URL} base
 * @returns {Promise<Ort>}
 */
async function importOrt(address, build, base) {
  /** @type {Promise<Ort>} */
  const imported = import(/* @vite-ignore */ address);
  const ort = await imported.catch((/** @type {unknown} */ cause) => {
    throw new BundleError(`The runtime ${address} cannot be loaded. Is the bundle complete?`, { cause });
  });
  const parts = build.wasm.map((part) => new URL(part, base));
  const [only] = parts;
  // One file is compiled while it streams in, and the browser may cache the machine code; parts must be joined first.
  if (parts.length === 1 && only !== undefined) ort.env.wasm.wasmPaths = { wasm: only.href };
  else ort.env.wasm.wasmBinary = await joined(parts);
  return ort;
}

/** @param {URL[]} parts */
async function joined(parts) {
  const blobs = await Promise.all(parts.map(async (part) => (await request(part)).blob()));
  return new Blob(blobs).arrayBuffer();
}

/**
 * Run `job`, which starts the runtime if nothing did yet, with so many WebAssembly threads. A runtime starts once a page
 * or worker: its threads stay as they are.
 * @template T
 * @param {Ort} ort
 * @param {number | undefined} wish undefined: the runtime's own choice, or what is there
 * @param {() => Promise<T>} job
 * @returns {Promise<T>} throws `UnavailableError` where it runs with another number
 */
export async function withThreads(ort, wish, job) {
  const { wasm } = ort.env;
  if (wish !== undefined) {
    const { threads, wish: earlier } = running.get(ort) ?? { threads: wasm.numThreads, wish: undefined };
    if (threads === undefined) wasm.numThreads = wish;
    // A runtime that cannot have as many as were wished for takes one; the same wish again is no other one.
    else if (wish !== threads && wish !== earlier) {
      throw new UnavailableError(
        `onnxruntime-web has ${threads} WebAssembly ${threads === 1 ? 'thread' : 'threads'} here already, and cannot be ` +
          `given ${wish}. Load this model in a worker of its own, or leave options.threads out.`,
      );
    }
  }
  try {
    return await job();
  } finally {
    if (!running.has(ort)) running.set(ort, { threads: wasm.numThreads ?? 1, wish });
  }
}

/** @param {Ort} ort one that has started */
export const threadsOf = (ort) => running.get(ort)?.threads ?? 1;

/**
 * Run `job` when all earlier jobs on this runtime are done: its WebAssembly can neither create two WebGPU sessions
 * nor run two inferences at the same time.
 * @template T
 * @param {Ort} ort
 * @param {() => Promise<T>} job
 * @returns {Promise<T>}
 */
export function exclusively(ort, job) {
  const earlier = busy.get(ort) ?? Promise.resolve();
  const result = earlier.then(job);
  busy.set(ort, result.catch(() => undefined));
  return result;
}
