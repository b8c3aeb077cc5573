/** The controls of how the answer looks, and the `Look` that they say. */

import { DEFAULT_LOOK, type Look, type Mode } from '../engine/protocol';
import { compareLine } from './compare';
import { element, input, part } from './dom';

const MODES: readonly Mode[] = ['blur', 'picture', 'colour', 'mask', 'off'];

/** A slider of 0..1 and where its value goes. */
const SLIDERS: { id: string; read: (look: Look) => number; write: (look: Look, value: number) => Look }[] = [
  { id: 'strength', read: (look) => look.blur, write: (look, blur) => ({ ...look, blur }) },
  { id: 'guidance', read: (look) => look.edge.guidance, write: (look, guidance) => ({ ...look, edge: { ...look.edge, guidance } }) },
  { id: 'softness', read: (look) => look.edge.softness, write: (look, softness) => ({ ...look, edge: { ...look.edge, softness } }) },
  { id: 'temporal', read: (look) => look.temporal, write: (look, temporal) => ({ ...look, temporal }) },
  { id: 'wrap', read: (look) => look.lightWrap, write: (look, lightWrap) => ({ ...look, lightWrap }) },
];

export interface LookControls {
  readonly current: Look;
  setMode(mode: Mode): void;
  setMirror(mirror: boolean): void;
}

/** `onChange` is called with each new look. */
export function lookControls(onChange: (look: Look) => void): LookControls {
  let look: Look = DEFAULT_LOOK;
  const change = (next: Look) => {
    look = next;
    onChange(look);
  };

  for (const { id, read, write } of SLIDERS) {
    const slider = input(id);
    const shown = element(`${id}-value`, HTMLOutputElement);
    const say = () => (shown.value = `${Math.round(slider.valueAsNumber * 100)} %`);
    slider.valueAsNumber = read(look);
    say();
    slider.addEventListener('input', () => {
      say();
      change(write(look, slider.valueAsNumber));
    });
  }

  const colour = input('colour');
  colour.value = hexOf(look.colour);
  colour.addEventListener('input', () => change({ ...look, colour: colourOf(colour.value) }));

  const showFields = () => {
    for (const field of document.querySelectorAll<HTMLElement>('[data-for]')) field.hidden = field.dataset.for !== look.mode;
  };
  for (const radio of modeRadios()) {
    radio.addEventListener('change', () => {
      change({ ...look, mode: modeOf(radio.value) });
      showFields();
    });
  }
  showFields();

  const line = compareLine((compare) => change({ ...look, compare }));
  const comparing = input('comparing');
  comparing.addEventListener('change', () => {
    line.show(comparing.checked);
    if (!comparing.checked) change({ ...look, compare: null });
  });

  const mirror = input('mirror');
  mirror.checked = look.mirror;
  mirror.addEventListener('change', () => change({ ...look, mirror: mirror.checked }));

  return {
    get current() {
      return look;
    },
    setMode(mode) {
      for (const radio of modeRadios()) radio.checked = radio.value === mode;
      change({ ...look, mode });
      showFields();
    },
    setMirror(wanted) {
      mirror.checked = wanted;
      change({ ...look, mirror: wanted });
    },
  };
}

function modeRadios(): HTMLInputElement[] {
  return [...part('modes').querySelectorAll<HTMLInputElement>('input')];
}

function modeOf(value: string): Mode {
  const mode = MODES.find((known) => known === value);
  if (mode === undefined) throw new Error(`The page has a mode '${value}' that the engine does not know.`);
  return mode;
}

/** `#rrggbb` -> sRGB, 0..1 each. */
function colourOf(hex: string): Look['colour'] {
  const at = (index: number) => Number.parseInt(hex.slice(index, index + 2), 16) / 255;
  return [at(1), at(3), at(5)];
}

function hexOf(colour: Look['colour']): string {
  return `#${colour.map((share) => Math.round(share * 255).toString(16).padStart(2, '0')).join('')}`;
}
