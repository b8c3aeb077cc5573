/** What went wrong, in a sentence, and what one can do about it: over the picture, and never a black page. */

import type { Trouble } from '../engine/protocol';
import { element, made, part } from './dom';

/** What a visitor may do about it, as a button. */
export interface Way {
  label: string;
  go: () => void;
}

export interface PageTrouble {
  what: string;
  next: string;
  ways: Way[];
}

/** Over the picture, until `clearTrouble`. The page's state is `trouble` for as long. */
export function showTrouble({ what, next, ways }: PageTrouble): void {
  part('trouble-what').textContent = what;
  part('trouble-next').textContent = next;
  const buttons = ways.map(({ label, go }) => {
    const way = made('button', label);
    way.type = 'button';
    way.addEventListener('click', () => {
      clearTrouble();
      go();
    });
    return way;
  });
  buttons[0]?.classList.add('primary');
  part('trouble-ways').replaceChildren(...buttons);
  part('trouble').hidden = false;
}

export function clearTrouble(): void {
  part('trouble').hidden = true;
}

/** Below the picture: what the page goes on from by itself. Empty takes it away. */
export function note(sentence: string): void {
  const line = element('notice', HTMLParagraphElement);
  line.textContent = sentence;
  line.hidden = sentence === '';
}

export const inOneLine = ({ sentence, wayOn }: Trouble) => `${sentence} ${wayOn}`.trim();

/** Why `getUserMedia` gave no camera: https://w3c.github.io/mediacapture-main/#dom-mediadevices-getusermedia */
export function cameraTrouble(refusal: unknown): Omit<PageTrouble, 'ways'> {
  const name = refusal instanceof DOMException ? refusal.name : '';
  const reasons: Record<string, Omit<PageTrouble, 'ways'>> = {
    NotAllowedError: {
      what: 'The camera was not allowed.',
      next: 'Allow it in the browser’s address bar and try again, or use a sample, a picture or a video instead.',
    },
    NotFoundError: {
      what: 'There is no camera here.',
      next: 'Connect one and try again, or use a sample, a picture or a video instead.',
    },
    NotReadableError: {
      what: 'The camera is in use by another program.',
      next: 'Close that program and try again, or use a sample, a picture or a video instead.',
    },
    OverconstrainedError: {
      what: 'The camera that was chosen is gone.',
      next: 'Choose another one, or use a sample, a picture or a video instead.',
    },
    SecurityError: {
      what: 'This page may not use a camera.',
      next: 'Open it by its https address, in a window of its own, or use a sample, a picture or a video instead.',
    },
  };
  return (
    reasons[name] ?? {
      what: 'The camera gave no picture.',
      next: `The browser says: ${refusal instanceof Error ? refusal.message : String(refusal)}. Try again, or use a sample.`,
    }
  );
}
