/**
 * One frame's way through the GPU. Nothing comes back from it, and nothing is allocated for a frame but what importing a
 * video frame takes: buffers, textures and bindings are made when the frame's size changes.
 */

import type { Look, Size, StageName } from '../protocol';
import type { Network } from '../network';
import { dispatch, encode, type Dispatch, type Kernels } from './kernels';
import { Matting } from './matting';
import { Memory } from './memory';
import { resampler, type Resampled } from './resampler';
import { Scene } from './scene';
import type { PassName, Timer } from './timer';

export type Frame = VideoFrame | ImageBitmap;

export const sizeOf = (frame: Frame): Size =>
  frame instanceof ImageBitmap
    ? { height: frame.height, width: frame.width }
    : { height: frame.displayHeight, width: frame.displayWidth };

/** What is drawn on: the page's canvas, and one that calls get, if there is one. */
export interface Canvases {
  shown: GPUCanvasContext;
  shared: GPUCanvasContext | null;
}

/** A stage that is a pass of ours. */
interface Stage {
  name: PassName;
  encode: (encoder: GPUCommandEncoder) => void;
}

/** Called between stages where each is to be timed by itself: resolves when the GPU is done. */
export type Between = (stage: StageName) => Promise<void>;

export class Pipeline {
  readonly frame: Size;
  readonly resampled: Resampled;
  readonly matting: Matting;
  readonly scene: Scene;
  readonly texture: GPUTexture;
  readonly #device: GPUDevice;
  readonly #kernels: Kernels;
  readonly #memory: Memory;
  readonly #timer: Timer | null;
  readonly #sampler: GPUSampler;
  #look: Look;
  /** The stages that the last frame went through. */
  ran: ReadonlySet<StageName> = new Set();

  constructor(device: GPUDevice, kernels: Kernels, network: Pick<Network, 'preprocessing' | 'person'>, frame: Size, look: Look, timer: Timer | null = null) {
    this.frame = frame;
    this.#device = device;
    this.#kernels = kernels;
    this.#timer = timer;
    this.#look = look;
    this.#memory = new Memory(device);
    this.#sampler = device.createSampler();
    this.texture = this.#memory.texture('frame', frame.width, frame.height, 'rgba8unorm',
      GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST | GPUTextureUsage.COPY_SRC | GPUTextureUsage.RENDER_ATTACHMENT);
    const { preprocessing, person } = network;
    this.resampled = resampler(this.#memory, kernels, this.texture, preprocessing);
    this.matting = new Matting(this.#memory, kernels, this.texture, this.resampled.pixels, preprocessing, person);
    this.scene = new Scene(this.#memory, kernels, this.matting.matted, look);
    this.look(look);
  }

  /** Where the network reads and writes. */
  get input(): GPUBuffer {
    return this.resampled.input;
  }
  get output(): GPUBuffer {
    return this.matting.output;
  }

  /** Whether the person is looked for at all. */
  get needsMask(): boolean {
    return this.#look.mode !== 'off';
  }

  look(look: Look): void {
    this.#look = look;
    this.matting.look(look);
    this.scene.look(look);
  }

  /** The frame into the network's input. It may be closed when this resolves. */
  async before(frame: Frame, between?: Between): Promise<void> {
    const stages: Stage[] = [{ name: 'ingest', encode: (encoder) => this.#ingest(encoder, frame) }];
    if (this.needsMask) stages.push(this.#stage('preprocess', this.resampled.dispatches));
    this.ran = new Set(stages.map(({ name }) => name));
    await this.#submit(stages, between);
  }

  /** The network's output onto the canvases. `sinceMs`: since the frame before, Infinity where there is none. */
  async after({ shown, shared }: Canvases, sinceMs: number, between?: Between): Promise<void> {
    const { matting, scene } = this;
    const stages: Stage[] = [];
    if (this.needsMask) {
      matting.remember(this.#look.temporal, sinceMs);
      stages.push(this.#stage('person', matting.person), this.#stage('temporal', matting.temporal, (encoder) => matting.encodeMemory(encoder)));
      stages.push(this.#stage('upsample', matting.upsample));
    }
    stages.push(this.#stage('matte', matting.matte));
    if (scene.needsBlur) stages.push(this.#stage('shrink', scene.shrink), this.#stage('blur', scene.blur));
    const timer = this.#timer?.active ? this.#timer : null;
    stages.push({
      name: 'composite',
      encode: (encoder) => {
        scene.encodeComposite(encoder, shown, 'shown', this.#timer?.writes('composite'));
        if (shared) scene.encodeComposite(encoder, shared, 'shared');
        timer?.encodeResolve(encoder);
      },
    });
    this.ran = new Set([...this.ran, ...stages.map(({ name }) => name), ...(this.needsMask ? (['inference'] as const) : [])]);
    await this.#submit(stages, between);
  }

  destroy(): void {
    this.#memory.destroy();
  }

  #stage(name: PassName, dispatches: readonly Dispatch[], then?: (encoder: GPUCommandEncoder) => void): Stage {
    return {
      name,
      encode: (encoder) => {
        encode(encoder, name, dispatches, this.#timer?.writes(name));
        then?.(encoder);
      },
    };
  }

  #ingest(encoder: GPUCommandEncoder, frame: Frame): void {
    if (frame instanceof ImageBitmap) {
      // Times alpha: what is transparent is blended on black, as `decode` of the runtime does it.
      const texture = { texture: this.texture, premultipliedAlpha: true };
      this.#device.queue.copyExternalImageToTexture({ source: frame }, texture, { width: frame.width, height: frame.height });
      encode(encoder, 'ingest', [], this.#timer?.writes('ingest'));
      return;
    }
    const source = this.#device.importExternalTexture({ source: frame });
    const { ingest } = this.#kernels;
    encode(encoder, 'ingest', [dispatch(this.#device, ingest, [source, this.#sampler, this.texture], this.frame)], this.#timer?.writes('ingest'));
  }

  /** In one go; or, where each stage is timed by a clock on the wall, one by one. */
  async #submit(stages: readonly Stage[], between?: Between): Promise<void> {
    for (const group of between ? stages.map((stage) => [stage]) : [stages]) {
      const encoder = this.#device.createCommandEncoder();
      for (const stage of group) stage.encode(encoder);
      this.#device.queue.submit([encoder.finish()]);
      for (const { name } of between ? group : []) await between?.(name);
    }
  }
}
