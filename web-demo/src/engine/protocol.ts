/**
 * What the page and the engine's worker say to each other: types alone. Everything is structured-cloneable; what is
 * marked "transferred" must be in the transfer list of `postMessage`.
 *
 * The page starts `engine/worker.ts` as a module worker, posts `Command`s, and listens for `Notice`s. Commands may be
 * sent in any order after `start`; the last one of a kind counts. A frame is shown as soon as there are a canvas, a
 * model and a source, and no command has to wait for a notice.
 */

/** Pixels, in that order everywhere. */
export interface Size {
  height: number;
  width: number;
}

/**
 * Where inference and compositing happen, best first. The two WebGPU steps read nothing back; `wasm-gpu` reads the
 * network's input back once a frame; `wasm-2d` needs no GPU at all.
 */
export type StepName = 'webgpu-fp16' | 'webgpu-fp32' | 'wasm-gpu' | 'wasm-2d';

/**
 * What the user asks for; nothing of it is needed. `step` is taken even if it is too slow, if it can run at all.
 * `precision` narrows the choice (`fp32`, `fp16`, or another that the manifest lists). `budgetMs` is what one inference
 * and its compositing may take (default 33).
 */
export interface Wishes {
  step?: StepName;
  precision?: string;
  budgetMs?: number;
  /** WebAssembly threads; more than one needs a cross-origin isolated page. */
  threads?: number;
}

export type ModelSource =
  /** The address of a bundle's folder, ending in `/`. */
  | { from: 'url'; url: string }
  /**
   * Files dropped onto the page, their paths relative to the folder that holds `manifest.json` (or to one above it).
   * Where the bundle carries no runtime, the page's own is used.
   */
  | { from: 'files'; files: { path: string; file: Blob }[] };

/** Frames come from one of these. */
export type Source =
  /** `MediaStreamTrackProcessor(...).readable`, transferred. The engine takes the newest frame and drops the rest. */
  | { from: 'stream'; frames: ReadableStream<VideoFrame> }
  /** The page will send `frame` commands, one from each `requestVideoFrameCallback`. */
  | { from: 'pushed' }
  /** One picture (transferred); drawn again on each change of the look. */
  | { from: 'still'; bitmap: ImageBitmap }
  | { from: 'none' };

export type Mode = 'blur' | 'picture' | 'colour' | 'mask' | 'off';

/** How the answer looks. All fractions are 0..1. */
export interface Look {
  mode: Mode;
  /** Blur: 1 is a standard deviation of 5 % of the frame's shorter side. */
  blur: number;
  /** Behind the person in mode `colour`: sRGB, 0..1 each. */
  colour: [red: number, green: number, blue: number];
  /** Left of this part of the width the camera's frame is shown as it is; null: nowhere. */
  compare: number | null;
  mirror: boolean;
  edge: {
    /** How much the frame's own edges steer the mask's: 0 is plain bilinear upsampling. */
    guidance: number;
    /** 0 is a hard cut at one half, 1 the mask's own slope. */
    softness: number;
  };
  /** How long the mask remembers: 1 is a time constant of 150 ms where nothing moves. 0 turns the filter off. */
  temporal: number;
  /** How much of the background's light falls over the person's edge. */
  lightWrap: number;
}

export const DEFAULT_LOOK: Look = {
  mode: 'blur',
  blur: 0.5,
  colour: [0.1, 0.45, 0.35],
  compare: null,
  mirror: true,
  edge: { guidance: 1, softness: 0.6 },
  temporal: 0.5,
  lightWrap: 0.2,
};

/** Page -> worker. */
export type Command =
  | {
      type: 'start';
      /** `canvas.transferControlToOffscreen()`, transferred. The engine sets its size to the frame's. */
      canvas: OffscreenCanvas;
      look: Look;
      /**
       * onnxruntime-web for bundles that carry none: as `WebRuntime.builds` in a manifest, paths relative to `base`.
       */
      runtime?: { builds: Record<string, { module: string; wasm: string[] }>; base: string };
    }
  /** A fresh canvas (transferred), after `canvas-wanted`. */
  | { type: 'canvas'; canvas: OffscreenCanvas }
  | { type: 'model'; model: ModelSource; wishes: Wishes }
  | { type: 'source'; source: Source }
  /** A frame of a `pushed` source, transferred. `timestampUs` as `VideoFrame.timestamp` has it. */
  | { type: 'frame'; frame: VideoFrame | ImageBitmap; timestampUs: number }
  | { type: 'look'; look: Look }
  /** The picture of mode `picture`, transferred; covers the frame, centred. */
  | { type: 'background'; bitmap: ImageBitmap | null }
  /** Whether per-stage GPU times are wanted: their queries are read back once in 30 frames while they are. */
  | { type: 'instruments'; on: boolean }
  /** The document's visibility: nothing is computed while it is hidden, unless a shared track is in use. */
  | { type: 'visible'; visible: boolean }
  /**
   * Give a track for calls. `writable` (transferred): `MediaStreamTrackGenerator.writable`, where the page has one and the
   * worker no `VideoTrackGenerator`. Answered by `shared`.
   */
  | { type: 'share'; writable?: WritableStream<VideoFrame> }
  | { type: 'unshare' }
  /** Time the next `frames` frames, each stage by itself. Answered by `bench`. */
  | { type: 'bench'; frames: number }
  /** Answered by `report`. */
  | { type: 'report' }
  /** For tests: lose the GPU device, as a driver does that is reset. */
  | { type: 'lose-device' }
  | { type: 'stop' };

