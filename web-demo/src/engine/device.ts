/** The GPU that the engine has, has lost, or does without. */

import { createDevice } from 'vitexport/vitexport/device.js';
import { graphicsOf, type Graphics } from './ladder';

/** A device that is lost this often is not asked again: what loses it would lose the next one. */
const MOST_LOSSES = 3;

export class Gpu {
  readonly #onLost: (message: string) => void;
  readonly #onOutOfMemory: (error: GPUOutOfMemoryError) => void;
  #current: Promise<Graphics | string> | null = null;
  /** Why it is not used any more, although there is one. */
  #givenUp: string | null = null;
  losses = 0;

  /**
   * `onLost` is called once for each device that is lost while it is in use; the next call of `graphics` asks for
   * another. Memory that has run out is told by an event, too, while the GPU draws black.
   */
  constructor(onLost: (message: string) => void, onOutOfMemory: (error: GPUOutOfMemoryError) => void) {
    this.#onLost = onLost;
    this.#onOutOfMemory = onOutOfMemory;
  }

  /** The device in use, a new one where there is none; or why there is none. */
  async graphics(): Promise<Graphics | string> {
    if (this.#givenUp !== null) return this.#givenUp;
    if (this.#current) return this.#current;
    const current = createDevice().then(graphicsOf);
    this.#current = current;
    const gpu = await current;
    if (typeof gpu !== 'string') {
      void gpu.device.lost.then(({ message }) => this.#lost(current, message));
      gpu.device.addEventListener('uncapturederror', ({ error }) => this.#refused(current, error));
    }
    return gpu;
  }

  /** Whether the device in use is lost, or none is in use because it was. */
  async lost(): Promise<boolean> {
    const gpu = await this.#current;
    if (!gpu || typeof gpu === 'string') return gpu === null;
    // `lost` is settled before what it breaks is: a turn of the queue tells.
    return Promise.race([gpu.device.lost.then(() => true), new Promise<false>((resolve) => setTimeout(resolve, 50, false))]);
  }

  giveUp(reason: string): void {
    this.#givenUp = reason;
    this.#current = null;
  }

  /** Lose the device that is in use, as a driver does that crashes. */
  async destroy(): Promise<void> {
    const gpu = await this.#current;
    if (gpu && typeof gpu !== 'string') gpu.device.destroy();
  }

  /** Give the device back, without being told that it is lost. */
  async close(): Promise<void> {
    const current = this.#current;
    this.#current = null;
    const gpu = await current;
    if (gpu && typeof gpu !== 'string') gpu.device.destroy();
  }

  #lost(gpu: Promise<Graphics | string>, message: string): void {
    if (gpu !== this.#current) return;
    this.#current = null;
    this.losses++;
    if (this.losses >= MOST_LOSSES) this.#givenUp = `the GPU was lost ${this.losses} times`;
    this.#onLost(message || 'no reason given');
  }

  /** The GPU has no more memory, or our commands are wrong. */
  #refused(gpu: Promise<Graphics | string>, error: GPUError): void {
    if (gpu !== this.#current) return;
    if (error instanceof GPUOutOfMemoryError) this.#onOutOfMemory(error);
    else console.error(error.message);
  }
}
