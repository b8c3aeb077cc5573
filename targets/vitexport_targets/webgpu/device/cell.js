/**
 * One cell, in a worker of its own: what crashes here, or fills the memory, takes one cell with it. The bundle's own
 * loader runs the network; the protocol is that of `vitexport.bench`.
 */

import { compare, summary } from './parity.js';
import { readPlacement } from './placement.js';

/** @typedef {import('./report').Asked} Asked */
/** @typedef {import('./report').Said} Said */
/** @typedef {import('./report').Cell} Cell */
/** @typedef {import('./report').Task} Task */
/** @typedef {import('./report').Options} Options */
/** @typedef {typeof import('../runtime/vitexport.js')} Vitexport */
/** @typedef {import('../runtime/vitexport.js').LoadedModel} LoadedModel */
/** @typedef {import('../runtime/vitexport.js').LoadOptions} LoadOptions */

const STEADY_RUNS = 30;
const BUDGET_MS = 10_000;
const SUSTAINED_TAIL_MS = 30_000;

/** Between two signs of life. */
const SIGN_MS = 5_000;

const bundle = new URL('./bundle/', import.meta.url);

/** @type {string[]} */
const lines = [];

globalThis.addEventListener('message', (/** @type {MessageEvent<Asked>} */ { data }) => {
  const { job, task, options } = data;
  const done = job === 'measure' ? measured(task, options) : placed(task, options);
  done.then(say, (/** @type {unknown} */ thrown) => {
    const { name, message } = thrown instanceof Error ? thrown : new Error(String(thrown));
    say({ kind: 'stopped', name, message });
  });
});

/** @param {Said} said */
const say = (said) => globalThis.postMessage(said);

/**
 * @param {Task} task
 * @param {Options} options
 * @returns {Promise<Said>}
 */
async function measured(task, options) {
  const { precision, provider, size } = task;
  /** @type {Vitexport} */
  const { load, personMask } = await import(new URL('vitexport.js', bundle).href);
  say({ kind: 'step', words: 'loading' });
  const model = await load(bundle, loadOptions(task, options));
  const { rung, adapter, threads, build, loadMs } = model.info;
  const variant = rung.variants.find((each) => each.precision === precision);
  if (variant === undefined) throw new Error(`This bundle has no precision '${precision}'.`);

  say({ kind: 'step', words: 'comparing with PyTorch' });
  const comparisons = [];
  /** @type {number[]} */
  const times = [];
  /** @type {Float32Array | null} */
  let input = null;
  for (const golden of rung.golden) {
    input = await floats(golden.input);
    const { outputs, ms } = await model.runTensor(input);
    times.push(ms);
    for (const spec of rung.outputs) {
      const output = outputs[spec.name];
      const path = golden.outputs[spec.name];
      if (output === undefined || path === undefined) throw new Error(`The model gives no output '${spec.name}'.`);
      comparisons.push(compare(output, await floats(path), spec, personMask));
    }
  }
  if (input === null) throw new Error('The bundle holds no golden case. Export it again.');
  const figures = summary(comparisons);
  const spot = await model.spotCheck(); // the photo itself: what this browser makes of it is part of the answer

  say({ kind: 'step', words: 'taking the time' });
  const [cold = NaN, ...steady] = times;
  while (steady.length < STEADY_RUNS && total(steady) < BUDGET_MS) steady.push((await model.runTensor(input)).ms);
  const lasting = options.sustainedS ? await sustained(model, input, options.sustainedS) : {};

  const off = variant.metric === 'drift' ? figures.drift : 10 ** (-figures.snr_db / 20);
  const passed = spot.verdict === 'passed' && off <= variant.tolerance; // NaN is no less than anything
  const reason = spot.verdict === 'failed' ? spot.reason : `${variant.metric} is ${off.toPrecision(3)}; at most ${variant.tolerance.toPrecision(3)} passes.`;
  /** @type {Record<string, string>} */
  const facts = { build, load: 'fetched over the network' };
  if (adapter) {
    const { description, vendor, architecture, device, features } = adapter;
    facts['adapter'] = [...new Set([description || device, vendor, architecture])].filter(Boolean).join(' ') || 'unnamed';
    facts['shader-f16'] = features.includes('shader-f16') ? 'yes' : 'no';
  } else facts['threads'] = String(threads);
  await model.dispose();
  /** @type {Cell} */
  const cell = {
    precision,
    provider,
    size,
    parity: { verdict: passed ? 'passed' : 'failed', ...figures, images: rung.golden.length, reason: passed ? '' : reason },
    latency: { verdict: 'passed', load_ms: loadMs, cold_ms: cold, times_ms: steady, ...lasting, facts },
    placement: null,
    software: adapter?.software ?? false,
  };
  return { kind: 'measured', cell };
}

