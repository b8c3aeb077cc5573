/** How far answers are from PyTorch's: the figures of `vitexport.parity`, which judges them again where they arrive. */

/** @typedef {typeof import('../runtime/vitexport.js').personMask} PersonMask */
/** @typedef {import('../runtime/manifest').OutputSpec} OutputSpec */
/** @typedef {{data: Float32Array, dims: readonly number[]}} Output */
/** Intersection and union, in pixels. @typedef {[number, number]} Overlap */
/**
 * `mask`: of an output that is one; `people`: of the channel that tells of them.
 * @typedef {{drift: number, snrDb: number, cosine: number, agreement: number | null, mask: Overlap | null, people: Overlap | null}} Comparison
 */

const SNR_CEILING_DB = 200;

/**
 * @param {Output} actual
 * @param {Float32Array} expected
 * @param {OutputSpec} spec
 * @param {PersonMask} personMask the bundle's own
 * @returns {Comparison} with NaN wherever an answer holds one
 */
export function compare(actual, expected, spec, personMask) {
  const { data } = actual;
  if (data.length !== expected.length) throw new Error(`Output '${spec.name}' has ${data.length} values; PyTorch's has ${expected.length}.`);
  let most = 0;
  let scale = 0;
  let noise = 0;
  let signal = 0;
  let product = 0;
  let power = 0;
  for (let i = 0; i < data.length; i++) {
    const a = data[i] ?? NaN;
    const b = expected[i] ?? NaN;
    const off = Math.abs(a - b);
    most = off > most || Number.isNaN(off) ? off : most; // once NaN, no comparison is true
    scale = Math.max(scale, Math.abs(b));
    noise += off * off;
    signal += b * b;
    product += a * b;
    power += a * a;
  }
  if (Number.isNaN(noise)) most = NaN;
  const isMask = spec.meaning === 'mask'; // whose scale is its range, 1
  const ratio = (isMask ? data.length : signal) / noise;
  const theirs = spec.person === null ? null : personMask(spec, { data: expected, dims: actual.dims });
  const ours = spec.person === null ? null : personMask(spec, actual);
  return {
    drift: most / ((isMask ? 1 : scale) || 1),
    snrDb: noise === 0 ? SNR_CEILING_DB : Math.min(SNR_CEILING_DB, 10 * Math.log10(ratio)),
    cosine: power * signal === 0 ? Number(power === signal) : product / Math.sqrt(power * signal),
    agreement: agreement(actual, expected, spec),
    mask: isMask ? overlap(data, expected) : null,
    people: theirs && ours ? overlap(ours.mask, theirs.mask) : null,
  };
}

/**
 * The figures of a whole exam: the worst of drift, SNR and cosine, all pictures' masks together, the mean of the rest.
 * @param {Comparison[]} all at least one
 */
export function summary(all) {
  const agreements = all.flatMap(({ agreement: a }) => (a === null ? [] : [a]));
  const masks = all.flatMap(({ mask }) => (mask ? [mask] : []));
  const people = all.flatMap((c) => (c.people ? [c.people] : []));
  return {
    drift: Math.max(...all.map((c) => c.drift)),
    snr_db: Math.min(...all.map((c) => c.snrDb)),
    cosine: Math.min(...all.map((c) => c.cosine)),
    agreement: masks.length > 0 ? iou(masks) : agreements.length > 0 ? mean(agreements) : null,
    person_iou: people.length > 0 ? iou(people) : null,
  };
}

/**
 * Of one picture: 1 or 0 for the same top-1, of one class alone for the same side of a half; mean IoU of the classes; null where neither is meant.
 * @param {Output} actual
 * @param {Float32Array} expected
 * @param {OutputSpec} spec
 */
function agreement({ data, dims }, expected, { meaning, scores }) {
  if (meaning === 'logits' && data.length === 1) {
    const half = scores === 'probabilities' ? 0.5 : 0;
    return Number((data[0] ?? NaN) > half === (expected[0] ?? NaN) > half);
  }
  if (meaning === 'logits') return Number(largest(data, 0, 1, data.length) === largest(expected, 0, 1, data.length));
  if (meaning !== 'segmentation') return null;
  const classes = dims[1] ?? 1;
  const area = data.length / classes;
  /** @type {Map<number, Overlap>} */
  const found = new Map();
  /** @type {(index: number, shared: number) => void} */
  const count = (index, shared) => {
    const [both, either] = found.get(index) ?? [0, 0];
    found.set(index, [both + shared, either + 1]);
  };
  for (let i = 0; i < area; i++) {
    const ours = largest(data, i, area, classes);
    const theirs = largest(expected, i, area, classes);
    count(ours, Number(ours === theirs));
    if (ours !== theirs) count(theirs, 0);
  }
  return mean([...found.values()].map((each) => iou([each])));
}

/**
 * Which of `count` values, `stride` apart, is the largest.
 * @param {Float32Array} values
 * @param {number} start
 * @param {number} stride
 * @param {number} count
 */
function largest(values, start, stride, count) {
  let best = 0;
  for (let c = 1; c < count; c++) {
    if ((values[start + c * stride] ?? NaN) > (values[start + best * stride] ?? NaN)) best = c;
  }
  return best;
}

/**
 * @param {Float32Array} a
 * @param {Float32Array} b
 * @returns {Overlap}
 */
function overlap(a, b) {
  let both = 0;
  let either = 0;
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [(a[i] ?? 0) > 0.5, (b[i] ?? 0) > 0.5];
    both += Number(x && y);
    either += Number(x || y);
  }
  return [both, either];
}

/** @param {Overlap[]} overlaps */
function iou(overlaps) {
  const either = overlaps.reduce((sum, [, union]) => sum + union, 0);
  return either === 0 ? 1 : overlaps.reduce((sum, [both]) => sum + both, 0) / either;
}

/** @param {number[]} values at least one */
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
