/** A fixed number of frames, each waited for to its end, and each stage timed. */

import { quantile } from './ladder';
import type { BenchResult, Report } from './protocol';
import type { Timed } from './renderer';
import { summarised } from './stats';

export class Bench {
  readonly #wanted: number;
  #all: number[] = [];
  #timed: Timed[] = [];

  constructor(frames: number) {
    this.#wanted = Math.max(1, frames);
  }

  timed(timed: Timed): void {
    this.#timed.push(timed);
  }

  /** True after the last one. */
  frame(ms: number): boolean {
    this.#all.push(ms);
    return this.#all.length >= this.#wanted;
  }

  result(report: Report): BenchResult {
    const { medianMs, p90Ms, clock } = summarised(this.#timed);
    return {
      frames: this.#all.length,
      frameMs: { p50: quantile(this.#all, 0.5), p90: quantile(this.#all, 0.9), all: this.#all },
      stages: { clock, p50: medianMs, p90: p90Ms },
      report,
    };
  }
}
