/** Which size, and which precision runs where: pure functions of the manifest and of what the browser has. */

import { UnavailableError } from './errors.js';

/** @typedef {import('../manifest').Variant} Variant */
/** @typedef {import('../manifest').Rung} Rung */
/** @typedef {import('../manifest').Size} Size */
/** @typedef {'webgpu' | 'wasm'} Provider */
/** @typedef {{variant: Variant, provider: Provider, obstacle: string | null}} Candidate `obstacle`: why it cannot run. */
/** @typedef {{precision?: string | undefined, provider?: Provider | undefined}} Wishes */

/** @param {Size} size */
const aspect = ({ width, height }) => width / height;

/** @param {Size} size */
const name = ({ width, height }) => `${height}x${width}`;

/** @param {Rung} rung */
const area = ({ preprocessing: { size } }) => size.width * size.height;

/**
 * The rungs to try, in order: the one of `size`; else those whose shape is nearest to `frame`'s (the first rung's where
 * there is none), of which a latency budget wants the largest that keeps it, and no budget the first in the manifest.
 * @param {readonly Rung[]} rungs
 * @param {{size?: Size | undefined, frame?: Size | undefined, budgetMs?: number | undefined}} wishes
 * @returns {Rung[]} at least one
 */
export function rankRungs(rungs, { size, frame, budgetMs }) {
  if (size) {
    const exact = rungs.filter(({ preprocessing }) => name(preprocessing.size) === name(size));
    if (exact.length > 0) return exact.slice(0, 1);
    throw new UnavailableError(`This bundle has no size ${name(size)}. It has: ${rungs.map((r) => name(r.preprocessing.size)).join(', ')}.`);
  }
  const shape = frame ?? rungs[0]?.preprocessing.size;
  if (shape === undefined) throw new UnavailableError('This bundle lists no size to run at.');
  // Ratios differ by factors: twice as wide is as far off as twice as high.
  const distances = rungs.map(({ preprocessing }) => Math.abs(Math.log(aspect(shape) / aspect(preprocessing.size))));
  const nearest = Math.min(...distances);
  const alike = rungs.filter((_, i) => (distances[i] ?? Infinity) <= nearest + 1e-9);
  return budgetMs === undefined ? alike.slice(0, 1) : alike.sort((a, b) => area(b) - area(a));
}

/**
 * Every pair of precision and provider, best first: the manifest's order on WebGPU, then on WebAssembly, where a
 * variant made for it comes first, and one made for a GPU feature last (it gains nothing there).
 * @param {readonly Variant[]} variants
 * @param {ReadonlySet<string> | string} gpu the device's features, or why there is no device
 * @param {Wishes} wishes
 * @returns {Candidate[]}
 */
export function rank(variants, gpu, wishes) {
  const fitting = [...variants].sort((a, b) => fit(b) - fit(a));
  return [
    ...variants.map((variant) => ({ variant, provider: /** @type {const} */ ('webgpu'), obstacle: gpuObstacle(variant, gpu) })),
    ...fitting.map((variant) => ({ variant, provider: /** @type {const} */ ('wasm'), obstacle: null })),
  ].filter(
    ({ variant, provider }) =>
      (wishes.precision ?? variant.precision) === variant.precision && (wishes.provider ?? provider) === provider,
  );
}

/**
 * How well WebAssembly suits it.
 * @param {Variant} variant
 */
const fit = (variant) => Number(variant.only.length > 0) - Number(variant.requires.length > 0);

/**
 * @param {Variant} variant
 * @param {ReadonlySet<string> | string} gpu
 */
function gpuObstacle(variant, gpu) {
  if (variant.only.length > 0 && !variant.only.includes('webgpu')) {
    return `made for ${variant.only.join(' and ')}: the GPU has no kernels for its integers`;
  }
  if (typeof gpu === 'string') return gpu;
  const missing = variant.requires.filter((feature) => !gpu.has(feature));
  return missing.length > 0 ? `adapter has no ${missing.join(', ')}` : null;
}
