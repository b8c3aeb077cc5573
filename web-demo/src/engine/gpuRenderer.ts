/** Frames composited on the GPU; the network runs there too (nothing is read back), or on WebAssembly. */

import type { Kernels } from './gpu/kernels';
import { Pipeline, sizeOf, type Between, type Frame } from './gpu/pipeline';
import { Timer } from './gpu/timer';
import type { Network } from './network';
import type { Look, StageName } from './protocol';
import type { OnSize, Renderer, Timed, Timing } from './renderer';
import { EngineError } from './trouble';

export class GpuRenderer implements Renderer {
  readonly kind = 'gpu';
  readonly network: Network;
  readonly #device: GPUDevice;
  readonly #kernels: Kernels;
  readonly #timer: Timer | null;
  readonly #onSize: OnSize;
  #look: Look;
  #picture: ImageBitmap | null = null;
  #canvas: OffscreenCanvas | null = null;
  #context: GPUCanvasContext | null = null;
  #shared: GPUCanvasContext | null = null;
  #pipeline: Pipeline | null = null;
  /** WebAssembly's way in: the network's input, mapped. */
  #staging: GPUBuffer | null = null;
  #earlier: Promise<void> = Promise.resolve();

  constructor(device: GPUDevice, kernels: Kernels, network: Network, look: Look, onSize: OnSize) {
    this.network = network;
    this.#device = device;
    this.#kernels = kernels;
    this.#look = look;
    this.#onSize = onSize;
    this.#timer = device.features.has('timestamp-query') ? new Timer(device) : null;
  }

  attach(canvas: OffscreenCanvas): boolean {
    const context = this.#contextOf(canvas);
    if (context === null) return false;
    this.#canvas = canvas;
    this.#context = context;
    return true;
  }

  share(canvas: OffscreenCanvas | null): void {
    this.#shared = canvas && this.#contextOf(canvas);
  }

  look(look: Look): void {
    this.#look = look;
    this.#pipeline?.look(look);
  }

  picture(bitmap: ImageBitmap | null): void {
    this.#picture = bitmap;
    this.#pipeline?.scene.picture(bitmap);
  }

  async show(frame: Frame, sinceMs: number, done: () => void, timing: Timing, onTimed: (timed: Timed) => void): Promise<void> {
    // Nothing is read back, so nothing else would hold the queue to one frame ahead.
    await this.#earlier;
    const context = this.#context;
    if (context === null) return done();
    const pipeline = this.#fitted(frame);
    const timer = this.#timer?.ready && timing !== 'no' ? this.#timer : null;
    const wall = timing === 'each' && timer === null ? new Wall(this.#device.queue) : null;
    if (timer) timer.active = true;
    try {
      await pipeline.before(frame, wall?.between);
      done();
      if (pipeline.needsMask) await this.#infer(pipeline);
      if (pipeline.needsMask) await wall?.between('inference');
      await pipeline.after({ shown: context, shared: this.#shared }, sinceMs, wall?.between);
    } finally {
      if (timer) timer.active = false;
    }
    this.#earlier = this.#device.queue.onSubmittedWorkDone();
    if (wall) onTimed({ clock: 'wall', stages: wall.stages });
    if (timer) {
      const read = timer.read(pipeline.ran).then((stages) => onTimed({ clock: 'gpu', stages }), ignore);
      if (timing === 'each') await read;
    }
  }

  idle(): Promise<void> {
    return this.#device.queue.onSubmittedWorkDone();
  }

  async dispose(): Promise<void> {
    this.#pipeline?.destroy();
    this.#staging?.destroy();
    this.#timer?.destroy();
    await this.network.model.dispose();
  }

  #contextOf(canvas: OffscreenCanvas): GPUCanvasContext | null {
    const context = canvas.getContext('webgpu');
    context?.configure({ device: this.#device, format: this.#kernels.format, alphaMode: 'opaque' });
    if (context && this.#pipeline) Object.assign(canvas, this.#pipeline.frame);
    return context;
  }

  async #infer(pipeline: Pipeline): Promise<void> {
    const { model, person } = this.network;
    if (model.info.provider === 'webgpu') return model.runOnGpu(pipeline.input, { [person.name]: pipeline.output });
    const { outputs } = await model.runTensor(await this.#readInput(pipeline.input));
    const output = outputs[person.name];
    if (output === undefined) throw new EngineError('model-damaged', `The model has no output '${person.name}', which its manifest names.`);
    this.#device.queue.writeBuffer(pipeline.output, 0, new Float32Array(output.data));
  }

  /** The one readback of the step `wasm-gpu`. */
  async #readInput(input: GPUBuffer): Promise<Float32Array> {
    this.#staging ??= this.#device.createBuffer({
      label: 'input read back',
      size: input.size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(input, 0, this.#staging, 0, input.size);
    this.#device.queue.submit([encoder.finish()]);
    await this.#staging.mapAsync(GPUMapMode.READ);
    const values = new Float32Array(this.#staging.getMappedRange()).slice();
    this.#staging.unmap();
    return values;
  }

  /** The pipeline for frames of this size. */
  #fitted(frame: Frame): Pipeline {
    const size = sizeOf(frame);
    const known = this.#pipeline;
    if (known?.frame.height === size.height && known.frame.width === size.width) return known;
    known?.destroy();
    const pipeline = new Pipeline(this.#device, this.#kernels, this.network, size, this.#look, this.#timer);
    if (this.#picture) pipeline.scene.picture(this.#picture);
    this.#pipeline = pipeline;
    if (this.#canvas) Object.assign(this.#canvas, size);
    if (this.#shared) Object.assign(this.#shared.canvas, size);
    this.#onSize(size);
    return pipeline;
  }
}

/** Where the device has no timestamps: the queue is waited for after each stage. */
class Wall {
  readonly stages: Partial<Record<StageName, number>> = {};
  readonly #queue: GPUQueue;
  #since = performance.now();

  constructor(queue: GPUQueue) {
    this.#queue = queue;
  }

  readonly between: Between = async (stage) => {
    await this.#queue.onSubmittedWorkDone();
    const now = performance.now();
    this.stages[stage] = now - this.#since;
    this.#since = now;
  };
}

const ignore = () => undefined;
