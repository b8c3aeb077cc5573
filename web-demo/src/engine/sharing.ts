/** The canvas as a track for calls: `VideoTrackGenerator` where the worker has one, else the page's own generator. */

/** https://www.w3.org/TR/mediacapture-transform/#video-track-generator; Safari has it, Chrome not yet. */
interface VideoTrackGenerator {
  readonly writable: WritableStream<VideoFrame>;
  readonly track: MediaStreamTrack;
}

export class Sharing {
  /** What is shared is drawn here, beside the page's own canvas; null: nothing is. */
  canvas: OffscreenCanvas | null = null;
  #writer: WritableStreamDefaultWriter<VideoFrame> | null = null;

  get active(): boolean {
    return this.#writer !== null;
  }

  /** The track to give away, where it was made here. */
  start(writable: WritableStream<VideoFrame> | null): MediaStreamTrack | null {
    this.stop();
    if (writable) {
      this.#open(writable);
      return null;
    }
    const Generator = (globalThis as { VideoTrackGenerator?: new () => VideoTrackGenerator }).VideoTrackGenerator;
    if (Generator === undefined) return null;
    const generator = new Generator();
    this.#open(generator.writable);
    return generator.track;
  }

  /** Another canvas, for another renderer: one cannot change its context. */
  fresh(): OffscreenCanvas {
    this.canvas = new OffscreenCanvas(1, 1);
    return this.canvas;
  }

  /** What the canvas has now. Left out where the other side is still busy with an earlier frame. */
  give(timestampUs: number): void {
    const writer = this.#writer;
    if (writer === null || this.canvas === null || (writer.desiredSize ?? 0) <= 0) return;
    const frame = new VideoFrame(this.canvas, { timestamp: timestampUs });
    writer.write(frame).catch(() => {
      frame.close();
      this.stop();
    });
  }

  stop(): void {
    const writer = this.#writer;
    this.#writer = null;
    this.canvas = null;
    void writer?.close().catch(() => undefined);
  }

  #open(writable: WritableStream<VideoFrame>): void {
    this.#writer = writable.getWriter();
    this.fresh();
  }
}
