/** Which precision runs where: a pure function of the manifest and of what the browser has. */

/** @typedef {import('../manifest').Variant} Variant */
/** @typedef {'webgpu' | 'wasm'} Provider */
/** @typedef {{variant: Variant, provider: Provider, obstacle: string | null}} Candidate `obstacle`: why it cannot run. */
/** @typedef {{precision?: string | undefined, provider?: Provider | undefined}} Wishes */

/**
 * Every pair of precision and provider, best first: the manifest's order on WebGPU, then on WebAssembly, where a
 * variant made for a GPU feature comes last (it gains nothing there).
 * @param {readonly Variant[]} variants
 * @param {ReadonlySet<string> | string} gpu the device's features, or why there is no device
 * @param {Wishes} wishes
 * @returns {Candidate[]}
 */
export function rank(variants, gpu, wishes) {
  const plainFirst = [...variants].sort((a, b) => Number(a.requires.length > 0) - Number(b.requires.length > 0));
  return [
    ...variants.map((variant) => ({ variant, provider: /** @type {const} */ ('webgpu'), obstacle: gpuObstacle(variant, gpu) })),
    ...plainFirst.map((variant) => ({ variant, provider: /** @type {const} */ ('wasm'), obstacle: null })),
  ].filter(
    ({ variant, provider }) =>
      (wishes.precision ?? variant.precision) === variant.precision && (wishes.provider ?? provider) === provider,
  );
}

/**
 * @param {Variant} variant
 * @param {ReadonlySet<string> | string} gpu
 */
function gpuObstacle(variant, gpu) {
  if (typeof gpu === 'string') return gpu;
  const missing = variant.requires.filter((feature) => !gpu.has(feature));
  return missing.length > 0 ? `adapter has no ${missing.join(', ')}` : null;
}
