/** What runs, where, why, and what it costs: shown as figures, and given as a report. */

import type { ColdStart, ModelFacts, Stats, StepName, StepReason } from '../engine/protocol';
import { made, part } from './dom';

const STEP_NAMES: Record<StepName, string> = {
  'webgpu-fp16': 'GPU, float16',
  'webgpu-fp32': 'GPU, float32',
  'wasm-gpu': 'CPU, shown by the GPU',
  'wasm-2d': 'CPU alone',
};

export const stepName = (step: StepName) => STEP_NAMES[step];
export const STEPS = Object.keys(STEP_NAMES) as StepName[];

const ms = (value: number | null | undefined) => (value == null ? '–' : `${value.toFixed(value < 10 ? 1 : 0)} ms`);
const bytes = (value: number) => (value < 1e6 ? `${Math.round(value / 1e3)} kB` : `${(value / 1e6).toFixed(2)} MB`);

/** Each way to run with its reason, best first. */
export function showLadder(steps: readonly StepReason[]): void {
  const rows = steps.map(({ step, precision, chosen, reason }) => {
    const row = made('li', '', chosen ? 'chosen' : '');
    if (chosen) row.setAttribute('aria-current', 'true');
    row.append(made('strong', precision === 'any' ? STEP_NAMES[step] : `${STEP_NAMES[step]}, ${precision}`), ` ${chosen ? '✓ ' : ''}${reason}`);
    return row;
  });
  part('ladder').replaceChildren(...rows);
}

/** One line below the picture. */
export function paceOf(stats: Stats, facts: ModelFacts | null): string {
  const where = facts === null ? '' : ` · ${STEP_NAMES[facts.step]}`;
  if (stats.fps === 0) return ''; // after one frame there is no pace yet
  return `${stats.fps.toFixed(stats.fps < 10 ? 1 : 0)} fps${where}`;
}

export function showFigures(facts: ModelFacts | null, cold: ColdStart | null, stats: Stats | null): void {
  const rows: [string, string][] = [];
  if (stats !== null) {
    rows.push(
      ['Frames a second', stats.fps.toFixed(1)],
      ['A frame', ms(stats.frameMs)],
      ['Dropped', `${stats.dropped} of ${stats.dropped + stats.shown}`],
      ['Picture', `${stats.frame.width}×${stats.frame.height}`],
    );
  }
  if (facts !== null) {
    rows.push(
      ['Model', `${facts.name}, ${facts.precision}, ${facts.input.height}×${facts.input.width}`],
      ['Runs on', STEP_NAMES[facts.step]],
      ['Runtime', `${facts.runtime} (${facts.build}), ${facts.threads} thread${facts.threads === 1 ? '' : 's'}`],
      ['GPU', adapterName(facts)],
      ['Self-check', `${facts.check.metric} ${facts.check.worst.toExponential(1)}, at most ${facts.check.tolerance.toExponential(1)}`],
    );
  }
  if (cold !== null) {
    rows.push(
      ['Download', `${bytes(cold.downloadedBytes)} in ${ms(cold.downloadMs)}`],
      ['Compile', ms(cold.compileMs)],
      ['First frame', ms(cold.firstFrameMs)],
    );
  }
  const cells = rows.map(([term, figure]) => {
    const cell = made('div');
    cell.append(made('dt', term), made('dd', figure));
    return cell;
  });
  part('figures').replaceChildren(...cells);
  showStages(stats, facts);
}

function adapterName({ adapter }: ModelFacts): string {
  if (adapter === null) return 'none';
  return adapter.software ? `${adapter.name} (software: its times are no device’s)` : adapter.name;
}

function showStages(stats: Stats | null, facts: ModelFacts | null): void {
  const stages = stats?.stages ?? null;
  const table = part('stages');
  table.hidden = stages === null;
  const note = part('timing-note');
  if (stages === null) {
    note.textContent = 'Times of the stages come after some thirty frames.';
    return;
  }
  const rows = Object.entries(stages.medianMs).map(([stage, median]) => {
    const row = made('tr');
    const name = made('th', stage);
    name.scope = 'row';
    const p90 = Object.entries(stages.p90Ms).find(([other]) => other === stage)?.[1];
    row.append(name, made('td', median.toFixed(2)), made('td', p90?.toFixed(2) ?? '–'));
    return row;
  });
  table.querySelector('tbody')?.replaceChildren(...rows);
  const waited = facts?.step === 'wasm-2d' ? 'Measured by the clock' : 'Measured by waiting for the GPU, which slows it';
  const clock = stages.clock === 'gpu' ? 'Measured by the GPU itself' : waited;
  note.textContent = `${clock}, over ${stages.frames} ${stages.frames === 1 ? 'frame' : 'frames'}${facts?.adapter?.software ? ', on a CPU that plays a GPU' : ''}.`;
}
