/**
 * How long each stage takes on the GPU, by timestamp queries. Reading them back is a readback, if one of 160 bytes: it is
 * done only while somebody looks at the figures, once in a while, and never waited for by a frame.
 */

import type { StageName } from '../protocol';

/** The stages that are passes of ours, in the order they run in. `inference` is what lies between two of them. */
const PASSES = ['ingest', 'preprocess', 'person', 'temporal', 'upsample', 'matte', 'shrink', 'blur', 'composite'] as const;
export type PassName = (typeof PASSES)[number];

export class Timer {
  readonly #queries: GPUQuerySet;
  readonly #resolved: GPUBuffer;
  readonly #staging: GPUBuffer;
  #reading = false;
  /** Whether the passes of the frame in work are timed. */
  active = false;

  constructor(device: GPUDevice) {
    const count = 2 * PASSES.length;
    this.#queries = device.createQuerySet({ label: 'timer', type: 'timestamp', count });
    this.#resolved = device.createBuffer({ label: 'timer', size: 8 * count, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC });
    this.#staging = device.createBuffer({ label: 'timer', size: 8 * count, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  }

  /** False while the last reading is still under way. */
  get ready(): boolean {
    return !this.#reading;
  }

  writes(pass: PassName): GPUComputePassTimestampWrites | undefined {
    if (!this.active) return undefined;
    const at = 2 * PASSES.indexOf(pass);
    return { querySet: this.#queries, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 };
  }

  /** Into the last encoder of a timed frame. */
  encodeResolve(encoder: GPUCommandEncoder): void {
    encoder.resolveQuerySet(this.#queries, 0, 2 * PASSES.length, this.#resolved, 0);
    encoder.copyBufferToBuffer(this.#resolved, 0, this.#staging, 0, this.#staging.size);
  }

  /** Milliseconds of each stage in `ran`; after the encoder was submitted. */
  async read(ran: ReadonlySet<StageName>): Promise<Partial<Record<StageName, number>>> {
    this.#reading = true;
    try {
      await this.#staging.mapAsync(GPUMapMode.READ);
      const nanoseconds = new BigUint64Array(this.#staging.getMappedRange());
      const times: Partial<Record<StageName, number>> = {};
      const at = (i: number) => Number(nanoseconds[i] ?? 0n) / 1e6;
      PASSES.forEach((pass, i) => {
        if (ran.has(pass)) times[pass] = Math.max(0, at(2 * i + 1) - at(2 * i));
      });
      if (ran.has('inference')) times.inference = Math.max(0, at(2 * PASSES.indexOf('person')) - at(2 * PASSES.indexOf('preprocess') + 1));
      this.#staging.unmap();
      return times;
    } finally {
      this.#reading = false;
    }
  }

  destroy(): void {
    this.#queries.destroy();
    this.#resolved.destroy();
    this.#staging.destroy();
  }
}
