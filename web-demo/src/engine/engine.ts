/** The engine: commands in, frames on the canvas, notices out. All of it runs in the worker. */

import type { Builds } from 'vitexport';
import { Bench } from './bench';
import { openBundle, type Bundle } from './bundle';
import { Gpu } from './device';
import type { Frame } from './gpu/pipeline';
import { climb, type Top } from './ladder';
import { Mailbox, type Letter } from './mailbox';
import {
  DEFAULT_LOOK,
  type ColdStart,
  type Command,
  type Look,
  type ModelFacts,
  type ModelSource,
  type Notice,
  type Phase,
  type Report,
  type Size,
  type Source,
  type StepReason,
  type Trouble,
  type Wishes,
} from './protocol';
import { factsOf } from './report';
import { Sharing } from './sharing';
import { Counter } from './stats';
import { codeOf, sentenceOf, troubleOf } from './trouble';
import { Waiting } from './waiting';
import type { Timing } from './renderer';

export type Post = (notice: Notice, transfer?: Transferable[]) => void;

/** How often the instruments look at the GPU's clock. */
const TIMED_FRAMES = 30;
const STATS_MS = 500;

const NO_COLD_START: ColdStart = { downloadMs: null, compileMs: null, firstFrameMs: null, downloadedBytes: 0 };