/**
 * The median of the last half minute of so many seconds of nothing but inferences.
 * @param {LoadedModel} model
 * @param {Float32Array} input
 * @param {number} seconds
 * @returns {Promise<{sustained_ms: number, sustained_after_s: number}>}
 */
async function sustained(model, input, seconds) {
  /** @type {{ended: number, ms: number}[]} */
  let tail = [];
  let [spent, told] = [0, -Infinity];
  while (spent < seconds * 1000 || tail.length === 0) {
    if (spent - told >= SIGN_MS) {
      told = spent;
      say({ kind: 'step', words: `at work for ${Math.round(spent / 1000)} of ${Math.round(seconds)} s` });
    }
    const { ms } = await model.runTensor(input);
    spent += ms;
    tail.push({ ended: spent, ms });
    const [oldest] = tail; // thrown away now and then, not run by run
    if (oldest && oldest.ended < spent - 2 * SUSTAINED_TAIL_MS) tail = tail.filter(({ ended }) => ended >= spent - SUSTAINED_TAIL_MS);
  }
  const counted = tail.filter(({ ended }) => ended >= spent - SUSTAINED_TAIL_MS).map(({ ms }) => ms).sort((a, b) => a - b);
  const [lower = NaN, upper = NaN] = [counted[(counted.length - 1) >> 1], counted[counted.length >> 1]];
  return { sustained_ms: (lower + upper) / 2, sustained_after_s: seconds };
}

/**
 * A session that logs its creation logs every dispatch too: it is another one than what is timed.
 * @param {Task} task
 * @param {Options} options
 * @returns {Promise<Said>}
 */
async function placed(task, options) {
  // WebAssembly takes hold of these functions when it starts, so they are replaced before.
  for (const level of /** @type {const} */ (['debug', 'log', 'info', 'warn', 'error'])) {
    console[level] = (...said) => void lines.push(said.join(' '));
  }
  /** @type {Vitexport} */
  const { load } = await import(new URL('vitexport.js', bundle).href);
  const model = await load(bundle, { ...loadOptions(task, options), verbose: true });
  await model.dispose();
  return { kind: 'placed', placement: readPlacement(lines) };
}

/**
 * @param {Task} task
 * @param {Options} options
 * @returns {LoadOptions}
 */
function loadOptions({ precision, provider, size, threads }, { runtime, runtimeBase }) {
  return {
    precision,
    size,
    provider: provider === 'webgpu' ? 'webgpu' : 'wasm',
    ...(threads === null ? {} : { threads }),
    ...(runtime && runtimeBase ? { runtime: { builds: runtime.builds, base: new URL(runtimeBase, import.meta.url) } } : {}),
  };
}

/** @param {string} path of a golden file */
async function floats(path) {
  const response = await fetch(new URL(path, bundle));
  if (!response.ok) throw new Error(`${path} cannot be fetched (${response.status}).`);
  return new Float32Array(await response.arrayBuffer());
}

/** @param {number[]} values */
const total = (values) => values.reduce((a, b) => a + b, 0);
