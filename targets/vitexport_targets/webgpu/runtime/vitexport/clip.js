/** Clips: frames of one scene as one input, exactly as `vitexport.preprocess` and `vitexport.photos` make them. */

import { halfToEven, preprocess } from './preprocess.js';

/** @typedef {import('../manifest').Preprocessing} Preprocessing */

/** Of the photo's sides, the window that is panned over it: `vitexport.photos.PAN_WINDOW`. */
const PAN_WINDOW = 0.75;

/**
 * @param {ImageData[]} frames oldest first
 * @param {Preprocessing} how
 * @returns {Float32Array<ArrayBuffer>} one clip in the layout of `how.clip`, normalised
 */
export function preprocessClip(frames, how) {
  const wanted = how.clip?.frames ?? 1;
  if (frames.length !== wanted) {
    throw new Error(`This network takes clips of ${wanted} frames, and ${frames.length} came. Pass ${wanted}, one in ${how.clip?.stride ?? 1} of the video's.`);
  }
  const area = how.size.height * how.size.width;
  const clip = new Float32Array(wanted * 3 * area);
  const [perFrame, perChannel] = how.clip?.layout === 'CTHW' ? [area, wanted * area] : [3 * area, area];
  frames.forEach((frame, t) => {
    const planes = preprocess(frame, how);
    for (let c = 0; c < 3; c++) clip.set(planes.subarray(c * area, (c + 1) * area), t * perFrame + c * perChannel);
  });
  return clip;
}

/**
 * A clip of one still: a window that moves evenly from the top left to the bottom right.
 * @param {ImageData} photo
 * @param {number} frames
 */
export function pan(photo, frames) {
  const height = Math.max(1, halfToEven(photo.height * PAN_WINDOW));
  const width = Math.max(1, halfToEven(photo.width * PAN_WINDOW));
  return Array.from({ length: frames }, (_, step) => {
    const part = step / Math.max(1, frames - 1);
    return region(photo, halfToEven((photo.height - height) * part), halfToEven((photo.width - width) * part), height, width);
  });
}

/**
 * The frames of a golden picture, which holds them below one another.
 * @param {ImageData} strip
 * @param {number} frames
 */
export function cut(strip, frames) {
  const height = strip.height / frames;
  if (!Number.isInteger(height)) throw new Error(`A strip of ${strip.height} rows does not hold ${frames} frames.`);
  return Array.from({ length: frames }, (_, t) => region(strip, t * height, 0, height, strip.width));
}

/**
 * @param {ImageData} picture
 * @param {number} top
 * @param {number} left
 * @param {number} height
 * @param {number} width
 */
function region(picture, top, left, height, width) {
  const part = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    const from = 4 * ((top + y) * picture.width + left);
    part.data.set(picture.data.subarray(from, from + 4 * width), 4 * y * width);
  }
  return part;
}
