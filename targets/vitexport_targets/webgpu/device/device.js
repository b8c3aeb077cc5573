/** The page that a device opens for `vitexport bench --device browser`: every cell in turn, then one report back. */

import { about } from './about.js';

/** @typedef {import('../runtime/manifest').Manifest} Manifest */
/** @typedef {import('./report').Asked} Asked */
/** @typedef {import('./report').Said} Said */
/** @typedef {import('./report').Cell} Cell */
/** @typedef {import('./report').Task} Task */
/** @typedef {import('./report').Options} Options */
/** @typedef {import('./report').CellProvider} CellProvider */
/** @typedef {import('./report').DeviceReport} DeviceReport */

/** A cell that says nothing for so long is given up: a software GPU may need a minute for one inference. */
const SILENCE_MS = 300_000;

/** What is known so far outlives this page: a browser that runs out of memory closes it, and opens it again. */
const MEMORY = `vitexport bench ${location.pathname}`;

/** @typedef {{cells: Cell[], running: boolean}} Memory */

main().catch((/** @type {unknown} */ thrown) => show('failed', 'Not sent', thrown instanceof Error ? thrown.message : String(thrown)));

async function main() {
  const bytes = await (await fetched('bundle/manifest.json')).arrayBuffer();
  /** @type {Manifest} */
  const manifest = JSON.parse(new TextDecoder().decode(bytes));
  /** @type {Options} */
  const options = await (await fetched('options.json')).json();
  const device = await about();
  const tasks = tasksOf(manifest);
  introduce(manifest, device);
  const rows = tasks.map(addRow);
  const awake = await navigator.wakeLock?.request('screen').catch(() => null);

  const memory = recalled(tasks);
  memory.cells.forEach((cell, i) => fill(rows[i], cell));
  for (const [i, task] of tasks.entries()) {
    if (i < memory.cells.length) continue;
    remember({ ...memory, running: true });
    const heard = (/** @type {string} */ step) => {
      void progress(i, tasks.length, `${nameOf(task)}: ${step}`);
      mark(rows[i], step);
    };
    heard('starting');
    const cell = await run(task, options, heard);
    memory.cells.push(cell);
    remember({ ...memory, running: false });
    fill(rows[i], cell);
  }
  await progress(tasks.length, tasks.length, 'sending');
  /** @type {DeviceReport} */
  const report = {
    schema_version: 1,
    manifest_sha256: await sha256(bytes),
    device: { name: device.name, runtime: `${runtimeName(manifest)} in ${device.browser}`, provider: 'browser', facts: device.facts },
    cells: memory.cells,
  };
  const answer = await post('report', report);
  if (!answer.ok) throw new Error(await answer.text());
  sessionStorage.removeItem(MEMORY);
  await awake?.release();
  show('sent', 'Sent', 'This page can be closed.');
}

// -------------------------------------------------------------------------------------------------------- the cells

/**
 * Every size, precision and provider, in the manifest's order.
 * @param {Manifest} manifest
 * @returns {Task[]}
 */
function tasksOf({ rungs }) {
  /** @type {{provider: CellProvider, threads: number | null}[]} */
  const ways = [
    { provider: 'webgpu', threads: null },
    { provider: 'wasm', threads: 1 },
    { provider: 'wasm-threads', threads: threadsHere() },
  ];
  return rungs.flatMap(({ variants, preprocessing: { size } }) =>
    variants.flatMap(({ precision }) => ways.map((way) => ({ precision, size, ...way }))),
  );
}

/** As many as onnxruntime-web takes by itself, but two at least, where there are two cores. */
const threadsHere = () => Math.min(4, Math.max(Math.ceil(navigator.hardwareConcurrency / 2), Math.min(2, navigator.hardwareConcurrency)));

/** @param {Task} task why it cannot be tried here; empty where it can */
function obstacle({ provider, threads }) {
  if (provider !== 'wasm-threads') return '';
  if (!globalThis.crossOriginIsolated) return 'threads need memory that is shared, which this browser does not give the page';
  return threads === 1 ? 'this browser has one core' : '';
}

/**
 * @param {Task} task
 * @param {Options} options
 * @param {(step: string) => void} heard
 * @returns {Promise<Cell>}
 */
async function run(task, options, heard) {
  const reason = obstacle(task);
  if (reason) return notRun(task, reason);
  const said = await asked({ job: 'measure', task, options }, heard);
  if (said.kind !== 'measured') return notRun(task, said.kind === 'stopped' ? said.message : 'it said nothing');
  if (task.provider !== 'webgpu') return said.cell;
  heard('reading what ran where');
  const read = await asked({ job: 'place', task, options }, heard);
  return { ...said.cell, placement: read.kind === 'placed' ? read.placement : null };
}

/**
 * What a fresh worker answers in the end; it is gone then, with all that it took.
 * @param {Asked} question
 * @param {(step: string) => void} heard
 * @returns {Promise<Said>}
 */
function asked(question, heard) {
  const worker = new Worker(new URL('./cell.js', import.meta.url), { type: 'module' });
  /** @type {number | undefined} */
  let silence;
  /** @type {Promise<Said>} */
  const answer = new Promise((resolve) => {
    /** @param {string} message */
    const stop = (message) => resolve({ kind: 'stopped', name: 'Error', message });
    const wait = () => {
      clearTimeout(silence);
      silence = setTimeout(() => stop(`it gave no sign for ${SILENCE_MS / 1000} s`), SILENCE_MS);
    };
    wait();
    worker.addEventListener('message', (/** @type {MessageEvent<Said>} */ { data }) => {
      wait();
      if (data.kind === 'step') heard(data.words);
      else resolve(data);
    });
    worker.addEventListener('error', (event) => stop(`it crashed: ${event.message || 'the browser does not say why'}`));
    worker.postMessage(question);
  });
  return answer.finally(() => {
    clearTimeout(silence);
    worker.terminate();
  });
}

