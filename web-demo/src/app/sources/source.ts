/** Where frames come from: a camera, a video, a picture, the sample. */

import type { Engine } from '../engine';

export interface LiveSource {
  /** For people: a camera's label, a file's name. */
  name: string;
  kind: 'camera' | 'video' | 'still' | 'sample';
  stop(): void;
}

/** A file or a device gave no frames; the message is a sentence for people. */
export class SourceError extends Error {
  override name = 'SourceError';
}

/**
 * Each new frame of a playing `<video>`, where the browser has no track of frames: Safari, Firefox, and files.
 * Returns what stops it.
 */
export function pushFrames(engine: Engine, video: HTMLVideoElement): () => void {
  engine.send({ type: 'source', source: { from: 'pushed' } });
  let stopped = false;
  const push = async (_: number, { mediaTime }: VideoFrameCallbackMetadata) => {
    if (stopped) return;
    const timestampUs = Math.round(mediaTime * 1e6);
    const frame = 'VideoFrame' in globalThis ? new VideoFrame(video, { timestamp: timestampUs }) : await createImageBitmap(video);
    engine.frame(frame, timestampUs);
    video.requestVideoFrameCallback(onFrame);
  };
  const onFrame = (now: number, metadata: VideoFrameCallbackMetadata) => void push(now, metadata);
  video.requestVideoFrameCallback(onFrame);
  return () => {
    stopped = true;
  };
}

/** An element that plays without a sound and without leaving the page's layout. */
export function silentVideo(): HTMLVideoElement {
  const video = document.createElement('video');
  video.muted = true;
  video.playsInline = true;
  return video;
}
