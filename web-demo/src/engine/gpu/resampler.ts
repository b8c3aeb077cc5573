/** A frame on the GPU to the network's input, the same bytes that `vitexport.preprocess` makes of it in Python. */

import type { Preprocessing } from 'vitexport/manifest';
import { cropWindow, resizedSize } from 'vitexport/vitexport/preprocess.js';
import { taps } from 'vitexport/vitexport/resample.js';
import type { Size } from '../protocol';
import { dispatch, type Dispatch, type Kernels } from './kernels';
import { f32, packed, u32, type Memory } from './memory';

export interface Resampled {
  dispatches: Dispatch[];
  /** float32, 3 x height x width, normalised. */
  input: GPUBuffer;
  /** The bytes before normalisation, one word a pixel: red lowest. */
  pixels: GPUBuffer;
}

export function resampler(memory: Memory, kernels: Kernels, frame: GPUTexture, how: Preprocessing): Resampled {
  const { device } = memory;
  const photo: Size = { height: frame.height, width: frame.width };
  const resized = resizedSize(photo, how);
  const window = cropWindow(resized, how);
  const { height, width } = how.size;
  const across = taps(photo.width, resized.width, window.left, width, how.interpolation);
  const down = taps(photo.height, resized.height, window.top, height, how.interpolation);
  const first = down.starts[0] ?? 0;
  const lines = (down.starts.at(-1) ?? 0) + (down.counts.at(-1) ?? 0) - first;

  const narrowed = memory.storage('narrowed', lines * width);
  const input = memory.storage('network input', 3 * height * width);
  const pixels = memory.storage('pixels', height * width);
  const axis = (label: string, count: number, most: number, of: number) =>
    memory.uniform(label, packed([u32(count), u32(most), u32(first), u32(of)]));
  const normalisation = packed([...how.mean.map(f32), null, ...how.std.map(f32), null]);
  const dispatches = [
    dispatch(
      device,
      kernels.rows,
      [frame, axis('across', width, across.taps, lines), spans(memory, across), memory.table('weights across', buffered(across.weights)), narrowed],
      { width, height: lines },
    ),
    dispatch(
      device,
      kernels.columns,
      [
        axis('down', height, down.taps, width),
        spans(memory, down),
        memory.table('weights down', buffered(down.weights)),
        narrowed,
        memory.uniform('normalisation', normalisation),
        input,
        pixels,
      ],
      { width, height },
    ),
  ];
  return { dispatches, input, pixels };
}

/** Where each sum starts and how many pixels it has, side by side. */
function spans(memory: Memory, { starts, counts }: { starts: Int32Array; counts: Int32Array }): GPUBuffer {
  const pairs = new Int32Array(2 * starts.length);
  starts.forEach((start, i) => pairs.set([start, counts[i] ?? 0], 2 * i));
  return memory.table('spans', pairs);
}

const buffered = (values: Int32Array) => new Int32Array(values);
