/** The blurred background on the CPU, small: what is not the person, blurred without them, as `shrink.wgsl` explains. */

/** Three box blurs in a row are within 3 % of a Gaussian (Wells, "Efficient Synthesis of Gaussian Filters", PAMI 1986). */
const BOXES = 3;
const FAINT = 0.001;

/**
 * @param picture small, opaque; overwritten by its background, blurred
 * @param person one value a pixel, 0..1
 * @param sigma standard deviation in pixels of `picture`
 */
export function blurBehind(picture: ImageData, person: Float32Array, sigma: number): void {
  const { data, height, width } = picture;
  // Light (squared colours) of what is not the person, and how much that is.
  let planes = new Float32Array(4 * person.length);
  for (let i = 0; i < person.length; i++) {
    const share = 1 - (person[i] ?? 0);
    for (let c = 0; c < 3; c++) planes[4 * i + c] = ((data[4 * i + c] ?? 0) / 255) ** 2 * share;
    planes[4 * i + 3] = share;
  }
  // The variance of a box of 2r + 1 pixels is r (r + 1) / 3.
  const radius = Math.round((Math.sqrt(1 + (12 * sigma * sigma) / BOXES) - 1) / 2);
  for (let k = 0; k < BOXES && radius > 0; k++) {
    planes = box(box(planes, height, width, width, 1, radius), width, height, 1, width, radius);
  }
  for (let i = 0; i < person.length; i++) {
    const share = (planes[4 * i + 3] ?? 0) + FAINT;
    for (let c = 4 * i; c < 4 * i + 3; c++) {
      data[c] = 255 * Math.sqrt(((planes[c] ?? 0) + FAINT * ((data[c] ?? 0) / 255) ** 2) / share);
    }
  }
}

/** The mean of `2 * radius + 1` pixels along lines of `length` pixels, `step` apart; borders are repeated. */
function box(source: Float32Array, lines: number, length: number, lineStep: number, step: number, radius: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(source.length);
  const share = 1 / (2 * radius + 1);
  for (let line = 0; line < lines; line++) {
    for (let c = 0; c < 4; c++) {
      const at = (i: number) => source[4 * (line * lineStep + Math.min(Math.max(i, 0), length - 1) * step) + c] ?? 0;
      let sum = 0;
      for (let i = -radius; i <= radius; i++) sum += at(i);
      for (let i = 0; i < length; i++) {
        out[4 * (line * lineStep + i * step) + c] = sum * share;
        sum += at(i + radius + 1) - at(i - radius);
      }
    }
  }
  return out;
}
