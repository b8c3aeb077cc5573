/** What the page says while it works: a line that is read aloud, and a bar over an empty picture. */

import type { Mode, Notice } from '../engine/protocol';
import { element, part } from './dom';

type Status = Extract<Notice, { type: 'status' }>;

/** `welcome`: nothing is chosen yet. `waiting`: for the first picture. The rest says itself. */
export type PageState = 'welcome' | 'waiting' | 'running';

export function setState(state: PageState): void {
  document.body.dataset.state = state;
  part('welcome').hidden = state !== 'welcome';
  part('loading').hidden = state !== 'waiting';
}

export const state = () => document.body.dataset.state as PageState;

const WORDS: Record<Status['phase'], string> = {
  idle: '',
  download: 'Loading the network',
  compile: 'Preparing it for this device',
  check: 'Checking that it computes what it should',
  'first-frame': 'Computing the first picture',
  running: '',
  paused: 'Paused while this tab is hidden.',
  recovering: 'The GPU was reset. Starting again',
};

/** Of a download as it grows, every tenth is worth saying aloud; the bar shows the rest. */
export function showStatus({ phase, loadedBytes, totalBytes }: Status): void {
  const words = WORDS[phase];
  const bar = element('loading-bar', HTMLProgressElement);
  const part10 = totalBytes > 0 ? Math.floor((10 * loadedBytes) / totalBytes) : null;
  const share = phase === 'download' && part10 !== null ? `: ${part10 * 10} %` : '';
  const busy = words !== '' && phase !== 'paused';
  say(busy ? `${words}${share}${share ? '' : ' …'}` : words);
  part('loading-what').textContent = busy ? `${words} …` : '';
  if (phase === 'download' && totalBytes > 0) bar.value = loadedBytes / totalBytes;
  else bar.removeAttribute('value');
}

/** The same words twice are not said twice. */
export function say(words: string): void {
  const line = part('status');
  if (line.textContent !== words) line.textContent = words;
}

const SHOWN: Record<Mode, string> = {
  blur: 'The picture, its background blurred',
  picture: 'The picture, before another background',
  colour: 'The picture, before a plain colour',
  mask: 'The mask: white is the person',
  off: 'The picture as it is',
};

export const describe = (mode: Mode) => SHOWN[mode];