/** What cold start goes through. */
export type Phase = 'idle' | 'download' | 'compile' | 'check' | 'first-frame' | 'running' | 'paused' | 'recovering';

/** One way to run, and why it is or is not the one in use. */
export interface StepReason {
  step: StepName;
  precision: string;
  chosen: boolean;
  reason: string;
  /** Median of one inference here, where it was measured. */
  medianMs: number | null;
}

/** Everything known of the model in use; all of it from its manifest and from the browser. */
export interface ModelFacts {
  name: string;
  licence: string;
  origin: string;
  precision: string;
  provider: 'webgpu' | 'wasm';
  step: StepName;
  /** The network's input, the rung in a ladder of sizes. */
  input: Size;
  mask: Size;
  runtime: string;
  build: string;
  threads: number;
  /** Null without a GPU. `software`: a CPU that plays a GPU; its times are no device's. */
  adapter: { name: string; software: boolean; features: string[] } | null;
  /** Distance from PyTorch's golden answer, and what is allowed. */
  check: { metric: string; worst: number; tolerance: number };
}

/** Cold start, split. Null: not yet. */
export interface ColdStart {
  downloadMs: number | null;
  compileMs: number | null;
  firstFrameMs: number | null;
  downloadedBytes: number;
}

export type StageName =
  | 'ingest' | 'preprocess' | 'inference' | 'person' | 'temporal' | 'upsample' | 'matte' | 'shrink' | 'blur' | 'composite';

export interface StageTimes {
  /** Median milliseconds of each stage of the last frames that were timed. */
  medianMs: Partial<Record<StageName, number>>;
  p90Ms: Partial<Record<StageName, number>>;
  /** `gpu`: timestamp queries; `wall`: the queue was waited for after each stage, which slows it. */
  clock: 'gpu' | 'wall';
  frames: number;
}

export interface Stats {
  fps: number;
  /** Frames that came while an earlier one was in work, since the source started. */
  dropped: number;
  shown: number;
  /** From a frame's arrival until its work was handed to the GPU, median of the last 30. */
  frameMs: number;
  stages: StageTimes | null;
  frame: Size;
}

/** `code` is for the page and for tests, `sentence` and `wayOn` are for people. */
export type TroubleCode =
  | 'no-webgpu'
  | 'model-missing'
  | 'model-damaged'
  | 'model-unsuited'
  | 'no-step'
  | 'out-of-memory'
  | 'device-lost'
  | 'source-ended'
  | 'internal';

export interface Trouble {
  code: TroubleCode;
  sentence: string;
  wayOn: string;
  /** The engine goes on by itself (device lost), or waits for another command. */
  recovers: boolean;
}

export interface Report {
  written: string;
  userAgent: string;
  model: ModelFacts | null;
  steps: StepReason[];
  cold: ColdStart;
  stats: Stats | null;
  look: Look;
  deviceLosses: number;
  /** Addresses that the worker fetched (`performance.getEntriesByType('resource')`): the page keeps them for offline. */
  fetched: string[];
}

export interface BenchResult {
  frames: number;
  /** Whole frame, from its arrival until the GPU was done: the queue is waited for after each. */
  frameMs: { p50: number; p90: number; all: number[] };
  stages: { clock: 'gpu' | 'wall'; p50: Partial<Record<StageName, number>>; p90: Partial<Record<StageName, number>> };
  report: Report;
}

/** Worker -> page. */
export type Notice =
  | { type: 'status'; phase: Phase; file: string | null; loadedBytes: number; totalBytes: number }
  | { type: 'model'; facts: ModelFacts; steps: StepReason[]; cold: ColdStart }
  /** Twice a second while frames are shown. */
  | { type: 'stats'; stats: Stats; cold: ColdStart }
  | { type: 'trouble'; trouble: Trouble; steps: StepReason[] }
  /**
   * The step changed between WebGPU and a 2-D canvas, and a canvas cannot change its context: replace the element by a
   * new one and send `canvas`. Nothing is drawn until then.
   */
  | { type: 'canvas-wanted' }
  /**
   * A `frame` or a `look` has arrived. The page sends the next one of its kind only then, and of those that came to it
   * meanwhile the newest alone: Chromium hands a worker one message a task, and where a frame takes longer than the next
   * one needs to come, messages would queue up without end.
   */
  | { type: 'taken'; what: 'frame' | 'look' }
  /** The frame's size changed, hence the canvas's. */
  | { type: 'size'; size: Size }
  /** `track` (transferred) where the worker made it; null: the page uses its own generator. */
  | { type: 'shared'; track: MediaStreamTrack | null }
  | { type: 'bench'; result: BenchResult }
  | { type: 'report'; report: Report };
