/** The sample: one photo under a camera that wanders. Frame i is the same on every machine, which a benchmark needs. */

import type { Engine } from '../engine';
import { SourceError, type LiveSource } from './source';

export const CLIP: { width: number; height: number; framesPerSecond: number } = { width: 640, height: 480, framesPerSecond: 30 };

/** One period of the wandering, in frames: it begins where it ends. */
const PERIOD = 240;

/** Of the photo's smaller scale to cover the frame: there must be something to wander over. */
const ZOOM = 1.15;

/** Raises `SourceError` where the photo was not deployed. `still`: for visitors who want nothing to move. */
export async function openSample(engine: Engine, { still }: { still: boolean }): Promise<LiveSource> {
  const { photo, credit } = await fetchSample();
  const canvas = new OffscreenCanvas(CLIP.width, CLIP.height);
  const context = canvas.getContext('2d');
  if (context === null) throw new SourceError('This browser draws no pictures. Try another one.');
  const name = `Sample: ${credit}`;
  if (still) {
    drawFrame(context, photo, 0);
    const bitmap = canvas.transferToImageBitmap();
    engine.send({ type: 'source', source: { from: 'still', bitmap } }, [bitmap]);
    return { name, kind: 'sample', stop: () => undefined };
  }
  engine.send({ type: 'source', source: { from: 'pushed' } });
  let index = 0;
  const timer = setInterval(() => {
    drawFrame(context, photo, index);
    const timestampUs = Math.round((index * 1e6) / CLIP.framesPerSecond);
    const frame = 'VideoFrame' in globalThis ? new VideoFrame(canvas, { timestamp: timestampUs }) : canvas.transferToImageBitmap();
    engine.frame(frame, timestampUs);
    index += 1;
  }, 1000 / CLIP.framesPerSecond);
  return { name, kind: 'sample', stop: () => clearInterval(timer) };
}

async function fetchSample(): Promise<{ photo: ImageBitmap; credit: string }> {
  try {
    const [picture, about] = await Promise.all([fetch('./sample/photo.webp'), fetch('./sample/photo.json')]);
    const { credit } = (await about.json()) as { credit: string };
    return { photo: await createImageBitmap(await picture.blob()), credit };
  } catch (cause) {
    throw new SourceError('The sample is not on this server. Use your camera, a picture or a video.', { cause });
  }
}

/** `index`: of the frame, from 0. The photo covers the frame, a little larger, and circles once in `PERIOD` frames. */
function drawFrame(context: OffscreenCanvasRenderingContext2D, photo: ImageBitmap, index: number): void {
  const { width, height } = CLIP;
  const scale = Math.max(width / photo.width, height / photo.height) * ZOOM;
  const [w, h] = [photo.width * scale, photo.height * scale];
  const angle = (2 * Math.PI * index) / PERIOD;
  const x = ((width - w) * (1 + Math.sin(angle))) / 2;
  const y = (height - h) * 0.12 * (1 + Math.sin(2 * angle));
  context.drawImage(photo, x, y, w, h);
}
