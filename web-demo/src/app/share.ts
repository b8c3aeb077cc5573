/** The composite as a video track, for calls and recordings. */

import type { Engine } from './engine';
import { save } from './report';

/** Pages without a track of frames of their own: the canvas gives one, as often as this a second. */
const CAPTURED_FPS = 30;

/**
 * A track that goes on while the engine runs. From the worker where it can make one, else from Chrome's generator, else
 * from the canvas.
 */
export async function openTrack(engine: Engine): Promise<MediaStreamTrack> {
  const generator = 'MediaStreamTrackGenerator' in globalThis ? new MediaStreamTrackGenerator({ kind: 'video' }) : null;
  const shared = engine.next('shared');
  if (generator === null) engine.send({ type: 'share' });
  else engine.send({ type: 'share', writable: generator.writable }, [generator.writable]);
  const { track } = await shared;
  const [captured] = track === null && generator === null ? engine.canvas.captureStream(CAPTURED_FPS).getVideoTracks() : [];
  const found = track ?? generator ?? captured;
  if (found === undefined) throw new Error('This browser gives no video track of a canvas. Try another one.');
  return found;
}

/** In the order of how well they keep a moving picture. */
const FORMATS = ['video/webm;codecs=vp9', 'video/webm', 'video/mp4'];

export class Recording {
  readonly #recorder: MediaRecorder;
  readonly #parts: Blob[] = [];

  constructor(track: MediaStreamTrack) {
    const mimeType = FORMATS.find((format) => MediaRecorder.isTypeSupported(format));
    this.#recorder = new MediaRecorder(new MediaStream([track]), mimeType === undefined ? {} : { mimeType });
    this.#recorder.addEventListener('dataavailable', ({ data }) => this.#parts.push(data));
    this.#recorder.start();
  }

  /** Ends it, and offers it as a file. */
  async finish(): Promise<void> {
    const stopped = new Promise((resolve) => this.#recorder.addEventListener('stop', resolve, { once: true }));
    this.#recorder.stop();
    await stopped;
    const type = this.#recorder.mimeType;
    save(new Blob(this.#parts, { type }), `background-blur.${type.includes('mp4') ? 'mp4' : 'webm'}`);
  }
}

/** What the canvas shows now, as a PNG. */
export async function saveStill({ canvas }: Engine): Promise<void> {
  const copy = document.createElement('canvas');
  copy.width = canvas.width;
  copy.height = canvas.height;
  copy.getContext('2d')?.drawImage(canvas, 0, 0);
  const content = await new Promise<Blob | null>((resolve) => copy.toBlob(resolve, 'image/png'));
  if (content === null) throw new Error('The picture could not be saved: this browser made no PNG of it.');
  save(content, 'background-blur.png');
}
