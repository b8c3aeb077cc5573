/** The page that vitexport itself drives, to prove a .tflite file: LiteRT.js, called from Python. */

import { getWebGpuDevice, loadAndCompile, loadLiteRt, Tensor } from '@litertjs/core';
import { caught, lines, pack, unpack } from '../../../webgpu/harness/wire.js';
import { adopt, createDevice } from '../../../webgpu/runtime/vitexport/device.js';
import { BundleError, UnavailableError } from '../../../webgpu/runtime/vitexport/errors.js';

/** @typedef {import('@litertjs/core').CompiledModel} CompiledModel */
/** @typedef {'wasm' | 'webgpu'} Accelerator */
/** @typedef {{data: string, dims: readonly number[], dtype: keyof typeof ARRAYS}} Packed */

const WASM = '/_litertjs/core/wasm/';

/** The types that LiteRT.js's tensors have. */
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

/** @type {CompiledModel | null} */
let model = null;

/**
 * The build that this browser runs the accelerator with. Graphs that WebGPU takes only parts of need JSPI, without
 * which WebAssembly cannot wait for the GPU; LiteRT.js has no build with JSPI and threads.
 * @param {Accelerator} accelerator
 */
function buildFor(accelerator) {
  if (accelerator === 'webgpu') return 'Suspending' in WebAssembly ? 'jspi' : 'wasm';
  return globalThis.crossOriginIsolated ? 'threaded' : 'wasm';
}

/** @param {string} address */
async function bytes(address) {
  const response = await fetch(address);
  if (!response.ok) throw new BundleError(`${address} cannot be fetched (HTTP ${response.status}).`);
  return new Uint8Array(await response.arrayBuffer());
}

/** The GPU that LiteRT.js made a device on. It swallows the reason why there is none. */
async function adapter() {
  const device = getWebGpuDevice();
  if (device !== null) return adopt(device).adapter;
  const own = await createDevice();
  throw new UnavailableError(typeof own === 'string' ? own : 'LiteRT.js got no WebGPU device');
}

/** @param {Packed} packed */
function typed({ data, dtype }) {
  if (!(dtype in ARRAYS)) throw new Error(`LiteRT.js has no tensors of ${dtype}`);
  return new ARRAYS[dtype](unpack(data));
}

const harness = {
  /** @param {{model: string, accelerator: Accelerator}} options */
  open: ({ model: address, accelerator }) =>
    caught(async () => {
      const started = performance.now();
      const build = buildFor(accelerator);
      await loadLiteRt(WASM, { jspi: build === 'jspi', threads: build === 'threaded' });
      const gpu = accelerator === 'webgpu' ? await adapter() : null;
      lines.length = 0;
      // Without the option it may compute in float16 where the GPU can, whatever the file's precision.
      model = await loadAndCompile(await bytes(address), { accelerator, gpuOptions: { precision: 'fp32' } });
      const loadMs = performance.now() - started;
      if (model.options.accelerator !== accelerator) {
        throw new UnavailableError(`LiteRT.js went back to ${model.options.accelerator}: WebGPU takes a part of this file, which needs JSPI`);
      }
      const threads = model.options.cpuOptions.numThreads ?? 1;
      return { build, adapter: gpu, threads, whole: model.isFullyAccelerated, loadMs };
    }),

  /** What was said since the file was opened. */
  log: () => caught(async () => ({ lines: [...lines] })),

  /** @param {{signature: string, inputs: Record<string, Packed>}} job */
  run: ({ signature, inputs }) =>
    caught(async () => {
      if (model === null) throw new Error('No model is open.');
      const fed = Object.entries(inputs).map(([name, packed]) => ({ name, values: typed(packed), dims: [...packed.dims] }));
      const started = performance.now();
      const tensors = Object.fromEntries(fed.map(({ name, values, dims }) => [name, new Tensor(values, dims)]));
      const outputs = await model.run(signature, tensors);
      const arriving = Object.entries(outputs).map(async ([name, tensor]) => ({ name, tensor, data: await tensor.data() }));
      const arrived = await Promise.all(arriving);
      const ms = performance.now() - started;
      /** @type {Record<string, Packed>} */
      const answer = {};
      for (const { name, tensor, data } of arrived) {
        const { dtype, layout } = tensor.type;
        answer[name] = { data: pack(data), dims: [...layout.dimensions], dtype };
      }
      for (const tensor of [...Object.values(tensors), ...Object.values(outputs)]) tensor.delete();
      return { outputs: answer, ms };
    }),
};

Object.assign(globalThis, { harness });
