/** The bundle's own page: load the model, take its exam here, show the verdict, then try any picture. */

import { drawPhoto, drawReading } from './drawing.js';
import { load } from './vitexport.js';
import { cut, pan } from './vitexport/clip.js';
import { rankRungs } from './vitexport/choose.js';
import { decode } from './vitexport/preprocess.js';

/** @typedef {import('./vitexport.js').LoadedModel} LoadedModel */
/** @typedef {import('./vitexport.js').Info} Info */
/** @typedef {import('./vitexport.js').ExamResult} ExamResult */
/** @typedef {import('./vitexport.js').Progress} Progress */

const SOFTWARE = 'software adapter, not a device figure';
const photo = element('photo', HTMLCanvasElement);
const file = element('file', HTMLInputElement);

main().catch((/** @type {unknown} */ thrown) => {
  showVerdict('failed', 'Failed', thrown instanceof Error ? thrown.message : String(thrown));
});

async function main() {
  const model = await load('./', { onProgress: showProgress });
  progress().hidden = true;
  showInfo(model.info);
  const exam = await model.selfCheck();
  showExam(model.info, exam);
  await openTrial(model);
}

// ---------------------------------------------------------------------------------------------------- the self-check

/** @param {Progress} progressed */
function showProgress({ file: path, loadedBytes, totalBytes }) {
  const bar = progress();
  bar.hidden = false;
  bar.max = totalBytes;
  bar.value = loadedBytes;
  say('verdict-reason', loadedBytes < totalBytes ? `Fetching ${path}, ${megabytes(loadedBytes)} of ${megabytes(totalBytes)}.` : 'Starting the runtime.');
}

/** @param {Info} info */
function showInfo({ manifest, rung, precision, provider, runtime, build, adapter, threads, verified, choices }) {
  const { height, width } = rung.preprocessing.size;
  document.title = manifest.model;
  say('model', manifest.model);
  say('summary', `${rung.outputs.map(({ name, shape }) => `${name} ${shape.join(' × ')}`).join(', ')} from ${frames(rung)}${width} × ${height} pixels${others(manifest, rung)}`);
  say('verdict-reason', 'Comparing this browser’s answers with PyTorch’s. A software adapter takes a while.');
  fact('Runs on', provider === 'webgpu' ? 'WebGPU' : 'WebAssembly', `${runtime}, ${build} build`);
  const [best] = choices;
  fact('Precision', precision, best && !best.chosen ? `not ${best.precision} on ${best.provider}: ${best.reason}` : 'first choice');
  const name = adapter === null ? `CPU, ${threads} ${threads === 1 ? 'thread' : 'threads'}` : adapterName(adapter);
  fact('Adapter', name, adapter?.software ? SOFTWARE : '');
  fact('Files', verified.startsWith('not') ? 'not verified' : 'verified', verified);
  for (const choice of choices) {
    const item = document.createElement('li');
    item.textContent = `${choice.precision} on ${choice.provider}: ${choice.chosen ? 'chosen, ' : ''}${choice.reason}`;
    element('choices', HTMLElement).append(item);
  }
  const { origin, licence } = manifest.provenance;
  say('origin', `Weights: ${origin}. Licence: ${licence}.`);
}

/**
 * @param {Info['manifest']} manifest
 * @param {Info['rung']} rung
 */
function others({ rungs }, rung) {
  const sizes = rungs.filter((other) => other !== rung).map(({ preprocessing: { size } }) => `${size.width} × ${size.height}`);
  return sizes.length > 0 ? `; for pictures of other shapes, ${sizes.join(', ')}` : '';
}

/** @param {Info['rung']} rung */
const frames = ({ preprocessing: { clip } }) => (clip ? `${clip.frames} frames of ` : '');

/** @param {NonNullable<Info['adapter']>} adapter */
function adapterName({ vendor, architecture, description }) {
  return [...new Set([description, vendor, architecture])].filter(Boolean).join(' ') || 'unnamed adapter';
}

