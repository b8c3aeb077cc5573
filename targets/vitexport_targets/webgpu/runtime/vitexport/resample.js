/**
 * Pillow's resampling, to the bit: what `Image.resize` of Pillow computes on 8-bit RGB.
 *
 * The filter is separable and widens with the downscale factor, so shrinking is antialiased. Weights are computed in
 * double precision, normalised, and rounded to 22 fractional bits; each pass (horizontal, then vertical) sums in
 * integers, rounds and clips to a byte. Nearest neighbour is a walk through pixel centres and shares none of that.
 *
 * Only the window that the caller wants is computed: output pixels do not depend on one another.
 */

/** @typedef {{data: Uint8Array | Uint8ClampedArray, height: number, width: number, channels: number}} Pixels Interleaved rows. */
/** @typedef {{top: number, left: number, height: number, width: number}} Window In pixels of the resized picture. */
/** @typedef {{height: number, width: number}} Size */
/** @typedef {{support: number, weight: (x: number) => number}} Kernel */

/** 8 bits of pixel and 2 of headroom for overshoot leave 22 of an int32's bits to the fraction. */
const FRACTION_BITS = 32 - 8 - 2;
const ONE = 2 ** FRACTION_BITS;
const BICUBIC_A = -0.5;

/** @typedef {'bilinear' | 'bicubic' | 'lanczos'} Filter */

/** @type {Record<Filter, Kernel>} */
const KERNELS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: (x) => keys(Math.abs(x)) },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/**
 * Keys' cubic convolution (1981), a = -0.5.
 * @param {number} x at least 0
 */
