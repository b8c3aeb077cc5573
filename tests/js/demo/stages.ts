/** The pipeline, frame by frame, with everything that it computes read back: what tests compare with numpy. */

import { createDevice } from 'vitexport/vitexport/device.js';
import type { Preprocessing } from 'vitexport/manifest';
import { compileKernels, type Kernels } from '../../../web-demo/src/engine/gpu/kernels';
import { Pipeline, type Frame } from '../../../web-demo/src/engine/gpu/pipeline';
import type { PersonOutput } from '../../../web-demo/src/engine/network';
import type { Look } from '../../../web-demo/src/engine/protocol';

/** Arrays travel as base64: little-endian float32, or bytes. */
interface Job {
  preprocessing: Preprocessing;
  person: PersonOutput;
  look: Look;
  picture: string | null;
  frames: { png: string; as: 'video' | 'bitmap'; output: string | null; sinceMs: number }[];
  want: ('input' | 'now' | 'steady' | 'means' | 'matted' | 'blurred' | 'canvas')[];
}

let started: Promise<{ device: GPUDevice; kernels: Kernels }> | null = null;

async function start() {
  const gpu = await createDevice();
  if (typeof gpu === 'string') throw new Error(gpu);
  gpu.device.addEventListener('uncapturederror', ({ error }) => console.error(error.message));
  return { device: gpu.device, kernels: await compileKernels(gpu.device) };
}

export async function run(job: Job): Promise<Record<string, string>[]> {
  const { device, kernels } = await (started ??= start());
  const canvas = new OffscreenCanvas(1, 1);
  const context = canvas.getContext('webgpu');
  if (context === null) throw new Error('no canvas');
  context.configure({ device, format: kernels.format });
  let pipeline: Pipeline | null = null;
  const answers = [];
  for (const { png, as, output, sinceMs } of job.frames) {
    const bitmap = await picture(png);
    const size = { height: bitmap.height, width: bitmap.width };
    Object.assign(canvas, size);
    if (pipeline === null) {
      pipeline = new Pipeline(device, kernels, job, size, job.look);
      if (job.picture !== null) pipeline.scene.picture(await picture(job.picture));
    }
    const frame = as === 'bitmap' ? bitmap : video(bitmap);
    await pipeline.before(frame);
    frame.close();
    if (output !== null) device.queue.writeBuffer(pipeline.output, 0, bytes(output));
    await pipeline.after({ shown: context, shared: null }, sinceMs);
    const answer: Record<string, string> = {};
    // First, while the canvas still has what was drawn.
    if (job.want.includes('canvas')) answer['canvas'] = text(pixels(canvas));
    for (const name of job.want) {
      if (name !== 'canvas') answer[name] = text(await read(device, pipeline, name));
    }
    answers.push(answer);
  }
  pipeline?.destroy();
  return answers;
}

async function picture(png: string): Promise<ImageBitmap> {
  return createImageBitmap(new Blob([bytes(png)]), { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
}

function pixels(source: OffscreenCanvas | ImageBitmap): Uint8Array {
  const context = new OffscreenCanvas(source.width, source.height).getContext('2d');
  if (context === null) throw new Error('no 2D canvas');
  context.drawImage(source, 0, 0);
  return new Uint8Array(context.getImageData(0, 0, source.width, source.height).data);
}

function video(bitmap: ImageBitmap): Frame {
  const layout = { format: 'RGBA', codedWidth: bitmap.width, codedHeight: bitmap.height, timestamp: 0 } as const;
  return new VideoFrame(pixels(bitmap), { ...layout, colorSpace: { primaries: 'bt709', transfer: 'iec61966-2-1', matrix: 'rgb', fullRange: true } });
}

async function read(device: GPUDevice, { input, matting, scene }: Pipeline, name: Exclude<Job['want'][number], 'canvas'>): Promise<Uint8Array> {
  switch (name) {
    case 'input':
      return readBuffer(device, input);
    case 'matted':
      return readTexture(device, matting.matted, 4);
    case 'blurred':
      return readTexture(device, scene.blurred, 8);
    default:
      return readBuffer(device, matting[name]);
  }
}

async function readBuffer(device: GPUDevice, source: GPUBuffer): Promise<Uint8Array> {
  const staging = device.createBuffer({ size: source.size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(source, 0, staging, 0, source.size);
  return mapped(device, encoder, staging);
}

async function readTexture(device: GPUDevice, texture: GPUTexture, pixelBytes: number): Promise<Uint8Array> {
  const { width, height } = texture;
  const bytesPerRow = Math.ceil((width * pixelBytes) / 256) * 256;
  const staging = device.createBuffer({ size: bytesPerRow * height, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyTextureToBuffer({ texture }, { buffer: staging, bytesPerRow }, { width, height });
  const padded = await mapped(device, encoder, staging);
  const tight = new Uint8Array(width * height * pixelBytes);
  for (let y = 0; y < height; y++) tight.set(padded.subarray(y * bytesPerRow, y * bytesPerRow + width * pixelBytes), y * width * pixelBytes);
  return tight;
}

async function mapped(device: GPUDevice, encoder: GPUCommandEncoder, staging: GPUBuffer): Promise<Uint8Array> {
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const copy = new Uint8Array(staging.getMappedRange()).slice();
  staging.destroy();
  return copy;
}

const bytes = (base64: string): Uint8Array<ArrayBuffer> => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

function text(values: Uint8Array): string {
  let all = '';
  for (let i = 0; i < values.length; i += 4096) all += String.fromCharCode(...values.subarray(i, i + 4096));
  return btoa(all);
}