/**
 * @param {Info} info
 * @param {ExamResult} exam
 */
function showExam({ adapter, provider }, exam) {
  const { verdict, reason, metric, worst, tolerance, cases, loadMs, coldMs, steadyMs, steadyRuns } = exam;
  const agreed = `This browser computes what PyTorch computes, on ${cases.length} ${cases.length === 1 ? 'photo' : 'photos'}.`;
  const label = adapter?.software ? SOFTWARE : '';
  fact(metric === 'drift' ? 'Largest drift' : 'Largest noise', worst.toExponential(1), `allowed: ${Number(tolerance.toPrecision(2)).toExponential()}`);
  fact('Load', duration(loadMs), 'fetch, verify, start');
  fact('First run', duration(coldMs), label || (provider === 'webgpu' ? 'shader compilation included' : ''));
  fact('Steady run', duration(steadyMs), label || `median of ${steadyRuns}`);
  showVerdict(verdict, verdict === 'passed' ? 'Passed' : 'Failed', verdict === 'passed' ? agreed : reason);
}

/**
 * @param {'passed' | 'failed'} verdict
 * @param {string} word
 * @param {string} reason
 */
function showVerdict(verdict, word, reason) {
  progress().hidden = true;
  if (element('model', HTMLElement).textContent === 'Loading…') say('model', 'This bundle cannot run here');
  say('verdict-word', word);
  say('verdict-reason', reason);
  document.body.dataset['verdict'] = verdict;
}

// ---------------------------------------------------------------------------------------------------------- the trial

/** @param {LoadedModel} model */
async function openTrial(model) {
  element('try', HTMLElement).hidden = false;
  const modelFor = ladder(model);
  const { clip } = model.info.rung.preprocessing;
  const attempt = (/** @type {Blob} */ picture, /** @type {string} */ name) => void tryPicture(modelFor, clip ? panned(picture, clip.frames) : still(picture), name);
  const golden = (/** @type {Blob} */ picture, /** @type {string} */ name) => tryPicture(modelFor, clip ? strip(picture, clip.frames) : still(picture), name);
  file.addEventListener('change', () => {
    const [chosen] = file.files ?? [];
    if (chosen) attempt(chosen, chosen.name);
    file.value = ''; // so that the same file can be chosen again
  });
  listenForDrops(attempt);
  document.addEventListener('paste', ({ clipboardData }) => offer(clipboardData, attempt));
  const samples = await Promise.all(model.info.rung.golden.map(({ photo: path, name }) => addSample(path, name, golden)));
  if (clip) element('samples', HTMLElement).classList.add('strips');
  const [first] = samples;
  if (first) await golden(first.blob, first.name);
}

/**
 * The model at the size nearest in shape to a picture; each size is loaded when the first such picture comes.
 * @param {LoadedModel} first
 * @returns {(frame: {width: number, height: number}) => Promise<LoadedModel>}
 */
function ladder(first) {
  const { manifest, rung } = first.info;
  const opened = new Map([[rung, Promise.resolve(first)]]);
  return ({ width, height }) => {
    const [nearest = rung] = rankRungs(manifest.rungs, { frame: { width, height } });
    const known = opened.get(nearest);
    if (known) return known;
    const model = load('./', { size: nearest.preprocessing.size });
    opened.set(nearest, model);
    model.catch(() => opened.delete(nearest)); // the next such picture tries again
    return model;
  };
}

/** @typedef {{input: Parameters<LoadedModel['run']>[0], shown: ImageBitmap}} Subject What is run, and what stands for it. */

/**
 * @param {Blob} picture
 * @returns {Promise<Subject>}
 */
async function still(picture) {
  return { input: picture, shown: await createImageBitmap(picture) };
}

/**
 * A clip of a still: the exam's own kind, a window that moves over it.
 * @param {Blob} picture
 * @param {number} frames
 */
