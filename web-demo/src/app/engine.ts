/** The engine's worker as the page sees it: commands in, notices out, and a canvas that it draws on. */

import type { Command, Look, Notice } from '../engine/protocol';

export type Notices = { [T in Notice['type']]?: (notice: Extract<Notice, { type: T }>) => void };

/** The runtime for bundles that carry none. */
export type Runtime = NonNullable<Extract<Command, { type: 'start' }>['runtime']>;

/** Commands of which only the newest counts: what is sent waits until the one before was taken. */
class Newest<T> {
  #inFlight = false;
  #waiting: T | null = null;

  constructor(
    private readonly send: (value: T) => void,
    private readonly discard: (value: T) => void,
  ) {}

  offer(value: T): void {
    if (!this.#inFlight) {
      this.#inFlight = true;
      this.send(value);
      return;
    }
    if (this.#waiting !== null) this.discard(this.#waiting);
    this.#waiting = value;
  }

  taken(): void {
    this.#inFlight = false;
    const waiting = this.#waiting;
    this.#waiting = null;
    if (waiting !== null) this.offer(waiting);
  }
}

type FrameCommand = Extract<Command, { type: 'frame' }>;

export class Engine {
  /** Frames that were never sent, because newer ones came while the engine was busy. */
  droppedFrames = 0;
  readonly #frames = new Newest<FrameCommand>(
    (command) => this.send(command, [command.frame]),
    ({ frame }) => {
      frame.close();
      this.droppedFrames += 1;
    },
  );
  readonly #looks = new Newest<Look>(
    (look) => this.send({ type: 'look', look }),
    () => undefined,
  );
  #canvas = document.createElement('canvas');
  readonly #worker: Worker;
  readonly #listeners: Notices[] = [];

  /**
   * Starts a worker of its own; the canvas cannot outlive it.
   * `onCrash` is called with what it died of, where it dies.
   */
  constructor(look: Look, runtime: Runtime, onCrash: (reason: string) => void) {
    this.#canvas.setAttribute('role', 'img');
    this.#worker = new Worker(new URL('../engine/worker.ts', import.meta.url), { type: 'module', name: 'engine' });
    this.#worker.addEventListener('error', (event) => onCrash(event.message || 'its file could not be loaded'));
    this.#worker.addEventListener('messageerror', () => onCrash('it sent what this browser cannot read'));
    this.#worker.addEventListener('message', ({ data }: MessageEvent<Notice>) => this.#tell(data));
    this.listen({
      'canvas-wanted': () => this.#replaceCanvas(),
      taken: ({ what }) => (what === 'frame' ? this.#frames : this.#looks).taken(),
    });
    const canvas = this.#canvas.transferControlToOffscreen();
    this.send({ type: 'start', canvas, look, runtime }, [canvas]);
  }

  /** What is drawn on; another element after the engine has changed to another way of drawing. */
  get canvas(): HTMLCanvasElement {
    return this.#canvas;
  }

  send(command: Command, transferred: Transferable[] = []): void {
    this.#worker.postMessage(command, transferred);
  }

  /** The newest frame; what came before and was not taken yet is dropped. */
  frame(frame: VideoFrame | ImageBitmap, timestampUs: number): void {
    this.#frames.offer({ type: 'frame', frame, timestampUs });
  }

  look(look: Look): void {
    this.#looks.offer(look);
  }

  listen(notices: Notices): void {
    this.#listeners.push(notices);
  }

  /** The next notice of a type. */
  next<T extends Notice['type']>(type: T): Promise<Extract<Notice, { type: T }>> {
    return new Promise((resolve) => {
      const once: Notices = {};
      const listener = (notice: Extract<Notice, { type: T }>) => {
        this.#listeners.splice(this.#listeners.indexOf(once), 1);
        resolve(notice);
      };
      Object.assign(once, { [type]: listener });
      this.#listeners.push(once);
    });
  }

  /** Ends the worker, and takes the canvas off the page. */
  end(): void {
    this.#worker.terminate();
    this.#canvas.remove();
  }

  #replaceCanvas(): void {
    const fresh = document.createElement('canvas');
    for (const { name, value } of this.#canvas.attributes) fresh.setAttribute(name, value);
    this.#canvas.replaceWith(fresh);
    this.#canvas = fresh;
    const canvas = fresh.transferControlToOffscreen();
    this.send({ type: 'canvas', canvas }, [canvas]);
  }

  #tell(notice: Notice): void {
    for (const listener of [...this.#listeners]) {
      (listener[notice.type] as ((notice: Notice) => void) | undefined)?.(notice);
    }
  }
}
