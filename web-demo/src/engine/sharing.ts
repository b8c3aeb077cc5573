/** The canvas as a track for calls: `VideoTrackGenerator` where the worker has one, else the page's own generator. */

/** https://www.w3.org/TR/mediacapture-transform/#video-track-generator; Safari has it, Chrome not yet. */
interface VideoTrackGenerator {
  readonly writable: WritableStream<VideoFrame>;
  readonly track: MediaStreamTrack;
}

export class Sharing {
  #writer: WritableStreamDefaultWriter<VideoFrame> | null = null;

  get active(): boolean {
    return this.#writer !== null;
  }

  /** The track to give away, where it was made here. */
  start(writable: WritableStream<VideoFrame> | null): MediaStreamTrack | null {
    this.stop();
    if (writable) {
      this.#writer = writable.getWriter();
      return null;
    }
    const Generator = (globalThis as { VideoTrackGenerator?: new () => VideoTrackGenerator }).VideoTrackGenerator;
    if (Generator === undefined) return null;
    const generator = new Generator();
    this.#writer = generator.writable.getWriter();
    return generator.track;
  }

  /** What the canvas shows now. Left out where the other side is still busy with an earlier frame. */
  give(canvas: OffscreenCanvas, timestampUs: number): void {
    const writer = this.#writer;
    if (writer === null || (writer.desiredSize ?? 0) <= 0) return;
    const frame = new VideoFrame(canvas, { timestamp: timestampUs });
    writer.write(frame).catch(() => {
      frame.close();
      this.stop();
    });
  }

  stop(): void {
    const writer = this.#writer;
    this.#writer = null;
    void writer?.close().catch(() => undefined);
  }
}
