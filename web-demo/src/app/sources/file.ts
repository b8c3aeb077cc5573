/** A picture or a video of the visitor's, read from the file where it lies. */

import type { Engine } from '../engine';
import { SourceError, pushFrames, silentVideo, type LiveSource } from './source';

/** Raises `SourceError` where it is neither. */
export function openFile(engine: Engine, file: File): Promise<LiveSource> {
  return file.type.startsWith('video/') ? openVideo(engine, file) : openPicture(engine, file, file.name);
}

/** `name` is for people. A pasted picture has no name of its own. */
export async function openPicture(engine: Engine, picture: Blob, name: string): Promise<LiveSource> {
  const bitmap = await createImageBitmap(picture, { imageOrientation: 'from-image' }).catch((cause: unknown) => {
    throw new SourceError(`${name} cannot be read as a picture or a video. Try a PNG, JPEG, WebP, MP4 or WebM.`, { cause });
  });
  engine.send({ type: 'source', source: { from: 'still', bitmap } }, [bitmap]);
  return { name, kind: 'still', stop: () => undefined };
}

async function openVideo(engine: Engine, file: File): Promise<LiveSource> {
  const video = silentVideo();
  video.loop = true;
  const address = URL.createObjectURL(file);
  video.src = address;
  const stopFrames = pushFrames(engine, video);
  const stop = () => {
    stopFrames();
    video.removeAttribute('src');
    video.load();
    URL.revokeObjectURL(address);
  };
  try {
    await video.play();
  } catch (cause) {
    stop();
    throw new SourceError(`This browser cannot play ${file.name}. Try an MP4 (H.264) or a WebM (VP9).`, { cause });
  }
  return { name: file.name, kind: 'video', stop };
}
