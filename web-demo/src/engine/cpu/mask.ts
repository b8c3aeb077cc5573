/** The mask's steadiness on the CPU, for browsers without WebGPU: the formulas of `temporal.wgsl`, at the mask's size. */

/** Where nothing moved, and where something did: see `temporal.wgsl`. */
const QUIET = [0.012, 0.03] as const;
const MOVED = [0.02, 0.06] as const;
const SLACK = 0.05;

export class Memory {
  #colours: Float32Array | null = null;
  #mask: Float32Array | null = null;

  /**
   * @param mask probabilities of this frame, overwritten by what is steady of them
   * @param colours what is seen at each pixel of the mask: red, green, blue in 0..1
   * @param keep of what was, 0..1: see `Matting.remember`
   */
  steady(mask: Float32Array, colours: Float32Array, { height, width }: { height: number; width: number }, keep: number): Float32Array {
    const before = this.#mask;
    const seen = this.#colours;
    const now = mask.slice();
    if (before?.length === mask.length && seen?.length === colours.length && keep > 0) {
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const { difference, low, high } = around(now, colours, seen, height, width, y, x);
          const slack = 1 + (SLACK - 1) * smoothstep(QUIET, difference);
          const i = y * width + x;
          const remembered = Math.min(Math.max(before[i] ?? 0, low - slack), high + slack);
          const kept = keep * (1 - smoothstep(MOVED, difference));
          mask[i] = (now[i] ?? 0) * (1 - kept) + remembered * kept;
        }
      }
    }
    this.#mask = mask.slice();
    this.#colours = colours;
    return mask;
  }
}

/** Over 3x3 pixels: the mean difference of colours, and the range of the mask. */
function around(mask: Float32Array, colours: Float32Array, seen: Float32Array, height: number, width: number, row: number, column: number) {
  let difference = 0;
  let low = 1;
  let high = 0;
  let count = 0;
  for (let y = Math.max(row - 1, 0); y < Math.min(row + 2, height); y++) {
    for (let x = Math.max(column - 1, 0); x < Math.min(column + 2, width); x++) {
      const i = y * width + x;
      for (let c = 3 * i; c < 3 * i + 3; c++) difference += Math.abs((colours[c] ?? 0) - (seen[c] ?? 0));
      low = Math.min(low, mask[i] ?? 0);
      high = Math.max(high, mask[i] ?? 0);
      count++;
    }
  }
  return { difference: difference / (3 * count), low, high };
}

function smoothstep([low, high]: readonly [number, number], value: number): number {
  const t = Math.min(Math.max((value - low) / (high - low), 0), 1);
  return t * t * (3 - 2 * t);
}