/**
 * @param {Task} task
 * @param {string} why
 * @returns {Cell}
 */
function notRun({ precision, provider, size }, why) {
  const reason = why.slice(0, 500).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, ' ');
  return {
    precision,
    provider,
    size,
    parity: { verdict: 'not run', reason },
    latency: { verdict: 'not run', reason },
    placement: null,
    software: false,
  };
}

// ------------------------------------------------------------------------------------------------------- the memory

/**
 * What an earlier page of this address knew. The cell that it was at is the one that ended it.
 * @param {Task[]} tasks
 * @returns {Memory}
 */
function recalled(tasks) {
  const kept = sessionStorage.getItem(MEMORY);
  if (kept === null) return { cells: [], running: false };
  /** @type {Memory} */
  const memory = JSON.parse(kept);
  const at = tasks[memory.cells.length];
  if (memory.running && at) memory.cells.push(notRun(at, 'the page was closed while it ran, most likely for want of memory'));
  return memory;
}

/** @param {Memory} memory */
const remember = (memory) => sessionStorage.setItem(MEMORY, JSON.stringify(memory));

// ------------------------------------------------------------------------------------------------------- the server

/** @param {string} path */
async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(await response.text());
  return response;
}

/**
 * @param {string} path
 * @param {unknown} value
 */
const post = (path, value) =>
  fetch(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(value) });

/** @param {ArrayBuffer} bytes */
async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @param {Manifest} manifest */
const runtimeName = ({ runtime }) => (runtime ? `${runtime.package} ${runtime.version}` : 'a runtime');

// --------------------------------------------------------------------------------------------------------- the page

/**
 * @param {Manifest} manifest
 * @param {Awaited<ReturnType<typeof about>>} device
 */
function introduce({ model, provenance }, { name, browser, facts }) {
  document.title = `${model}: vitexport bench`;
  element('model').textContent = model;
  element('summary').textContent = `On ${name}, ${browser}. Weights: ${provenance.origin}. Licence: ${provenance.licence}.`;
  for (const [term, value] of Object.entries(facts)) {
    const [dt, dd] = [document.createElement('dt'), document.createElement('dd')];
    dt.textContent = term;
    dd.textContent = value;
    element('facts').append(dt, dd);
  }
}

/**
 * @param {number} done
 * @param {number} of
 * @param {string} now
 */
async function progress(done, of, now) {
  const bar = /** @type {HTMLProgressElement} */ (element('progress'));
  bar.max = of;
  bar.value = done;
  element('sentence').textContent = `${done} of ${of}. ${now[0]?.toUpperCase() ?? ''}${now.slice(1)}.`;
  await post('progress', { done, of, now }).catch(() => null); // it tells somebody who waits, and nothing depends on it
}

/**
 * @param {'sent' | 'failed'} state
 * @param {string} word
 * @param {string} sentence
 */
function show(state, word, sentence) {
  document.body.dataset['state'] = state;
  element('word').textContent = word;
  element('sentence').textContent = sentence;
}

/** @param {number} ms */
const duration = (ms) => (ms < 10 ? `${ms.toFixed(2)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

/** @param {Pick<Task, 'precision' | 'provider' | 'size'>} task */
const nameOf = ({ precision, provider, size }) => `${size.height}x${size.width} ${precision} on ${provider}`;

/** @param {Task} task */
function addRow(task) {
  const row = document.createElement('li');
  for (const part of ['name', 'figure', 'note']) {
    const span = document.createElement('span');
    span.className = part;
    row.append(span);
  }
  write(row, 'name', nameOf(task));
  write(row, 'figure', 'waits');
  element('cells').append(row);
  return row;
}

/**
 * @param {HTMLLIElement | undefined} row
 * @param {string} step
 */
function mark(row, step) {
  if (row === undefined) return;
  row.dataset['verdict'] = 'running';
  write(row, 'figure', '…');
  write(row, 'note', step);
}

/**
 * @param {HTMLLIElement | undefined} row
 * @param {Cell} cell
 */
function fill(row, { parity, latency, software, placement }) {
  if (row === undefined) return;
  row.dataset['verdict'] = parity.verdict;
  const times = [...(latency.times_ms ?? [])].sort((a, b) => a - b);
  const upper = times[times.length >> 1];
  const lower = times[(times.length - 1) >> 1];
  const median = upper === undefined || lower === undefined ? '' : `, ${duration((lower + upper) / 2)}`;
  write(row, 'figure', `${parity.verdict}${median}`);
  const fallback = placement && placement.fallback.length > 0 ? `${placement.fallback.length} nodes on the CPU` : '';
  const cold = latency.cold_ms === undefined ? '' : `first run ${duration(latency.cold_ms)}`;
  const { sustained_ms: late, sustained_after_s: after = 0 } = latency;
  const lasting = late === undefined ? '' : `${duration(late)} after ${Math.round(after)} s`;
  const notes = [parity.reason, cold, lasting, fallback, software ? 'software adapter, not a device figure' : ''];
  write(row, 'note', notes.filter(Boolean).join('; '));
}

/**
 * @param {HTMLLIElement} row
 * @param {string} part
 * @param {string} text
 */
function write(row, part, text) {
  const found = row.querySelector(`.${part}`);
  if (found) found.textContent = text;
}

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`The page has no #${id}. Run vitexport bench again.`);
  return found;
}
