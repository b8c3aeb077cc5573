/** From whatever picture a page has to the network's input, exactly as `vitexport.preprocess` does it in Python. */

import { resample } from './resample.js';

/** @typedef {import('../manifest').Preprocessing} Preprocessing */
/** @typedef {import('../manifest').Size} Size */
/** @typedef {Blob | ImageBitmapSource} Picture A File is a Blob; ImageBitmapSource has images, canvases, frames, ImageData. */
/** @typedef {{top: number, left: number, height: number, width: number}} Region */

/**
 * RGBA bytes of a picture, without colour management and upright (EXIF orientation is honoured, as browsers show it).
 * What is transparent is blended on black, the rule of `vitexport.photos.on_black`: a canvas keeps no colour there.
 * @param {Picture} picture
 * @returns {Promise<ImageData>} opaque
 */
export async function decode(picture) {
  if (typeof ImageData !== 'undefined' && picture instanceof ImageData) return onBlack(picture);
  const bitmap = await createImageBitmap(/** @type {ImageBitmapSource} */ (picture), {
    colorSpaceConversion: 'none',
    premultiplyAlpha: 'none',
  }).catch((/** @type {unknown} */ cause) => {
    throw new Error('This cannot be read as a picture. Try a PNG, JPEG or WebP file.', { cause });
  });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext('2d', { alpha: false, willReadFrequently: true });
  if (context === null) throw new Error('This browser refused a 2D canvas, so the picture cannot be read.');
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/**
 * @param {ImageData} picture left as it is
 * @returns {ImageData} itself where it is opaque
 */
function onBlack(picture) {
  const { data, height, width } = picture;
  let at = 3;
  while (at < data.length && data[at] === 255) at += 4;
  if (at >= data.length) return picture;
  const opaque = new ImageData(width, height);
  data.forEach((value, i) => {
    opaque.data[i] = i % 4 === 3 ? 255 : (value * (data[i - (i % 4) + 3] ?? 255)) / 255; // which rounds to the nearest
  });
  return opaque;
}

/**
 * The size a photo is resized to before the crop. `crop` keeps the aspect ratio and covers `how.resize`; the longer
 * side is truncated for a square and rounded otherwise, as timm does.
 * @param {Size} photo
 * @param {Preprocessing} how
 * @returns {Size}
 */
export function resizedSize(photo, how) {
  const cover = how.resize ?? how.size;
  if (how.fit === 'squash') return cover;
  const whole = cover.height === cover.width ? Math.trunc : halfToEven;
  if (cover.height * photo.width >= cover.width * photo.height) {
    return { height: cover.height, width: Math.max(cover.width, whole((cover.height * photo.width) / photo.height)) };
  }
  return { height: Math.max(cover.height, whole((cover.width * photo.height) / photo.width)), width: cover.width };
}

/**
 * The centre crop, in pixels of the resized photo.
 * @param {Size} resized
 * @param {Preprocessing} how
 * @returns {Region}
 */
export function cropWindow(resized, how) {
  const halve = how.crop_rounding === 'floor' ? Math.floor : halfToEven;
  const top = halve((resized.height - how.size.height) / 2);
  const left = halve((resized.width - how.size.width) / 2);
  return { top, left, height: how.size.height, width: how.size.width };
}

/**
 * The part of the photo that the network sees, in the photo's own pixels (not rounded): where an overlay belongs.
 * @param {Size} photo
 * @param {Preprocessing} how
 * @returns {Region}
 */
export function seenRegion(photo, how) {
  const resized = resizedSize(photo, how);
  const crop = cropWindow(resized, how);
  const down = photo.height / resized.height;
  const across = photo.width / resized.width;
  return { top: crop.top * down, left: crop.left * across, height: crop.height * down, width: crop.width * across };
}

/** @param {number} value rounded as Python's `round` does */
export function halfToEven(value) {
  const below = Math.floor(value);
  return value - below === 0.5 ? below + (below & 1) : Math.round(value);
}

/**
 * Resized and cropped RGB bytes.
 * @param {ImageData} photo
 * @param {Preprocessing} how
 * @returns {Uint8Array} size.height x size.width x 3
 */
export function fit(photo, how) {
  const resized = resizedSize(photo, how);
  const pixels = { data: photo.data, height: photo.height, width: photo.width, channels: 4 };
  return resample(pixels, resized, cropWindow(resized, how), how.interpolation);
}

/**
 * @param {ImageData} photo
 * @param {Preprocessing} how
 * @returns {Float32Array<ArrayBuffer>} (1, 3, height, width), normalised
 */
export function preprocess(photo, how) {
  const bytes = fit(photo, how);
  const area = how.size.height * how.size.width;
  const tensor = new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const values = normalised(how.mean[channel] ?? 0, how.std[channel] ?? 1);
    for (let i = 0; i < area; i++) tensor[channel * area + i] = values[bytes[i * 3 + channel] ?? 0] ?? 0;
  }
  return tensor;
}

/**
 * What each byte becomes. Rounded to float32 after every step, as numpy does.
 * @param {number} mean
 * @param {number} std
 */
function normalised(mean, std) {
  const { fround } = Math;
  return Float32Array.from({ length: 256 }, (_, byte) => fround(fround(byte / 255) - fround(mean)) / fround(std));
}
