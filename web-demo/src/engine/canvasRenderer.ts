/** Frames composited on a 2-D canvas, the network on WebAssembly: for browsers without WebGPU. No `filter`: Safari has none. */

import { preprocess, seenRegion } from 'vitexport/vitexport/preprocess.js';
import { personMask } from 'vitexport/vitexport/readout.js';
import { blurBehind } from './cpu/backdrop';
import { Memory } from './cpu/mask';
import { sizeOf, type Frame } from './gpu/pipeline';
import type { Network } from './network';
import type { Look, Size, StageName } from './protocol';
import type { OnSize, Renderer, Timed, Timing } from './renderer';
import { EngineError } from './trouble';

/** The most pixels a side that a frame is worked on with: reading more back takes longer than the network. */
const LONGEST = 640;

/** The blurred background's shorter side, and the standard deviation of `Look.blur` = 1 as a part of it. */
const SMALL_SIDE = 90;
const WIDEST = 0.05;
const TIME_CONSTANT_MS = 150;
const HARDEST = 0.02;

type Context = OffscreenCanvasRenderingContext2D;

export class CanvasRenderer implements Renderer {
  readonly kind = '2d';
  readonly network: Network;
  readonly #onSize: OnSize;
  #look: Look;
  #picture: ImageBitmap | null = null;
  #context: Context | null = null;
  #shared: Context | null = null;
  #work: Context = context2d({ height: 1, width: 1 }, { willReadFrequently: true });
  #person: Context = context2d({ height: 1, width: 1 });
  #small: Context = context2d({ height: 1, width: 1 }, { willReadFrequently: true });
  readonly #alpha: Context;
  #memory = new Memory();
  #mask: Float32Array | null = null;

  constructor(network: Network, look: Look, onSize: OnSize) {
    this.network = network;
    this.#look = look;
    this.#onSize = onSize;
    this.#alpha = context2d(network.person);
  }

