/** The line between before and after: dragged, or moved by keys, as the ARIA slider pattern has it. */

import { part } from './dom';

const STEP = 0.02;
const LEAP = 0.1;

/** `onMove` gets the part of the width, 0..1, that shows the picture as it came. */
export function compareLine(onMove: (share: number) => void): { show(shown: boolean): void } {
  const line = part('compare');
  let share = 0.5;

  const place = (wanted: number) => {
    share = Math.min(1, Math.max(0, wanted));
    const percent = Math.round(share * 100);
    line.style.setProperty('--share', String(share));
    line.setAttribute('aria-valuenow', String(percent));
    line.setAttribute('aria-valuetext', `${percent} percent original`);
    onMove(share);
  };

  const follow = (event: PointerEvent) => {
    const { left, width } = line.getBoundingClientRect();
    place((event.clientX - left) / width);
  };
  line.addEventListener('pointerdown', (event) => {
    line.setPointerCapture(event.pointerId);
    follow(event);
  });
  line.addEventListener('pointermove', (event) => {
    if (line.hasPointerCapture(event.pointerId)) follow(event);
  });

  line.addEventListener('keydown', (event) => {
    const moves: Record<string, number> = {
      ArrowLeft: share - STEP,
      ArrowDown: share - STEP,
      ArrowRight: share + STEP,
      ArrowUp: share + STEP,
      PageDown: share - LEAP,
      PageUp: share + LEAP,
      Home: 0,
      End: 1,
    };
    const wanted = moves[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    place(wanted);
  });

  return {
    show(shown) {
      line.hidden = !shown;
      if (shown) place(share);
    },
  };
}
