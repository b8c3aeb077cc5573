/** Counts what a frame must not do (read back), what it must not leave behind (buffers, textures), and that it is closed. */

const counts = { readbacks: 0, created: 0, destroyed: 0, closed: 0 };

function count(type: { prototype: object }, method: string, what: keyof typeof counts): void {
  const original: unknown = Reflect.get(type.prototype, method);
  if (typeof original !== 'function') throw new Error(`there is no ${method} to be counted`);
  Reflect.set(type.prototype, method, function (this: unknown, ...given: unknown[]) {
    counts[what]++;
    return Reflect.apply(original, this, given) as unknown;
  });
}

count(GPUBuffer, 'mapAsync', 'readbacks');
count(OffscreenCanvasRenderingContext2D, 'getImageData', 'readbacks');
count(WebGL2RenderingContext, 'readPixels', 'readbacks');
count(VideoFrame, 'copyTo', 'readbacks');
count(VideoFrame, 'close', 'closed');
count(GPUDevice, 'createBuffer', 'created');
count(GPUDevice, 'createTexture', 'created');
count(GPUBuffer, 'destroy', 'destroyed');
count(GPUTexture, 'destroy', 'destroyed');
if ('CanvasRenderingContext2D' in globalThis) count(CanvasRenderingContext2D, 'getImageData', 'readbacks');

export const counted = () => ({ ...counts });

// In a worker: whoever asks, is told.
addEventListener('message', ({ data }: MessageEvent<unknown>) => {
  if (data === 'counts') postMessage({ type: 'counts', counts: counted() });
});