  attach(canvas: OffscreenCanvas): boolean {
    this.#context = canvas.getContext('2d', { alpha: false });
    if (this.#context) Object.assign(canvas, this.#size);
    return this.#context !== null;
  }

  share(canvas: OffscreenCanvas | null): void {
    this.#shared = canvas?.getContext('2d', { alpha: false }) ?? null;
    if (this.#shared) Object.assign(this.#shared.canvas, this.#size);
  }

  look(look: Look): void {
    this.#look = look;
  }

  picture(bitmap: ImageBitmap | null): void {
    this.#picture = bitmap;
  }

  async show(frame: Frame, sinceMs: number, done: () => void, timing: Timing, onTimed: (timed: Timed) => void): Promise<void> {
    const stages: Partial<Record<StageName, number>> = {};
    let since = performance.now();
    const lap = (stage: StageName) => {
      const now = performance.now();
      stages[stage] = now - since;
      since = now;
    };
    this.#fit(sizeOf(frame));
    this.#work.drawImage(frame, 0, 0, this.#size.width, this.#size.height);
    done();
    lap('ingest');
    if (this.#look.mode !== 'off') {
      const { model, person, preprocessing } = this.network;
      const picture = this.#work.getImageData(0, 0, this.#size.width, this.#size.height);
      const input = preprocess(picture, preprocessing);
      lap('preprocess');
      const { outputs } = await model.runTensor(input);
      lap('inference');
      const output = outputs[person.name];
      const seen = output && personMask({ person: person.person, scores: person.logits ? 'logits' : 'probabilities' }, output);
      if (!seen) throw new EngineError('model-damaged', `The model has no output '${person.name}', which its manifest names.`);
      lap('person');
      const { temporal } = this.#look;
      const keep = temporal > 0 ? Math.exp(-sinceMs / (temporal * TIME_CONSTANT_MS)) : 0;
      this.#mask = this.#memory.steady(seen.mask, this.#colours(picture), person, keep);
      lap('temporal');
    }
    this.#draw();
    lap('composite');
    if (timing !== 'no') onTimed({ clock: 'wall', stages });
  }

  idle(): Promise<void> {
    return Promise.resolve();
  }

  dispose(): Promise<void> {
    return this.network.model.dispose();
  }

  get #size(): Size {
    return { height: this.#work.canvas.height, width: this.#work.canvas.width };
  }

  #fit(frame: Size): void {
    const scale = Math.min(1, LONGEST / Math.max(frame.height, frame.width));
    const size = { height: Math.round(frame.height * scale), width: Math.round(frame.width * scale) };
    if (size.height === this.#size.height && size.width === this.#size.width) return;
    const shrink = Math.min(1, SMALL_SIDE / Math.min(size.height, size.width));
    this.#work = context2d(size, { willReadFrequently: true, alpha: false }); // on black, as `decode` of the runtime puts it
    this.#work.globalCompositeOperation = 'copy';
    this.#person = context2d(size);
    this.#small = context2d({ height: Math.round(size.height * shrink), width: Math.round(size.width * shrink) }, { willReadFrequently: true });
    this.#memory = new Memory();
    this.#mask = null;
    for (const context of [this.#context, this.#shared]) if (context) Object.assign(context.canvas, size);
    this.#onSize(size);
  }

  /** What is seen in the middle of each of the mask's pixels. */
  #colours({ data, width: frameWidth, height: frameHeight }: ImageData): Float32Array {
    const { person, preprocessing } = this.network;
    const region = seenRegion({ height: frameHeight, width: frameWidth }, preprocessing);
    const colours = new Float32Array(3 * person.height * person.width);
    for (let y = 0; y < person.height; y++) {
      const row = Math.floor(region.top + ((y + 0.5) / person.height) * region.height);
      for (let x = 0; x < person.width; x++) {
        const column = Math.floor(region.left + ((x + 0.5) / person.width) * region.width);
        for (let c = 0; c < 3; c++) colours[3 * (y * person.width + x) + c] = (data[4 * (row * frameWidth + column) + c] ?? 0) / 255;
      }
    }
    return colours;
  }

  #draw(): void {
    const cut = this.#look.mode !== 'off' && this.#mask !== null;
    if (this.#mask !== null && cut) this.#cutOut(this.#mask);
    if (cut && this.#look.mode === 'blur') this.#blurBehind();
    if (this.#context) this.#compose(this.#context, cut, this.#look);
    if (this.#shared) this.#compose(this.#shared, cut, { mirror: false, compare: null });
  }

  /** `cut`: whether the person is cut out, and stands before something else. */
  #compose(context: Context, cut: boolean, { mirror, compare }: Pick<Look, 'mirror' | 'compare'>): void {
    const { width, height } = this.#size;
    context.setTransform(mirror ? -1 : 1, 0, 0, 1, mirror ? width : 0, 0);
    if (cut) {
      this.#drawBehind(context);
      context.drawImage(this.#person.canvas, 0, 0);
    } else {
      context.drawImage(this.#work.canvas, 0, 0);
    }
    if (compare === null) return;
    const left = compare * width;
    context.save();
    context.beginPath();
    context.rect(mirror ? width - left : 0, 0, left, height);
    context.clip();
    context.drawImage(this.#work.canvas, 0, 0);
    context.restore();
  }

  /** The person alone, or white in their shape, on `#person`. */
  #cutOut(mask: Float32Array): void {
    const { height, width } = this.network.person;
    const softness = Math.max(this.#look.edge.softness, HARDEST);
    const alpha = new ImageData(width, height);
    mask.forEach((value, i) => (alpha.data[4 * i + 3] = 255 * Math.min(Math.max((value - 0.5) / softness + 0.5, 0), 1)));
    this.#alpha.putImageData(alpha, 0, 0);
    const person = this.#person;
    person.globalCompositeOperation = 'copy';
    if (this.#look.mode === 'mask') {
      person.fillStyle = '#fff';
      person.fillRect(0, 0, this.#size.width, this.#size.height);
    } else {
      person.drawImage(this.#work.canvas, 0, 0);
    }
    person.globalCompositeOperation = 'destination-in';
    const region = seenRegion(this.#size, this.network.preprocessing);
    person.drawImage(this.#alpha.canvas, region.left, region.top, region.width, region.height);
  }

  /** The background, small and blurred, on `#small`. */
  #blurBehind(): void {
    const small = this.#small;
    const { width: across, height: down } = small.canvas;
    small.globalCompositeOperation = 'copy';
    small.drawImage(this.#person.canvas, 0, 0, across, down);
    const { data } = small.getImageData(0, 0, across, down);
    small.drawImage(this.#work.canvas, 0, 0, across, down);
    const picture = small.getImageData(0, 0, across, down);
    const person = Float32Array.from({ length: across * down }, (_, i) => (data[4 * i + 3] ?? 0) / 255);
    blurBehind(picture, person, this.#look.blur * WIDEST * Math.min(across, down));
    small.putImageData(picture, 0, 0);
  }

  #drawBehind(context: Context): void {
    const { mode, colour } = this.#look;
    const { width, height } = this.#size;
    if (mode === 'blur') {
      context.drawImage(this.#small.canvas, 0, 0, width, height);
    } else if (mode === 'picture' && this.#picture) {
      const cover = Math.max(width / this.#picture.width, height / this.#picture.height);
      const [w, h] = [this.#picture.width * cover, this.#picture.height * cover];
      context.drawImage(this.#picture, (width - w) / 2, (height - h) / 2, w, h);
    } else {
      const [red, green, blue] = mode === 'mask' ? [0, 0, 0] : colour.map((part) => Math.round(255 * part));
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      context.fillRect(0, 0, width, height);
    }
  }
}

function context2d({ width, height }: Size, settings: CanvasRenderingContext2DSettings = {}): Context {
  const context = new OffscreenCanvas(width, height).getContext('2d', settings);
  if (context === null) throw new EngineError('no-step', 'This browser refused a 2-D canvas.');
  return context;
}
