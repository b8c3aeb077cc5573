/** What shows frames, whatever it computes with. */

import type { Frame } from './gpu/pipeline';
import type { Network } from './network';
import type { Look, Size, StageName } from './protocol';

/** Milliseconds of each stage of one frame. */
export interface Timed {
  clock: 'gpu' | 'wall';
  stages: Partial<Record<StageName, number>>;
}

/** `each`: wait for the figures, at whatever cost; `passing`: give them if they cost the frame nothing. */
export type Timing = 'no' | 'passing' | 'each';

export interface Renderer {
  readonly network: Network;
  readonly kind: 'gpu' | '2d';
  /** Draw on this canvas from now on. False: it has a context of the other kind already. */
  attach(canvas: OffscreenCanvas): boolean;
  /** Draw on this one too, neither mirrored nor compared, for those on the other side of a call; null: no more. */
  share(canvas: OffscreenCanvas | null): void;
  look(look: Look): void;
  /** Behind the person in mode `picture`. The bitmap stays the caller's. */
  picture(bitmap: ImageBitmap | null): void;
  /**
   * Show a frame; `done` is called as soon as the frame is not needed any more. `sinceMs`: the time since the frame before,
   * or Infinity. Resolves when its work is handed to the GPU. `onTimed` may be called later, or never.
   */
  show(frame: Frame, sinceMs: number, done: () => void, timing: Timing, onTimed: (timed: Timed) => void): Promise<void>;
  /** Resolves when all that was handed over is drawn. */
  idle(): Promise<void>;
  dispose(): Promise<void>;
}

export type OnSize = (size: Size) => void;
