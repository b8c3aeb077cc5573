/* Generated from vitexport.contract.Manifest by generate_types.py. Do not edit. */

/**
 * `manifest.json`: all that a page, a phone or a later `vitexport check` needs to know.
 */
export interface Manifest {
  schema_version: 1;
  target: string;
  model: string;
  task: 'classify' | 'features' | 'segment';
  input_name: string;
  rungs: Rung[];
  provenance: Provenance;
  toolchain: {
    [k: string]: string;
  };
  files: FileEntry[];
  runtime: WebRuntime | null;
}
/**
 * The network at one input size, with its own exam: a ladder has several, and they share what weights they can.
 */
export interface Rung {
  input_shape: number[];
  preprocessing: Preprocessing;
  outputs: OutputSpec[];
  variants: Variant[];
  golden: GoldenCase[];
  rounding: number;
  pos_embed_rule: string;
  pos_embed_source: string;
  calibration: CalibrationSet | null;
}
/**
 * From a decoded photo to the network's input, exactly; of a clip, from each of its frames.
 */
export interface Preprocessing {
  size: Size;
  /**
   * @minItems 3
   * @maxItems 3
   */
  mean: [number, number, number];
  /**
   * @minItems 3
   * @maxItems 3
   */
  std: [number, number, number];
  interpolation: 'bicubic' | 'bilinear' | 'lanczos' | 'nearest';
  fit: 'crop' | 'squash';
  resize: Size | null;
  crop_rounding: 'floor' | 'half-even';
  clip: Clip | null;
}
/**
 * Height x width in pixels, in that order everywhere.
 */
export interface Size {
  height: number;
  width: number;
}
/**
 * Frames of one scene as one input, oldest first: what a video network eats.
 */
export interface Clip {
  frames: number;
  stride: number;
  layout: 'CTHW' | 'TCHW';
}
/**
 * One named output. `shape` counts the batch as 1.
 */
export interface OutputSpec {
  name: string;
  meaning: 'features' | 'logits' | 'mask' | 'segmentation';
  shape: number[];
  labels: string[];
  scores: ('logits' | 'probabilities') | null;
  person: number | null;
}
/**
 * One precision of the model, as stored. `files[0]` is what a runtime opens; the rest are its weight shards.
 */
export interface Variant {
  precision: string;
  files: string[];
  tolerance: number;
  requires: string[];
  metric: 'drift' | 'loss' | 'noise';
  oldest_runtime: string;
  only: string[];
}
/**
 * A photo, the tensor PyTorch made of it and what PyTorch answered: a bundle carries its own exam.
 */
export interface GoldenCase {
  name: string;
  photo: string;
  input: string;
  outputs: {
    [k: string]: string;
  };
}
/**
 * The pictures that activations were measured on, where a variant computes in fewer bits.
 */
export interface CalibrationSet {
  pictures: number;
  photos: number;
  sha256: string;
  observer: ('entropy' | 'min-max' | 'mse' | 'percentile') | null;
}
/**
 * Where the weights come from and what may be done with them.
 */
export interface Provenance {
  origin: string;
  licence: string;
  weights_sha256: string;
}
/**
 * A file of a bundle; `path` is relative to the manifest, with forward slashes.
 */
export interface FileEntry {
  path: string;
  bytes: number;
  sha256: string;
}
export interface WebRuntime {
  package: string;
  version: string;
  builds: {
    [k: string]: RuntimeBuild;
  };
}
/**
 * One build of a browser runtime. `wasm` lists parts to be joined in order (hosts cap files at 25 MiB).
 */
export interface RuntimeBuild {
  module: string;
  wasm: string[];
}
