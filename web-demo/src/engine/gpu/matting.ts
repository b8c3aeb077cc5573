/** From the network's output to the mask at the frame's size: person, temporal filter, guided upsampling, matte. */

import { seenRegion } from 'vitexport/vitexport/preprocess.js';
import type { Preprocessing } from 'vitexport/manifest';
import type { Look } from '../protocol';
import type { PersonOutput } from '../network';
import { dispatch, type Dispatch, type Kernels } from './kernels';
import { f32, packed, u32, type Memory } from './memory';

/**
 * Of colours in 0..1: a window whose variance is below it is flat, and its mask stays as it is. Ten times what a webcam's
 * noise has at the mask's size (a standard deviation of 1 of 255). The other: a tenth of a pixel's place at an edge.
 * Both, and the window of 5x5, were chosen on composites with known alpha, see tests/test_demo_edges.py.
 */
const EPSILON = 1e-4;
const RESIDUAL = 1e-3;

/** What `Look.temporal` = 1 remembers. */
const TIME_CONSTANT_MS = 150;

/** Below it a cut is a cut, and a division by zero. */
const HARDEST = 0.02;

export class Matting {
  readonly person: Dispatch[];
  readonly temporal: Dispatch[];
  readonly upsample: Dispatch[];
  readonly matte: Dispatch[];
  /** Where the network writes. */
  readonly output: GPUBuffer;
  readonly now: GPUBuffer;
  readonly steady: GPUBuffer;
  readonly means: GPUBuffer;
  readonly matted: GPUTexture;
  readonly #device: GPUDevice;
  readonly #before: GPUBuffer;
  readonly #remembering: GPUBuffer;
  readonly #guiding: GPUBuffer;
  readonly #cutting: GPUBuffer;
  readonly #mask: { height: number; width: number };

  constructor(memory: Memory, kernels: Kernels, frame: GPUTexture, pixels: GPUBuffer, how: Preprocessing, spec: PersonOutput) {
    const { device } = memory;
    const { height, width } = spec;
    const area = height * width;
    const photo = { height: frame.height, width: frame.width };
    this.#device = device;
    this.#mask = { height, width };
    this.output = memory.storage('network output', spec.classes * area);
    this.now = memory.storage('now', 4 * area);
    this.steady = memory.storage('steady', 4 * area);
    this.#before = memory.storage('before', 4 * area);
    const planes = memory.storage('planes', 4 * area);
    const weights = memory.storage('weights of planes', area);
    this.means = memory.storage('mean planes', 4 * area);
    this.matted = memory.texture('matted', photo.width, photo.height, 'rgba8unorm',
      GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_SRC);

    const layout = packed([u32(height), u32(width), u32(spec.classes), u32(spec.person),
      u32(how.size.height), u32(how.size.width), u32(Number(spec.logits))]);
    const region = seenRegion(photo, how);
    this.#remembering = memory.uniform('memory', packed([u32(height), u32(width), f32(0)]));
    this.#guiding = memory.uniform('guidance', packed([u32(height), u32(width), f32(1)]));
    const grid = memory.uniform('grid', packed([u32(height), u32(width), f32(EPSILON), f32(RESIDUAL)]));
    this.#cutting = memory.uniform('matte', packed([f32(width), f32(height), f32(region.left), f32(region.top),
      f32(region.width), f32(region.height), f32(1)]));

    const size = { height, width };
    this.person = [dispatch(device, kernels.person, [memory.uniform('output', layout), this.output, pixels, this.now], size)];
    this.temporal = [dispatch(device, kernels.temporal, [this.#remembering, this.now, this.#before, this.steady], size)];
    this.upsample = [
      dispatch(device, kernels.fit, [grid, this.steady, planes, weights], size),
      dispatch(device, kernels.smooth, [this.#guiding, planes, weights, this.steady, this.means], size),
    ];
    this.matte = [dispatch(device, kernels.matte, [this.#cutting, frame, this.means, this.matted], photo)];
  }

  look({ edge }: Look): void {
    this.#device.queue.writeBuffer(this.#guiding, 8, new Float32Array([edge.guidance]));
    this.#device.queue.writeBuffer(this.#cutting, 24, new Float32Array([Math.max(edge.softness, HARDEST)]));
  }

  /** `sinceMs`: the time since the frame before, or Infinity where there is none. */
  remember(strength: number, sinceMs: number): void {
    const keep = strength > 0 ? Math.exp(-sinceMs / (strength * TIME_CONSTANT_MS)) : 0;
    this.#device.queue.writeBuffer(this.#remembering, 8, new Float32Array([keep]));
  }

  /** After `temporal`: what is steady now is what was before. */
  encodeMemory(encoder: GPUCommandEncoder): void {
    encoder.copyBufferToBuffer(this.steady, 0, this.#before, 0, 16 * this.#mask.height * this.#mask.width);
  }
}
