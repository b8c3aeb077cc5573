/** How answers look: probabilities as bars, masks and classes over the picture. */

/** @typedef {import('./vitexport.js').Reading} Reading */
/** @typedef {import('./vitexport.js').Answer} Answer */
/** @typedef {Answer['region']} Region */

/** The longer side of what is drawn, in pixels: sharp on a phone, cheap on a software GPU. */
const LONGEST_SIDE = 640;

/** The background is blurred by halving it this many times and doubling it back: smooth, no filter, any browser. */
const HALVINGS = 4;

/** A full turn times the golden ratio puts neighbouring class numbers far apart in hue. */
const GOLDEN_ANGLE = 137.508;

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageBitmap} picture
 */
export function drawPhoto(canvas, picture) {
  const scale = Math.min(1, LONGEST_SIDE / Math.max(picture.width, picture.height));
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = pen(canvas);
  context.fillRect(0, 0, canvas.width, canvas.height); // black, which the network sees where a picture is transparent
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
}

/**
 * @param {Reading} reading
 * @param {HTMLCanvasElement} photo as `drawPhoto` left it
 * @param {Region} region in pixels of `photo`
 * @returns {HTMLElement[]}
 */
export function drawReading(reading, photo, region) {
  switch (reading.meaning) {
    case 'logits':
      return [bars(reading.top.map(({ label, probability }) => ({ label, share: probability })))];
    case 'mask':
      return maskFigures(reading, photo, region);
    case 'segmentation':
      return [
        ...(reading.person ? maskFigures(reading.person, photo, region) : []),
        figure(overlay(reading, photo, region), 'Classes over the picture'),
        bars(reading.shares.slice(0, 8).map(({ index, label, share }) => ({ label, share, colour: hue(index) }))),
      ];
    case 'features':
      return [paragraph(`${reading.dims.join(' × ')} features: norm ${reading.norm.toPrecision(4)}, mean ` +
        `${reading.mean.toPrecision(3)}, standard deviation ${reading.deviation.toPrecision(3)}.`)];
  }
}

/**
 * @param {{height: number, width: number, mask: Float32Array}} reading
 * @param {HTMLCanvasElement} photo
 * @param {Region} region
 */
function maskFigures(reading, photo, region) {
  const mask = maskLayer(reading, photo, region);
  return [figure(blurredBackground(photo, mask), 'Background blurred by the mask'), figure(onBlack(mask), 'The mask')];
}

/** @param {number} index */
const hue = (index) => `hsl(${(index * GOLDEN_ANGLE) % 360} 70% 55%)`;

/** @param {HTMLCanvasElement} canvas */
function pen(canvas) {
  const context = canvas.getContext('2d');
  if (context === null) throw new Error('This browser refused a 2D canvas, so nothing can be drawn.');
  return context;
}

/**
 * @param {number} width
 * @param {number} height
 */
function blank(width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/**
 * White where the mask is, as opaque as it is sure.
 * @param {{height: number, width: number, mask: Float32Array}} reading
 * @param {HTMLCanvasElement} photo
 * @param {Region} region
 */
function maskLayer({ height, width, mask }, photo, region) {
  const image = new ImageData(width, height);
  mask.forEach((probability, i) => image.data.set([255, 255, 255, 255 * Math.min(1, Math.max(0, probability))], i * 4));
  return placed(image, photo, region);
}

/**
 * A network's plane, enlarged to where it belongs on the photo.
 * @param {ImageData} image
 * @param {HTMLCanvasElement} photo
 * @param {Region} region
 */
function placed(image, photo, region) {
  const small = blank(image.width, image.height);
  pen(small).putImageData(image, 0, 0);
  const layer = blank(photo.width, photo.height);
  const context = pen(layer);
  context.imageSmoothingQuality = 'high';
  context.drawImage(small, region.left, region.top, region.width, region.height);
  return layer;
}

/**
 * @param {HTMLCanvasElement} photo
 * @param {HTMLCanvasElement} mask
 */
function blurredBackground(photo, mask) {
  const person = blank(photo.width, photo.height);
  const cut = pen(person);
  cut.drawImage(mask, 0, 0);
  cut.globalCompositeOperation = 'source-in';
  cut.drawImage(photo, 0, 0);
  const result = blank(photo.width, photo.height);
  const context = pen(result);
  context.drawImage(blurred(photo, HALVINGS), 0, 0);
  context.drawImage(person, 0, 0);
  return result;
}

/**
 * @param {HTMLCanvasElement} picture
 * @param {number} halvings
 * @returns {HTMLCanvasElement} of the same size
 */
function blurred(picture, halvings) {
  if (halvings === 0) return picture;
  const half = blank(Math.ceil(picture.width / 2), Math.ceil(picture.height / 2));
  pen(half).drawImage(picture, 0, 0, half.width, half.height);
  const result = blank(picture.width, picture.height);
  pen(result).drawImage(blurred(half, halvings - 1), 0, 0, result.width, result.height);
  return result;
}

/** @param {HTMLCanvasElement} mask */
function onBlack(mask) {
  const result = blank(mask.width, mask.height);
  const context = pen(result);
  context.fillRect(0, 0, result.width, result.height);
  context.drawImage(mask, 0, 0);
  return result;
}

/**
 * @param {{height: number, width: number, classes: Uint16Array, shares: {index: number}[]}} reading
 * @param {HTMLCanvasElement} photo
 * @param {Region} region
 */
function overlay({ height, width, classes, shares }, photo, region) {
  const image = new ImageData(width, height);
  const swatch = pen(blank(1, 1));
  const colours = new Map(shares.map(({ index }) => {
    swatch.fillStyle = hue(index);
    swatch.fillRect(0, 0, 1, 1);
    return [index, swatch.getImageData(0, 0, 1, 1).data];
  }));
  classes.forEach((index, i) => image.data.set(colours.get(index) ?? [], i * 4));
  const result = blank(photo.width, photo.height);
  const context = pen(result);
  context.drawImage(photo, 0, 0);
  context.globalAlpha = 0.6;
  context.drawImage(placed(image, photo, region), 0, 0);
  return result;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} caption
 */
function figure(canvas, caption) {
  canvas.setAttribute('role', 'img');
  canvas.setAttribute('aria-label', caption);
  const element = document.createElement('figure');
  const words = document.createElement('figcaption');
  words.textContent = caption;
  element.append(canvas, words);
  return element;
}

/** @param {{label: string, share: number, colour?: string}[]} rows */
function bars(rows) {
  const list = document.createElement('ol');
  list.className = 'bars';
  for (const { label, share, colour } of rows) {
    const item = document.createElement('li');
    const name = document.createElement('span');
    const percent = document.createElement('span');
    const meter = document.createElement('meter');
    name.textContent = label;
    percent.textContent = `${(share * 100).toFixed(1)} %`;
    meter.value = share;
    meter.setAttribute('aria-label', label);
    if (colour) meter.style.setProperty('--swatch', colour);
    item.append(name, percent, meter);
    list.append(item);
  }
  return list;
}

/** @param {string} text */
function paragraph(text) {
  const element = document.createElement('p');
  element.textContent = text;
  return element;
}
