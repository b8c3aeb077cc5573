/** What is behind the person, and both of them on the canvas. */

import type { Look, Mode, Size } from '../protocol';
import { bound, dispatch, type Dispatch, type Kernels } from './kernels';
import { f32, i32, packed, u32, type Memory } from './memory';

const MODES: readonly Mode[] = ['blur', 'picture', 'colour', 'mask', 'off'];

/** The blurred background's shorter side: enough for what is out of focus, and a small kernel blurs it widely. */
const SHRUNK_SIDE = 180;

/** Of the frame's shorter side: the standard deviation of `Look.blur` = 1. */
const WIDEST = 0.05;

/** Standard deviations that a Gaussian is cut off at: what is left out is 0.3 %. */
const REACH = 3;
const MOST_WEIGHTS = 64;

/** Who sees it: the page, as in a mirror and with the slider; or others, as it is. */
export type Audience = 'shown' | 'shared';
const UNTURNED: Pick<Look, 'compare' | 'mirror'> = { compare: null, mirror: false };

export class Scene {
  readonly shrink: Dispatch[];
  readonly blur: Dispatch[];
  readonly blurred: GPUTexture;
  readonly #device: GPUDevice;
  readonly #memory: Memory;
  readonly #kernels: Kernels;
  readonly #matted: GPUTexture;
  readonly #frame: Size;
  readonly #factor: number;
  readonly #weights: GPUBuffer;
  readonly #kernelSizes: GPUBuffer[];
  /** For the page, and for those on the other side of a call. */
  readonly #uniforms: Record<Audience, GPUBuffer>;
  readonly #sampler: GPUSampler;
  #picture: GPUTexture;
  #bindings: Record<Audience, GPUBindGroup>;
  #look: Look;

  constructor(memory: Memory, kernels: Kernels, matted: GPUTexture, look: Look) {
    const { device } = memory;
    this.#device = device;
    this.#memory = memory;
    this.#kernels = kernels;
    this.#matted = matted;
    this.#frame = { height: matted.height, width: matted.width };
    this.#look = look;
    const shorter = Math.min(matted.height, matted.width);
    this.#factor = Math.max(1, Math.round(shorter / SHRUNK_SIDE));
    const size = { height: Math.ceil(matted.height / this.#factor), width: Math.ceil(matted.width / this.#factor) };
    const texture = (label: string) =>
      memory.texture(label, size.width, size.height, 'rgba16float',
        GPUTextureUsage.STORAGE_BINDING | GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_SRC);
    const shrunk = texture('shrunk');
    const across = texture('blurred across');
    this.blurred = texture('blurred');
    this.#weights = memory.storage('weights of the blur', MOST_WEIGHTS);
    this.#kernelSizes = [[1, 0], [0, 1]].map(([x = 0, y = 0]) => memory.uniform('kernel', packed([i32(x), i32(y), i32(0)])));
    const scene = () => memory.uniform('scene', new ArrayBuffer(64));
    this.#uniforms = { shown: scene(), shared: scene() };
    this.#sampler = device.createSampler({ magFilter: 'linear', minFilter: 'linear' });
    this.#picture = this.#newPicture(1, 1);
    const [kernelAcross, kernelDown] = this.#kernelSizes as [GPUBuffer, GPUBuffer];
    this.shrink = [dispatch(device, kernels.shrink, [memory.uniform('factor', packed([u32(this.#factor)])), matted, shrunk], size)];
    this.blur = [
      dispatch(device, kernels.blur, [kernelAcross, this.#weights, shrunk, across], size),
      dispatch(device, kernels.blur, [kernelDown, this.#weights, across, this.blurred], size),
    ];
    this.#bindings = this.#bind();
    this.look(look);
  }

  /** Whether what is behind the person, or only its light, has to be blurred. */
  get needsBlur(): boolean {
    const { mode, lightWrap } = this.#look;
    return mode === 'blur' || (lightWrap > 0 && (mode === 'picture' || mode === 'colour'));
  }

  look(look: Look): void {
    this.#look = look;
    const { height, width } = this.#frame;
    const weights = gaussian((look.blur * WIDEST * Math.min(height, width)) / this.#factor);
    this.#device.queue.writeBuffer(this.#weights, 0, weights);
    for (const kernel of this.#kernelSizes) this.#device.queue.writeBuffer(kernel, 8, new Int32Array([weights.length - 1]));

    const picture = this.#picture;
    const cover = Math.min(picture.width / width, picture.height / height);
    const scale = { x: (width * cover) / picture.width, y: (height * cover) / picture.height };
    for (const audience of ['shown', 'shared'] as const) {
      const { compare, mirror } = audience === 'shown' ? look : UNTURNED;
      const scene = packed([
        ...look.colour.map(f32), u32(MODES.indexOf(look.mode)),
        f32(scale.x), f32(scale.y), f32((1 - scale.x) / 2), f32((1 - scale.y) / 2),
        f32(width / (this.blurred.width * this.#factor)), f32(height / (this.blurred.height * this.#factor)),
        f32(compare ?? 0), u32(Number(mirror)),
        f32(look.lightWrap),
      ]);
      this.#device.queue.writeBuffer(this.#uniforms[audience], 0, scene);
    }
  }

  /** Put a picture behind the person in mode `picture`. */
  picture(bitmap: ImageBitmap | null): void {
    this.#memory.free(this.#picture);
    this.#picture = this.#newPicture(bitmap?.width ?? 1, bitmap?.height ?? 1);
    if (bitmap) {
      const size = { width: bitmap.width, height: bitmap.height };
      this.#device.queue.copyExternalImageToTexture({ source: bitmap }, { texture: this.#picture }, size);
    }
    this.#bindings = this.#bind();
    this.look(this.#look);
  }

  encodeComposite(encoder: GPUCommandEncoder, canvas: GPUCanvasContext, audience: Audience, timestampWrites?: GPURenderPassTimestampWrites): void {
    const pass = encoder.beginRenderPass({
      label: 'composite',
      colorAttachments: [{ view: canvas.getCurrentTexture().createView(), loadOp: 'clear', storeOp: 'store' }],
      ...(timestampWrites && { timestampWrites }),
    });
    pass.setPipeline(this.#kernels.composite);
    pass.setBindGroup(0, this.#bindings[audience]);
    pass.draw(3);
    pass.end();
  }

  #newPicture(width: number, height: number): GPUTexture {
    return this.#memory.texture('picture', width, height, 'rgba8unorm',
      GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST | GPUTextureUsage.RENDER_ATTACHMENT);
  }

  #bind(): Record<Audience, GPUBindGroup> {
    const of = (audience: Audience) =>
      bound(this.#device, this.#kernels.composite, [this.#uniforms[audience], this.#matted, this.blurred, this.#picture, this.#sampler]);
    return { shown: of('shown'), shared: of('shared') };
  }
}

/** The centre's weight and those on one side of it, of a Gaussian of this standard deviation in pixels. */
export function gaussian(sigma: number): Float32Array<ArrayBuffer> {
  const radius = Math.min(Math.ceil(REACH * sigma), MOST_WEIGHTS - 1);
  const weights = Float32Array.from({ length: radius + 1 }, (_, i) => (i === 0 ? 1 : Math.exp((-i * i) / (2 * sigma * sigma))));
  const sum = weights.reduce((total, weight, i) => total + (i === 0 ? weight : 2 * weight), 0);
  return weights.map((weight) => weight / sum) as Float32Array<ArrayBuffer>;
}
