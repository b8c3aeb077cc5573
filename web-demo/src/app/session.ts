/** One run of the engine: its worker, the model it was given and the source it shows, each replaceable. */

import type { Look, ModelFacts, Notice, Report, Stats, ColdStart, Wishes } from '../engine/protocol';
import { Engine, type Runtime } from './engine';
import type { ChosenModel } from './models';
import { collectReport } from './report';
import type { LiveSource } from './sources/source';

export interface Events {
  status(notice: Extract<Notice, { type: 'status' }>): void;
  model(notice: Extract<Notice, { type: 'model' }>): void;
  stats(stats: Stats, cold: ColdStart): void;
  trouble(notice: Extract<Notice, { type: 'trouble' }>): void;
  size(size: { width: number; height: number }): void;
  /** The worker died; `restart` makes another one with the same model. */
  crash(reason: string): void;
}

export type Opener = (engine: Engine) => Promise<LiveSource>;

export class Session {
  engine: Engine;
  source: LiveSource | null = null;
  facts: ModelFacts | null = null;
  cold: ColdStart | null = null;
  stats: Stats | null = null;
  /** Counts what was asked for, so that a camera allowed too late does not replace a sample chosen since. */
  #turn = 0;
  #opener: Opener | null = null;

  constructor(
    private readonly runtime: Runtime,
    private readonly events: Events,
    look: Look,
  ) {
    this.engine = this.#begin(look);
  }

  useModel({ source: model }: ChosenModel, wishes: Wishes): void {
    this.engine.send({ type: 'model', model, wishes });
  }

  /** Resolves with the source, or with null where another one was asked for meanwhile. Rejects as `opener` does. */
  async open(opener: Opener): Promise<LiveSource | null> {
    this.#turn += 1;
    const turn = this.#turn;
    this.#opener = opener;
    // A phone opens one camera at a time.
    if (this.source?.kind === 'camera') this.close();
    const opened = await opener(this.engine);
    if (turn !== this.#turn) {
      opened.stop();
      return null;
    }
    this.source?.stop();
    this.source = opened;
    return opened;
  }

  /** The source that was last asked for, again. */
  reopen(): Promise<LiveSource | null> {
    return this.#opener === null ? Promise.resolve(null) : this.open(this.#opener);
  }

  close(): void {
    this.engine.send({ type: 'source', source: { from: 'none' } });
    this.source?.stop();
    this.source = null;
  }

  /** A new worker and a new canvas; model and source are to be given again. */
  restart(look: Look): void {
    this.source?.stop();
    this.source = null;
    this.engine.end();
    this.engine = this.#begin(look);
  }

  report(): Promise<Report> {
    return collectReport(this.engine, this.source?.kind ?? 'none');
  }

  #begin(look: Look): Engine {
    this.facts = this.cold = this.stats = null;
    const engine = new Engine(look, this.runtime, (reason) => this.events.crash(reason));
    engine.listen({
      status: (notice) => this.events.status(notice),
      model: (notice) => {
        this.facts = notice.facts;
        this.cold = notice.cold;
        this.events.model(notice);
      },
      stats: ({ stats, cold }) => {
        this.stats = { ...stats, dropped: stats.dropped + engine.droppedFrames };
        this.cold = cold;
        this.events.stats(this.stats, cold);
      },
      trouble: (notice) => this.events.trouble(notice),
      size: ({ size }) => this.events.size(size),
    });
    return engine;
  }
}
