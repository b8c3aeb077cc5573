/** A bundle's exam: its golden photos and PyTorch's answers to them, against what this browser computes. */

import { BundleError } from './errors.js';

/** @typedef {import('./readout.js').Output} Output */
/** @typedef {import('../manifest').OutputSpec} OutputSpec */
/** @typedef {import('../manifest').Variant} Variant */
/**
 * `preprocessing`: largest difference of the tensor made of the golden photo from the one Python made of it.
 * `off`: how far each output is from PyTorch's, in the variant's metric.
 * @typedef {{name: string, preprocessing: number, off: Record<string, number>, ms: number}} CaseResult
 */
/**
 * `worst`: the largest `off`. `steadyMs` is a median.
 * @typedef {{verdict: 'passed' | 'failed', reason: string, metric: Variant['metric'], worst: number, tolerance: number,
 *   cases: CaseResult[], loadMs: number, coldMs: number, steadyMs: number, steadyRuns: number}} ExamResult
 */

/**
 * Same integers, same float32 steps: the bytes are identical, and dividing by std may round differently in the last
 * place. One 8-bit step is 4e-3 before normalisation, so anything above this is a different pixel.
 */
export const PREPROCESSING_TOLERANCE = 1e-5;

/**
 * How far an output is from the expected one, as `vitexport.parity` has it: `drift` is max|a-b| / max|b|, `noise` is
 * rms(a-b) / rms(b); a mask's scale is its range, 1. NaN where either holds one.
 * @param {Float32Array} actual
 * @param {Float32Array} expected
 * @param {OutputSpec['meaning']} meaning
 * @param {Variant['metric']} metric
 */
export function distance(actual, expected, meaning, metric) {
  const size = metric === 'drift' ? largest : rms;
  const scale = meaning === 'mask' ? 1 : size(expected, (x) => x);
  return size(actual, (x, i) => x - (expected[i] ?? NaN)) / (scale || 1);
}

/**
 * @param {Float32Array} values
 * @param {(value: number, index: number) => number} of
 */
function rms(values, of) {
  return Math.sqrt(values.reduce((sum, x, i) => sum + of(x, i) ** 2, 0) / values.length);
}

/**
 * @param {Float32Array} values
 * @param {(value: number, index: number) => number} of
 */
function largest(values, of) {
  let most = 0;
  for (let i = 0; i < values.length; i++) {
    const size = Math.abs(of(values[i] ?? NaN, i));
    if (Number.isNaN(size)) return NaN;
    if (size > most) most = size;
  }
  return most;
}

/**
 * The distance of every expected output.
 * @param {Record<string, Output>} actual
 * @param {Record<string, Float32Array>} expected
 * @param {readonly OutputSpec[]} specs
 * @param {Variant['metric']} metric
 */
export function distances(actual, expected, specs, metric) {
  /** @type {Record<string, number>} */
  const byName = {};
  for (const [name, values] of Object.entries(expected)) {
    const output = actual[name];
    if (output === undefined) throw new BundleError(`The model has no output '${name}', which the exam asks for.`);
    if (output.data.length !== values.length) {
      throw new BundleError(`Output '${name}' has ${output.data.length} values; the exam expects ${values.length}.`);
    }
    const meaning = specs.find((spec) => spec.name === name)?.meaning ?? 'features';
    byName[name] = distance(output.data, values, meaning, metric);
  }
  return byName;
}

/**
 * @param {CaseResult[]} cases
 * @param {Variant} variant
 * @returns {Pick<ExamResult, 'verdict' | 'reason' | 'metric' | 'worst' | 'tolerance' | 'cases'>}
 */
export function judge(cases, { metric, tolerance }) {
  const all = cases.flatMap((c) => Object.values(c.off));
  const worst = Math.max(...all); // NaN, where there is one
  const fault = cases.map((c) => faultOf(c, metric, tolerance)).find((reason) => reason !== null);
  const reason = fault ?? (all.length === 0 ? 'The bundle holds no golden case, so nothing was compared.' : '');
  return { verdict: reason === '' ? 'passed' : 'failed', reason, metric, worst, tolerance, cases };
}

/**
 * @param {CaseResult} result
 * @param {Variant['metric']} metric
 * @param {number} tolerance
 */
function faultOf({ name, off: byName, preprocessing }, metric, tolerance) {
  if (!(preprocessing <= PREPROCESSING_TOLERANCE)) {
    return `Preprocessing '${name}' differs from Python's by ${preprocessing.toPrecision(2)} (allowed: ${PREPROCESSING_TOLERANCE}).`;
  }
  const off = Object.entries(byName).find(([, value]) => !(value <= tolerance));
  if (off === undefined) return null;
  return `Output '${off[0]}' on '${name}' is off PyTorch's by ${off[1].toPrecision(2)} (${metric}; allowed: ${Number(tolerance.toPrecision(2))}).`;
}

/** @param {number[]} values at least one */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] ?? NaN) : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}