async function panned(picture, frames) {
  return asClip(pan(await decode(picture), frames));
}

/**
 * @param {Blob} picture a golden one
 * @param {number} frames
 */
async function strip(picture, frames) {
  return asClip(cut(await decode(picture), frames));
}

/**
 * @param {ImageData[]} frames
 * @returns {Promise<Subject>}
 */
async function asClip(frames) {
  const [first = new ImageData(1, 1)] = frames;
  return { input: frames, shown: await createImageBitmap(first) };
}

/** @param {(picture: Blob, name: string) => void} attempt */
function listenForDrops(attempt) {
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    document.body.classList.add('dropping');
  });
  document.addEventListener('dragleave', () => document.body.classList.remove('dropping'));
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    document.body.classList.remove('dropping');
    offer(event.dataTransfer, attempt);
  });
}

/**
 * @param {DataTransfer | null} transfer
 * @param {(picture: Blob, name: string) => void} attempt
 */
function offer(transfer, attempt) {
  const [picture] = transfer?.files ?? [];
  if (picture) attempt(picture, picture.name);
  else say('status', 'That holds no picture. Copy or drop an image file.');
}

/**
 * @param {string} path
 * @param {string} name
 * @param {(picture: Blob, name: string) => void} attempt
 */
async function addSample(path, name, attempt) {
  const button = document.createElement('button');
  const image = document.createElement('img');
  image.src = path;
  image.alt = name;
  button.type = 'button';
  button.append(image);
  element('samples', HTMLElement).append(button);
  const blob = await (await fetch(path)).blob();
  button.addEventListener('click', () => attempt(blob, name));
  return { blob, name };
}

/** How many pictures were tried: the answer to the latest alone is shown, whichever comes last. */
let turns = 0;

/**
 * @param {ReturnType<typeof ladder>} modelFor
 * @param {Promise<Subject>} subject
 * @param {string} name
 */
async function tryPicture(modelFor, subject, name) {
  const turn = ++turns;
  say('status', `Running on ${name}…`);
  try {
    const { input, shown: bitmap } = await subject.catch(() => {
      throw new Error(`${name} cannot be read as a picture. Try a PNG, JPEG or WebP file.`);
    });
    const model = await modelFor(bitmap);
    const answer = await model.run(input);
    if (turn !== turns) return bitmap.close();
    drawPhoto(photo, bitmap);
    say('photo-caption', Array.isArray(input) ? `${name}, the first of ${input.length} frames` : name);
    const scale = photo.width / bitmap.width;
    const { top, left, height, width } = answer.region;
    const region = { top: top * scale, left: left * scale, height: height * scale, width: width * scale };
    bitmap.close();
    const drawn = Object.values(answer.readings).flatMap((reading) => drawReading(reading, photo, region));
    element('answer', HTMLElement).replaceChildren(...drawn);
    const { size } = model.info.rung.preprocessing;
    say('status', `${name}: ${duration(answer.ms)} in the network, at ${size.width} × ${size.height}.`);
  } catch (thrown) {
    if (turn === turns) say('status', thrown instanceof Error ? thrown.message : String(thrown));
  }
}

// ---------------------------------------------------------------------------------------------------------- the page

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`The page has no #${id}. Copy the bundle again.`);
  return found;
}

function progress() {
  return element('progress', HTMLProgressElement);
}

/**
 * @param {string} id
 * @param {string} text
 */
function say(id, text) {
  element(id, HTMLElement).textContent = text;
}

/**
 * @param {string} term
 * @param {string} value
 * @param {string} note
 */
function fact(term, value, note) {
  const group = document.createElement('div');
  const dt = document.createElement('dt');
  const dd = document.createElement('dd');
  dt.textContent = term;
  dd.textContent = value;
  if (note) {
    const small = document.createElement('small');
    small.textContent = note;
    dd.append(small);
  }
  group.append(dt, dd);
  element('facts', HTMLElement).append(group);
}

/** @param {number} ms */
const duration = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
