/** The camera: which there are, and its frames as a stream that the worker reads, where the browser has one. */

import type { Engine } from '../engine';
import { pushFrames, silentVideo, type LiveSource } from './source';

/** What a call shows. More pixels cost time, and the network sees 256 of them. */
const WANTED = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };

export interface Camera extends LiveSource {
  deviceId: string;
}

/** Raises the `DOMException` of `getUserMedia` where there is no camera to be had. `onEnd`: it was taken away. */
export async function openCamera(engine: Engine, deviceId: string | null, onEnd: () => void): Promise<Camera> {
  // Without https there are no media devices at all.
  if (!('mediaDevices' in navigator)) throw new DOMException('Not a secure context', 'SecurityError');
  const chosen = deviceId === null ? { facingMode: 'user' } : { deviceId: { exact: deviceId } };
  const stream = await navigator.mediaDevices.getUserMedia({ video: { ...WANTED, ...chosen }, audio: false });
  const [track] = stream.getVideoTracks();
  if (track === undefined) throw new DOMException('The camera has no picture', 'NotFoundError');
  track.addEventListener('ended', onEnd);
  const stopFrames = 'MediaStreamTrackProcessor' in globalThis ? streamFrames(engine, track) : await playFrames(engine, stream);
  return {
    name: track.label,
    kind: 'camera',
    deviceId: track.getSettings().deviceId ?? '',
    stop() {
      track.removeEventListener('ended', onEnd);
      stopFrames();
      track.stop();
    },
  };
}

/** Those that the browser names; before it was allowed once, they have no labels. */
export async function cameras(): Promise<MediaDeviceInfo[]> {
  if (!('mediaDevices' in navigator)) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices.filter(({ kind }) => kind === 'videoinput');
}

function streamFrames(engine: Engine, track: MediaStreamTrack): () => void {
  const { readable } = new MediaStreamTrackProcessor({ track });
  engine.send({ type: 'source', source: { from: 'stream', frames: readable } }, [readable]);
  return () => undefined;
}

async function playFrames(engine: Engine, stream: MediaStream): Promise<() => void> {
  const video = silentVideo();
  video.srcObject = stream;
  const stop = pushFrames(engine, video);
  await video.play();
  return () => {
    stop();
    video.srcObject = null;
  };
}
