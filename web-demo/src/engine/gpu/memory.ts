/** Buffers and textures that live and die together, so that changing the frame's size or the model leaks none. */

export class Memory {
  readonly device: GPUDevice;
  readonly #owned = new Set<GPUBuffer | GPUTexture>();

  constructor(device: GPUDevice) {
    this.device = device;
  }

  buffer(label: string, bytes: number, usage: GPUBufferUsageFlags): GPUBuffer {
    return this.#own(this.device.createBuffer({ label, size: Math.max(4, Math.ceil(bytes / 4) * 4), usage }));
  }

  /** A storage buffer of `count` values of 4 bytes, which onnxruntime-web may bind too. */
  storage(label: string, count: number): GPUBuffer {
    return this.buffer(label, 4 * count, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST);
  }

  /** A storage buffer that holds `values`. */
  table(label: string, values: Int32Array<ArrayBuffer> | Float32Array<ArrayBuffer>): GPUBuffer {
    const buffer = this.buffer(label, values.byteLength, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST);
    this.device.queue.writeBuffer(buffer, 0, values);
    return buffer;
  }

  /** A uniform buffer that holds `words`, see `packed`. */
  uniform(label: string, words: ArrayBuffer): GPUBuffer {
    const buffer = this.buffer(label, words.byteLength, GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST);
    this.device.queue.writeBuffer(buffer, 0, words);
    return buffer;
  }

  texture(label: string, width: number, height: number, format: GPUTextureFormat, usage: GPUTextureUsageFlags): GPUTexture {
    return this.#own(this.device.createTexture({ label, size: { width, height }, format, usage }));
  }

  free(resource: GPUBuffer | GPUTexture): void {
    resource.destroy();
    this.#owned.delete(resource);
  }

  destroy(): void {
    for (const resource of this.#owned) resource.destroy();
    this.#owned.clear();
  }

  #own<T extends GPUBuffer | GPUTexture>(resource: T): T {
    this.#owned.add(resource);
    return resource;
  }
}

/**
 * A uniform block of 4-byte words in WGSL's layout; `null` is padding. The caller orders and pads the members as
 * https://www.w3.org/TR/WGSL/#alignment-and-size asks.
 */
export function packed(members: readonly ({ u32: number } | { i32: number } | { f32: number } | null)[]): ArrayBuffer {
  const words = new DataView(new ArrayBuffer(16 * Math.ceil(members.length / 4)));
  members.forEach((member, i) => {
    if (member === null) return;
    if ('u32' in member) words.setUint32(4 * i, member.u32, true);
    else if ('i32' in member) words.setInt32(4 * i, member.i32, true);
    else words.setFloat32(4 * i, member.f32, true);
  });
  return words.buffer as ArrayBuffer;
}

export const u32 = (value: number) => ({ u32: value });
export const i32 = (value: number) => ({ i32: value });
export const f32 = (value: number) => ({ f32: value });
