/** The newest frame, and only that: a frame that comes while one is waiting takes its place. */

import type { Frame } from './gpu/pipeline';

export interface Letter {
  frame: Frame;
  timestampUs: number;
  /** A still stays whole: it is shown again when the look changes. */
  keep: boolean;
}

export class Mailbox {
  #letter: Letter | null = null;
  #waiting: (() => void) | null = null;
  dropped = 0;

  put(letter: Letter): void {
    if (this.#letter) {
      this.dropped++;
      if (!this.#letter.keep) this.#letter.frame.close();
    }
    this.#letter = letter;
    this.#waiting?.();
    this.#waiting = null;
  }

  async take(): Promise<Letter> {
    for (;;) {
      const letter = this.#letter;
      if (letter) {
        this.#letter = null;
        return letter;
      }
      await new Promise<void>((resolve) => (this.#waiting = resolve));
    }
  }

  clear(): void {
    if (this.#letter && !this.#letter.keep) this.#letter.frame.close();
    this.#letter = null;
    this.dropped = 0;
  }
}
