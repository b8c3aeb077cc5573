/**
 * Chrome's tracks of frames in a window. The standard has the first for workers alone and calls the second
 * VideoTrackGenerator: https://w3c.github.io/mediacapture-transform/
 */

declare class MediaStreamTrackProcessor {
  constructor(init: { track: MediaStreamTrack; maxBufferSize?: number });
  readonly readable: ReadableStream<VideoFrame>;
}

declare class MediaStreamTrackGenerator extends MediaStreamTrack {
  constructor(init: { kind: 'video' });
  readonly writable: WritableStream<VideoFrame>;
}
