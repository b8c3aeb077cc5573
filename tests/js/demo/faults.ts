/** What can be wrong with a machine, brought about in the worker that is asked for as `counted.js?FAULT&FAULT`. */

const faults: Record<string, () => void> = {
  'no-adapter': () => replace(GPU, 'requestAdapter', () => Promise.resolve(null)),

  /** The software adapter passes for a real one, which is timed like any other. */
  hardware: () => {
    for (const [name, value] of Object.entries({ architecture: 'real', description: '', isFallbackAdapter: false })) {
      Object.defineProperty(GPUAdapterInfo.prototype, name, { get: () => value });
    }
  },

  /** A GPU out of memory makes a texture that is not there, and says so by an event. */
  'gpu-memory': () => {
    const original = Reflect.get(GPUDevice.prototype, 'createTexture') as GPUDevice['createTexture'];
    replace(GPUDevice, 'createTexture', function (this: GPUDevice, descriptor: GPUTextureDescriptor) {
      if (descriptor.label === 'frame') {
        const error = new GPUOutOfMemoryError('Out of memory');
        setTimeout(() => this.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', { error })));
      }
      return Reflect.apply(original, this, [descriptor]);
    });
  },

  /** A driver that cannot bring pictures onto the GPU: the network computes, and no frame is shown. */
  'no-upload': () => {
    replace(GPUQueue, 'copyExternalImageToTexture', () => {
      throw new TypeError('This picture cannot be copied.');
    });
  },

  /** What Chromium throws where a tab has no address space left. */
  'wasm-memory': () => {
    WebAssembly.Memory = class {
      constructor() {
        throw new RangeError('WebAssembly.Memory(): could not allocate memory');
      }
    } as unknown as typeof WebAssembly.Memory;
  },
};

function replace(type: { prototype: object }, method: string, by: (...given: never[]) => unknown): void {
  Reflect.set(type.prototype, method, by);
}

for (const fault of new URLSearchParams(location.search).keys()) faults[fault]?.();

export {};
