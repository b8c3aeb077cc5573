/** `?bench=300`: so many frames of the sample, which are the same everywhere, and their times by stage. */

import type { BenchResult } from '../engine/protocol';
import type { Engine } from './engine';
import { part } from './dom';

/** Numbers of frames that are worth asking for; less gives no p90, more fills memory with times. */
const LIMITS = { least: 10, most: 5000 };

/** From the page's address; null: no benchmark was asked for. */
export function askedFrames(parameters: URLSearchParams): number | null {
  const asked = Number.parseInt(parameters.get('bench') ?? '', 10);
  return Number.isNaN(asked) ? null : Math.min(LIMITS.most, Math.max(LIMITS.least, asked));
}

/** Runs on the source that is open. The result is shown, logged and returned. */
export async function bench(engine: Engine, frames: number): Promise<BenchResult> {
  part('bench').hidden = false;
  part('bench-status').textContent = `Timing ${frames} frames, each stage by itself …`;
  engine.send({ type: 'bench', frames });
  const { result } = await engine.next('bench');
  part('bench-status').textContent = summary(result);
  part('bench-report').textContent = `${table(result)}\n\n${JSON.stringify(result, null, 2)}`;
  console.log(JSON.stringify(result));
  document.body.dataset.bench = 'done';
  return result;
}

function summary({ frames, frameMs, report }: BenchResult): string {
  const model = report.model;
  const device = model?.adapter?.software ? ', on a CPU that plays a GPU: no device’s figures' : '';
  const where = model === null ? '' : ` ${model.name}, ${model.precision}, ${model.step}${device}.`;
  return `${frames} frames: p50 ${frameMs.p50.toFixed(2)} ms, p90 ${frameMs.p90.toFixed(2)} ms.${where}`;
}

function table({ stages }: BenchResult): string {
  const rows = Object.entries(stages.p50).map(([stage, p50]) => {
    const p90 = Object.entries(stages.p90).find(([other]) => other === stage)?.[1];
    return [stage, p50.toFixed(2), p90?.toFixed(2) ?? ''] as const;
  });
  const line = ([stage, p50, p90]: readonly [string, string, string]) => stage.padEnd(14) + p50.padStart(10) + p90.padStart(10);
  return [line([`stage (${stages.clock})`, 'p50 ms', 'p90 ms']), ...rows.map(line)].join('\n');
}
