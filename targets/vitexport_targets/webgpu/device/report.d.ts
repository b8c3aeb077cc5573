/** What is posted: `DeviceReport` of vitexport.contract, whose names these are. */

import type { Size } from '../runtime/manifest';

export type Verdict = 'passed' | 'failed' | 'not run';

export interface Parity {
  verdict: Verdict;
  drift?: number;
  snr_db?: number;
  cosine?: number;
  agreement?: number | null;
  person_iou?: number | null;
  images?: number;
  reason?: string;
}

export interface Measurement {
  verdict: Verdict;
  load_ms?: number;
  cold_ms?: number;
  times_ms?: number[];
  sustained_ms?: number;
  sustained_after_s?: number;
  reason?: string;
  facts?: Record<string, string>;
}

export interface Placement {
  nodes: Record<string, number>;
  fallback: string[];
}

/** `webgpu`; `wasm`, on one thread; `wasm-threads`. */
export type CellProvider = 'webgpu' | 'wasm' | 'wasm-threads';

export interface Cell {
  precision: string;
  provider: CellProvider;
  size: Size;
  parity: Parity;
  latency: Measurement;
  placement: Placement | null;
  software: boolean;
}

export interface DeviceReport {
  schema_version: 1;
  manifest_sha256: string;
  device: { name: string; runtime: string; provider: string; facts: Record<string, string> };
  cells: Cell[];
}

/** One cell to run; `threads` are WebAssembly's, null on a GPU. */
export interface Task {
  precision: string;
  provider: CellProvider;
  size: Size;
  threads: number | null;
}

/** Where the runtime lies, where the bundle leaves it to the page; how long each cell goes on, where that is asked. */
export interface Options {
  sustainedS?: number;
  runtime?: { builds: Record<string, { module: string; wasm: string[] }> };
  runtimeBase?: string;
}

/** What a cell's worker says: words on the way, then the end. */
export type Said =
  | { kind: 'step'; words: string }
  | { kind: 'measured'; cell: Cell }
  | { kind: 'placed'; placement: Placement | null }
  | { kind: 'stopped'; name: string; message: string };

/** What a cell's worker is asked: to measure a cell, or to read from the runtime's own log what ran where. */
export interface Asked {
  job: 'measure' | 'place';
  task: Task;
  options: Options;
}