function keys(x) {
  if (x < 1) return ((BICUBIC_A + 2) * x - (BICUBIC_A + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * BICUBIC_A;
  return 0;
}

/** @param {number} x */
function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/**
 * Resize to `size` and cut `window` out of the result.
 * @param {Pixels} picture 3 or 4 channels; only the first three are read
 * @param {Size} size
 * @param {Window} window
 * @param {'nearest' | Filter} filter
 * @returns {Uint8Array} window.height x window.width x 3
 */
export function resample(picture, size, window, filter) {
  const sameSize = size.height === picture.height && size.width === picture.width;
  if (sameSize || filter === 'nearest') return pickNearest(picture, size, window);
  const across = taps(picture.width, size.width, window.left, window.width, filter);
  const down = taps(picture.height, size.height, window.top, window.height, filter);
  return vertical(horizontal(picture, across, down), down, window);
}

/**
 * @param {Pixels} picture
 * @param {Size} size
 * @param {Window} window
 */
function pickNearest(picture, size, window) {
  const rows = nearest(picture.height, size.height).subarray(window.top, window.top + window.height);
  const columns = nearest(picture.width, size.width).subarray(window.left, window.left + window.width);
  const out = new Uint8Array(rows.length * columns.length * 3);
  let to = 0;
  for (const row of rows) {
    for (const column of columns) {
      const from = (row * picture.width + column) * picture.channels;
      for (let c = 0; c < 3; c++) out[to++] = picture.data[from + c] ?? 0;
    }
  }
  return out;
}

/**
 * The source index of each output index. The position is summed up, not multiplied: the rounding of that sum decides
 * some pixels, and Pillow's is a sum.
 * @param {number} input
 * @param {number} output
 */
function nearest(input, output) {
  const step = input / output;
  const indices = new Int32Array(output);
  for (let i = 0, at = step * 0.5; i < output; i++, at += step) indices[i] = Math.min(Math.trunc(at), input - 1);
  return indices;
}

/**
 * How one axis is resized: which input pixels each output pixel is a weighted sum of. Whoever resizes elsewhere (in a
 * shader, say) computes the same bytes from it: across first, then down, each sum plus one half shifted right by 22 bits
 * and clipped to a byte.
 * @param {number} input pixels of the picture
 * @param {number} output pixels that these are resized to
 * @param {number} first of those, the first one wanted
 * @param {number} count how many are wanted
 * @param {'nearest' | Filter} filter
 * @returns {Taps}
 */
export function taps(input, output, first, count, filter) {
  if (input === output) return copies(Int32Array.from({ length: count }, (_, i) => first + i));
  if (filter === 'nearest') return copies(nearest(input, output).slice(first, first + count));
  return weights(input, output, first, count, KERNELS[filter]);
}

/** @typedef {{starts: Int32Array, counts: Int32Array, weights: Int32Array, taps: number}} Taps `taps` weights a row. */

/**
 * Fixed-point weights of output pixels `first` to `first + count`.
 * @param {number} input
 * @param {number} output
 * @param {number} first
 * @param {number} count
 * @param {Kernel} kernel
 * @returns {Taps}
 */
function weights(input, output, first, count, kernel) {
  const scale = input / output;
  const stretch = Math.max(scale, 1);
  const support = kernel.support * stretch;
  const taps = Math.ceil(support) * 2 + 1;
  const table = { starts: new Int32Array(count), counts: new Int32Array(count), weights: new Int32Array(count * taps), taps };
  const row = new Float64Array(taps);
  for (let i = 0; i < count; i++) {
    const centre = (first + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(input, Math.trunc(centre + support + 0.5));
    let sum = 0;
    for (let k = 0; k < end - start; k++) {
      const weight = kernel.weight((k + start - centre + 0.5) * (1 / stretch));
      row[k] = weight;
      sum += weight;
    }
    table.starts[i] = start;
    table.counts[i] = end - start;
    for (let k = 0; k < end - start; k++) {
      const exact = ((row[k] ?? 0) / (sum || 1)) * ONE;
      table.weights[i * taps + k] = Math.trunc(exact < 0 ? exact - 0.5 : exact + 0.5);
    }
  }
  return table;
}

/**
 * The taps of output pixels that are one input pixel each.
 * @param {Int32Array} starts
 * @returns {Taps}
 */
function copies(starts) {
  return { starts, counts: new Int32Array(starts.length).fill(1), weights: new Int32Array(starts.length).fill(ONE), taps: 1 };
}

/**
 * Rows that the vertical pass will read, at the window's width; the others stay zero and unread.
 * @param {Pixels} picture
 * @param {Taps} across
 * @param {Taps} down
 * @returns {Pixels}
 */
function horizontal(picture, across, down) {
  const width = across.starts.length;
  const data = new Uint8Array(picture.height * width * 3);
  const last = down.starts.length - 1;
  const bottom = at(down.starts, last) + at(down.counts, last);
  for (let y = at(down.starts, 0); y < bottom; y++) {
    for (let x = 0; x < width; x++) {
      const source = (y * picture.width + at(across.starts, x)) * picture.channels;
      sum(picture.data, source, picture.channels, across, x, data, (y * width + x) * 3);
    }
  }
  return { data, height: picture.height, width, channels: 3 };
}

/**
 * @param {Pixels} rows
 * @param {Taps} down
 * @param {Window} window
 */
function vertical(rows, down, window) {
  const out = new Uint8Array(window.height * window.width * 3);
  for (let y = 0; y < window.height; y++) {
    for (let x = 0; x < window.width; x++) {
      const source = (at(down.starts, y) * rows.width + x) * 3;
      sum(rows.data, source, rows.width * 3, down, y, out, (y * window.width + x) * 3);
    }
  }
  return out;
}

/**
 * One output pixel: three weighted sums over `taps.counts[row]` source pixels, `stride` apart.
 * @param {Uint8Array | Uint8ClampedArray} data
 * @param {number} source
 * @param {number} stride
 * @param {Taps} taps
 * @param {number} row
 * @param {Uint8Array} out
 * @param {number} to
 */
function sum(data, source, stride, taps, row, out, to) {
  let red = ONE / 2;
  let green = ONE / 2;
  let blue = ONE / 2;
  const first = row * taps.taps;
  const last = first + at(taps.counts, row);
  for (let k = first, from = source; k < last; k++, from += stride) {
    const weight = at(taps.weights, k);
    red += at(data, from) * weight;
    green += at(data, from + 1) * weight;
    blue += at(data, from + 2) * weight;
  }
  out[to] = byte(red);
  out[to + 1] = byte(green);
  out[to + 2] = byte(blue);
}

/** @param {number} fixed */
function byte(fixed) {
  const whole = fixed >> FRACTION_BITS;
  return whole < 0 ? 0 : whole > 255 ? 255 : whole;
}

/**
 * An element that is known to be there.
 * @param {ArrayLike<number>} array
 * @param {number} index
 * @returns {number}
 */
function at(array, index) {
  return /** @type {number} */ (array[index]);
}
