/** The GPU device, made here and handed to the runtime, so that a page can share it with shaders of its own. */

import { sentence } from './errors.js';

/**
 * What is known of the adapter. `software` marks one that emulates a GPU on the CPU: its latency is no device figure.
 * @typedef {{vendor: string, architecture: string, device: string, description: string, software: boolean, features: string[]}} Adapter
 */
/** @typedef {{device: GPUDevice, adapter: Adapter}} Gpu */

/** The limits that onnxruntime-web raises when it makes a device itself; a default device is too small for large models. */
const LIMITS = /** @type {const} */ ([
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupSizeZ',
  'maxComputeWorkgroupStorageSize',
  'maxComputeWorkgroupsPerDimension',
]);

/**
 * onnxruntime-web 1.30 computes attention wrongly on devices with `subgroups` of 4 or 8 lanes (SwiftShader, lavapipe:
 * errors up to 1.7 on a spread of 0.6); without the feature it takes its shared-memory path, which is right.
 */
const SMALLEST_SAFE_SUBGROUP = 16;

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|basic render/i;

/** @param {GPUAdapterInfo} info */
const isSoftware = (info) => info.isFallbackAdapter || SOFTWARE.test(`${info.architecture} ${info.device} ${info.description}`);

/**
 * @param {GPUAdapterInfo} info
 * @param {ReadonlySet<string>} features
 * @returns {Adapter}
 */
function describe(info, features) {
  const { vendor, architecture, device, description } = info;
  return { vendor, architecture, device, description, software: isSoftware(info), features: [...features].sort() };
}

/**
 * A device of the page's own, as it is.
 * @param {GPUDevice} device
 * @returns {Gpu}
 */
export function adopt(device) {
  return { device, adapter: describe(device.adapterInfo, device.features) };
}

/**
 * The best device this browser gives.
 * @returns {Promise<Gpu | string>} or why there is none
 */
export async function createDevice() {
  if (!('gpu' in navigator)) {
    return globalThis.isSecureContext ? 'this browser has no WebGPU' : 'WebGPU needs https or localhost';
  }
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: 'high-performance' }).catch(() => null);
  if (adapter === null) return 'this browser found no WebGPU adapter';
  try {
    const device = await adapter.requestDevice({ requiredFeatures: features(adapter), requiredLimits: limits(adapter) });
    return { device, adapter: describe(adapter.info, adapter.features) };
  } catch (refusal) {
    return `the WebGPU adapter gave no device (${sentence(refusal)})`;
  }
}

/** @param {GPUAdapter} adapter */
function features(adapter) {
  /** @type {GPUFeatureName[]} */
  const wanted = ['shader-f16', 'timestamp-query'];
  if ((adapter.info.subgroupMinSize ?? 0) >= SMALLEST_SAFE_SUBGROUP) wanted.push('subgroups');
  return wanted.filter((feature) => adapter.features.has(feature));
}

/** @param {GPUAdapter} adapter */
function limits(adapter) {
  return Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
}