export class Engine {
  readonly #post: Post;
  readonly #mailbox = new Mailbox();
  readonly #waiting = new Waiting();
  readonly #sharing = new Sharing();
  #canvas: OffscreenCanvas | null = null;
  #look: Look = DEFAULT_LOOK;
  #runtime: Builds | null = null;
  readonly #gpu = new Gpu(
    (message) => {
      const trouble = { ...troubleOf(new Error(`The GPU was lost (${message}).`), true), code: 'device-lost' as const };
      this.#recover(trouble);
    },
    (error) => this.#doWithoutGpu(error),
  );
  #asked: { model: ModelSource; wishes: Wishes } | null = null;
  #bundle: Bundle | null = null;
  #top: Top | null = null;
  #facts: ModelFacts | null = null;
  #steps: StepReason[] = [];
  #cold: ColdStart = NO_COLD_START;
  #picture: ImageBitmap | null = null;
  #still: Letter | null = null;
  #reader: ReadableStreamDefaultReader<VideoFrame> | null = null;
  #size: Size = { height: 0, width: 0 };
  #counter = new Counter();
  #bench: Bench | null = null;
  #lastUs: number | null = null;
  #instruments = false;
  #visible = true;
  #stopped = false;
  #phase: Phase = 'idle';
  /** What changes the renderer or uses it, one after another. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(post: Post) {
    this.#post = post;
    void this.#loop();
    setInterval(() => this.#tell(), STATS_MS);
  }

  handle(command: Command): void {
    switch (command.type) {
      case 'start':
        this.#runtime = command.runtime ? { builds: command.runtime.builds, base: new URL(command.runtime.base, self.location.href) } : null;
        this.#look = command.look;
        this.#canvas = command.canvas;
        return this.#attach();
      case 'canvas':
        this.#canvas = command.canvas;
        return this.#attach();
      case 'model':
        this.#asked = { model: command.model, wishes: command.wishes };
        this.#bundle = null;
        return void this.#start();
      case 'source':
        return this.#source(command.source);
      case 'frame':
        this.#post({ type: 'taken', what: 'frame' });
        return this.#arrive(command.frame, command.timestampUs);
      case 'look':
        this.#post({ type: 'taken', what: 'look' });
        this.#look = command.look;
        this.#top?.renderer.look(command.look);
        return this.#redraw();
      case 'background':
        this.#picture?.close();
        this.#picture = command.bitmap;
        this.#top?.renderer.picture(command.bitmap);
        return this.#redraw();
      case 'instruments':
        this.#instruments = command.on;
        return;
      case 'visible':
        this.#visible = command.visible;
        if (command.visible) this.#redraw();
        return this.#status(this.#idle() ? 'paused' : 'running');
      case 'share': {
        const track = this.#sharing.start(command.writable ?? null);
        this.#top?.renderer.share(this.#sharing.canvas);
        this.#redraw();
        return this.#post({ type: 'shared', track }, track ? [track] : []);
      }
      case 'unshare':
        this.#sharing.stop();
        return this.#top?.renderer.share(null);
      case 'bench':
        this.#bench = new Bench(command.frames);
        return this.#redraw();
      case 'report':
        return this.#post({ type: 'report', report: this.#report() });
      case 'lose-device':
        return void this.#gpu.destroy();
      case 'stop':
        return void this.#stop();
    }
  }

  // ---------------------------------------------------------------------------------------------- model and device

  /** Load what was asked for last, and show it. */
  async #start(): Promise<void> {
    const asked = this.#asked;
    if (asked === null) return;
    await this.#alone(async () => {
      if (asked !== this.#asked) return; // another model was asked for meanwhile
      await this.#drop();
      this.#cold = NO_COLD_START;
      this.#steps = [];
      const started = performance.now();
      try {
        this.#status('download');
        this.#bundle ??= await openBundle(asked.model, this.#runtime);
        const gpu = await this.#gpu.graphics();
        this.#top = await climb({
          bundle: this.#bundle,
          wishes: asked.wishes,
          gpu,
          look: this.#look,
          steps: this.#steps,
          onSize: (size) => {
            this.#size = size;
            this.#post({ type: 'size', size });
          },
          onPhase: (phase, progress) => this.#status(phase, progress),
        });
        const downloaded = lastArrival(started);
        this.#cold = { downloadMs: downloaded - started, compileMs: performance.now() - downloaded, firstFrameMs: null, downloadedBytes: downloadedBytes() };
        const { renderer } = this.#top;
        renderer.look(this.#look);
        renderer.picture(this.#picture);
        if (this.#sharing.active) renderer.share(this.#sharing.fresh());
        this.#lastUs = null;
        this.#counter = new Counter();
        this.#attach();
        this.#facts = factsOf(this.#top, typeof gpu === 'string' ? null : gpu);
        this.#post({ type: 'model', facts: this.#facts, steps: this.#steps, cold: this.#cold });
        this.#status('first-frame');
        this.#redraw();
      } catch (error) {
        this.#fail(error);
      }
    });
  }

  /** Go on below the steps that need a GPU. */
  #doWithoutGpu(error: unknown): void {
    this.#gpu.giveUp('the GPU ran out of memory');
    this.#recover({ ...troubleOf(error, true), code: 'out-of-memory', sentence: 'The GPU ran out of memory; the page goes on without it.' });
  }

  /** Start again, with another device or with none. */
  #recover(trouble: Trouble): void {
    if (this.#stopped) return;
    this.#post({ type: 'trouble', trouble, steps: this.#steps });
    this.#status('recovering');
    void this.#start();
  }

  async #drop(): Promise<void> {
    const top = this.#top;
    this.#top = null;
    // A device that is lost takes its sessions along.
    await top?.renderer.dispose().catch(() => undefined);
  }

  #attach(): void {
    if (this.#top && this.#canvas && !this.#top.renderer.attach(this.#canvas)) {
      this.#canvas = null;
      this.#post({ type: 'canvas-wanted' });
    } else {
      this.#redraw();
    }
  }

  #fail(error: unknown): void {
    this.#post({ type: 'trouble', trouble: troubleOf(error), steps: this.#steps });
    this.#status('idle');
  }

  // -------------------------------------------------------------------------------------------------------- frames

  #source(source: Source): void {
    void this.#reader?.cancel().catch(() => undefined);
    this.#reader = null;
    this.#still?.frame.close();
    this.#still = null;
    this.#mailbox.clear();
    this.#lastUs = null;
    this.#counter = new Counter();
    if (source.from === 'still') {
      this.#still = { frame: source.bitmap, timestampUs: 0, keep: true };
      this.#mailbox.put(this.#still);
    } else if (source.from === 'stream') {
      this.#reader = source.frames.getReader();
      void this.#pump(this.#reader);
    }
  }

  async #pump(reader: ReadableStreamDefaultReader<VideoFrame>): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        this.#arrive(value, value.timestamp);
      }
    } catch {
      // The stream broke off: told below, as an end is.
    }
    if (reader !== this.#reader || this.#stopped) return;
    const trouble = { ...troubleOf(new Error('The camera or the video gives no more frames.')), code: 'source-ended' as const, wayOn: 'Choose a source again.' };
    this.#post({ type: 'trouble', trouble, steps: this.#steps });
  }

  #arrive(frame: Frame, timestampUs: number): void {
    if (this.#idle()) frame.close();
    else this.#mailbox.put({ frame, timestampUs, keep: false });
  }

  /** Whether nobody sees what would be computed. */
  #idle(): boolean {
    return this.#stopped || (!this.#visible && !this.#sharing.active);
  }

  /** A still is shown anew when something has changed; a moving picture shows it by itself. */
  #redraw(): void {
    if (this.#still) this.#mailbox.put(this.#still);
  }

  async #loop(): Promise<void> {
    while (!this.#stopped) {
      await this.#waiting.done();
      const letter = await this.#mailbox.take();
      await this.#alone(() => this.#show(letter));
    }
  }

  async #show({ frame, timestampUs, keep }: Letter): Promise<void> {
    const release = keep ? () => undefined : () => frame.close();
    const top = this.#top;
    const canvas = this.#canvas;
    if (top === null || canvas === null || this.#idle()) return release();
    const { renderer } = top;
    const started = performance.now();
    const sinceMs = this.#lastUs === null || keep ? Infinity : (timestampUs - this.#lastUs) / 1000;
    this.#lastUs = timestampUs;
    const bench = this.#bench;
    try {
      await renderer.show(frame, sinceMs > 0 ? sinceMs : Infinity, release, this.#timing(), (timed) => (bench ?? this.#counter).timed(timed));
      if (bench || this.#cold.firstFrameMs === null) await renderer.idle();
      const ms = performance.now() - started;
      this.#counter.frame(ms);
      this.#sharing.give(timestampUs);
      if (this.#cold.firstFrameMs === null) {
        this.#cold = { ...this.#cold, firstFrameMs: ms, downloadedBytes: downloadedBytes() };
        this.#status('running');
        this.#tell();
      }
      if (bench?.frame(ms)) {
        this.#bench = null;
        this.#post({ type: 'bench', result: bench.result(this.#report()) });
      } else if (bench) {
        this.#redraw();
      }
    } catch (error) {
      release();
      // What a lost device breaks is told, and mended, by `#recover`.
      if (this.#top === top && this.#phase !== 'recovering' && !(await this.#gpu.lost())) {
        if (renderer.kind === 'gpu' && codeOf(error) === 'out-of-memory') return this.#doWithoutGpu(error);
        await this.#drop();
        this.#fail(error);
      }
    }
  }

  #timing(): Timing {
    if (this.#bench) return 'each';
    return this.#instruments && this.#counter.shown % TIMED_FRAMES === 0 ? 'passing' : 'no';
  }

  // ------------------------------------------------------------------------------------------------------- telling

  #status(phase: Phase, progress?: { file: string; loadedBytes: number; totalBytes: number }): void {
    this.#phase = phase;
    const { file = null, loadedBytes = 0, totalBytes = 0 } = progress ?? {};
    this.#post({ type: 'status', phase, file, loadedBytes, totalBytes });
  }

  #tell(): void {
    if (this.#top && this.#counter.shown > 0 && !this.#idle()) {
      this.#post({ type: 'stats', stats: this.#counter.stats(this.#size, this.#mailbox.dropped), cold: this.#cold });
    }
  }

  #report(): Report {
    return {
      written: new Date().toISOString(),
      userAgent: navigator.userAgent,
      model: this.#top && this.#facts,
      steps: this.#steps,
      cold: this.#cold,
      stats: this.#counter.shown > 0 ? this.#counter.stats(this.#size, this.#mailbox.dropped) : null,
      look: this.#look,
      deviceLosses: this.#gpu.losses,
      fetched: [...new Set(fetched().map(({ name }) => name))],
    };
  }

  // ------------------------------------------------------------------------------------------------------------------

  #alone<T>(job: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(job);
    this.#turn = result.catch((error: unknown) => console.error(sentenceOf(error)));
    return result;
  }

  async #stop(): Promise<void> {
    this.#stopped = true;
    void this.#reader?.cancel().catch(() => undefined);
    this.#sharing.stop();
    await this.#alone(() => this.#drop());
    await this.#gpu.close();
    this.#status('idle');
  }
}

/** What this worker has fetched, over the wire or out of the cache. */
function fetched(): PerformanceResourceTiming[] {
  return performance.getEntriesByType('resource').filter((entry) => entry instanceof PerformanceResourceTiming);
}

/** When the last of what was fetched since then was here; the golden picture, which the check fetches, is not waited for. */
function lastArrival(since: number): number {
  const ends = fetched().filter(({ name }) => !name.includes('/golden/')).map(({ responseEnd }) => responseEnd);
  return Math.max(since, ...ends);
}

const downloadedBytes = () => fetched().reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0);
