/**
 * The messages that came while a frame was in work. Where all of that work is done in microtasks, as WebAssembly's is,
 * each message would else wait for a whole frame, and pushed frames would queue up without end.
 *
 * A message to ourselves goes behind them. A timer would too, but browsers hold repeated timers back by 4 ms.
 */
export class Waiting {
  readonly #channel = new MessageChannel();

  /** Resolves once all that waited are handled. */
  done(): Promise<void> {
    return new Promise((resolve) => {
      this.#channel.port1.onmessage = () => resolve();
      this.#channel.port2.postMessage(null);
    });
  }
}
