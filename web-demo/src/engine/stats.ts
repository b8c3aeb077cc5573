/** Frames a second, what each took, and where the time went: of the last frames. */

import { median, quantile } from './ladder';
import type { Size, StageName, StageTimes, Stats } from './protocol';
import type { Timed } from './renderer';

const LAST = 30;

export class Counter {
  shown = 0;
  #ends: number[] = [];
  #frameMs: number[] = [];
  #timed: Timed[] = [];

  frame(ms: number): void {
    this.shown++;
    this.#ends = [...this.#ends, performance.now()].slice(-LAST);
    this.#frameMs = [...this.#frameMs, ms].slice(-LAST);
  }

  timed(timed: Timed): void {
    this.#timed = [...this.#timed, timed].slice(-LAST);
  }

  stats(frame: Size, dropped: number): Stats {
    const [first = 0, last = 0] = [this.#ends[0], this.#ends.at(-1)];
    return {
      fps: this.#ends.length > 1 && last > first ? (1000 * (this.#ends.length - 1)) / (last - first) : 0,
      dropped,
      shown: this.shown,
      frameMs: this.#frameMs.length > 0 ? median(this.#frameMs) : 0,
      stages: this.#timed.length > 0 ? summarised(this.#timed) : null,
      frame,
    };
  }
}

export function summarised(timed: readonly Timed[]): StageTimes {
  const names = [...new Set(timed.flatMap(({ stages }) => Object.keys(stages)))] as StageName[];
  const at = (part: number) =>
    Object.fromEntries(names.map((name) => [name, quantile(timed.flatMap(({ stages }) => stages[name] ?? []), part)]));
  return { medianMs: at(0.5), p90Ms: at(0.9), clock: timed[0]?.clock ?? 'wall', frames: timed.length };
}
