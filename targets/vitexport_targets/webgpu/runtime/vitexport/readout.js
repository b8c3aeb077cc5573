/** What an output means to a reader, by the `meaning` the manifest gives it. Batch of one. */

/** @typedef {import('../manifest').OutputSpec} OutputSpec */
/** @typedef {{data: Float32Array, dims: readonly number[]}} Output */
/** @typedef {{index: number, label: string, probability: number}} Guess */
/** @typedef {{meaning: 'logits', top: Guess[]}} Logits */
/** @typedef {{meaning: 'mask', height: number, width: number, mask: Float32Array}} Mask Probability of foreground, 0..1. */
/**
 * Class index of every pixel, and the share of the picture that each class present covers, largest first; the mask of
 * people where a class is theirs.
 * @typedef {{meaning: 'segmentation', height: number, width: number, classes: Uint16Array,
 *   shares: {index: number, label: string, share: number}[], person: Mask | null}} Segmentation
 */
/** @typedef {{meaning: 'features', dims: readonly number[], norm: number, mean: number, deviation: number}} Features */
/** @typedef {Logits | Mask | Segmentation | Features} Reading */

const TOP = 5;

/**
 * @param {OutputSpec} spec
 * @param {Output} output
 * @returns {Reading}
 */
export function read(spec, output) {
  switch (spec.meaning) {
    case 'logits':
      return readLogits(spec, output);
    case 'mask':
      return { meaning: 'mask', ...plane(output), mask: output.data };
    case 'segmentation':
      return { ...readSegmentation(output, spec.labels), person: personMask(spec, output) };
    case 'features':
      return readFeatures(output);
  }
}

/**
 * @param {readonly string[]} labels
 * @param {number} index
 */
const label = (labels, index) => labels[index] ?? `class ${index}`;

/** @param {Output} output */
function plane({ dims }) {
  const [height = 0, width = 0] = dims.slice(-2);
  return { height, width };
}

/**
 * The most probable classes.
 * @param {OutputSpec} spec
 * @param {Output} output
 * @returns {Logits}
 */
function readLogits({ labels, scores }, { data }) {
  const top = Array.from(scores === 'probabilities' ? data : probabilities(data))
    .map((probability, index) => ({ index, label: label(labels, index), probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, TOP);
  return { meaning: 'logits', top };
}

/**
 * Of classes by their logits, the rule of `vitexport.parity.probabilities`: a softmax, of one class alone a sigmoid.
 * @param {Float32Array} logits
 */
function probabilities(logits) {
  if (logits.length === 1) return Array.from(logits, (logit) => 1 / (1 + Math.exp(-logit)));
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

/**
 * The probability that a pixel shows a person, by what the manifest says of an output, whichever network it is of: the
 * rule of `vitexport.parity.person_mask`. `person` is the channel. `probabilities` are read as they are; `logits` take
 * a softmax over the channels, a lone one a sigmoid.
 * @param {Pick<OutputSpec, 'person' | 'scores'>} spec
 * @param {Output} output (1, channels, height, width)
 * @returns {Mask | null} null where no channel tells of people
 */
export function personMask({ person, scores }, output) {
  if (person === null) return null;
  const { height, width } = plane(output);
  const area = height * width;
  const channels = output.dims[1] ?? 1;
  const { data } = output;
  const own = data.subarray(person * area, (person + 1) * area);
  if (scores === 'probabilities') return { meaning: 'mask', height, width, mask: own };
  if (channels === 1) return { meaning: 'mask', height, width, mask: own.map((x) => 1 / (1 + Math.exp(-x))) };
  const largest = data.slice(0, area);
  const total = new Float32Array(area);
  for (let c = 1; c < channels; c++) {
    for (let i = 0; i < area; i++) largest[i] = Math.max(largest[i] ?? NaN, data[c * area + i] ?? NaN);
  }
  for (let c = 0; c < channels; c++) {
    for (let i = 0; i < area; i++) {
      total[i] = (total[i] ?? NaN) + Math.exp((data[c * area + i] ?? NaN) - (largest[i] ?? NaN));
    }
  }
  const mask = own.map((x, i) => Math.exp(x - (largest[i] ?? NaN)) / (total[i] ?? NaN));
  return { meaning: 'mask', height, width, mask };
}

/**
 * @param {Output} output (1, classes, height, width)
 * @param {readonly string[]} labels
 * @returns {Omit<Segmentation, 'person'>}
 */
function readSegmentation(output, labels) {
  const { height, width } = plane(output);
  const area = height * width;
  const classes = new Uint16Array(area);
  const best = output.data.slice(0, area);
  for (let c = 1; c < (output.dims[1] ?? 1); c++) {
    for (let i = 0; i < area; i++) {
      const score = output.data[c * area + i] ?? -Infinity;
      if (score > (best[i] ?? -Infinity)) {
        best[i] = score;
        classes[i] = c;
      }
    }
  }
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const c of classes) counts.set(c, (counts.get(c) ?? 0) + 1);
  const shares = [...counts]
    .map(([index, count]) => ({ index, label: label(labels, index), share: count / area }))
    .sort((a, b) => b.share - a.share);
  return { meaning: 'segmentation', height, width, classes, shares };
}

/**
 * @param {Output} output
 * @returns {Features}
 */
function readFeatures({ data, dims }) {
  const squares = data.reduce((sum, x) => sum + x * x, 0);
  const mean = data.reduce((sum, x) => sum + x, 0) / data.length;
  return { meaning: 'features', dims, norm: Math.sqrt(squares), mean, deviation: Math.sqrt(Math.max(0, squares / data.length - mean ** 2)) };
}
