/** What the page's address asks for, as `?source=sample&model=selfie&step=webgpu-fp32&precision=fp32&bench=300`. */

import type { StepName } from '../engine/protocol';
import { askedFrames } from './bench';
import { STEPS } from './instruments';

export interface Asked {
  source: 'camera' | 'sample' | null;
  model: string | null;
  step: StepName | null;
  precision: string | null;
  benchFrames: number | null;
}

/** Unknown values are left out: an address is no place for a mistake to hide the page. */
export function asked(parameters: URLSearchParams): Asked {
  const source = parameters.get('source');
  const benchFrames = askedFrames(parameters);
  return {
    source: source === 'camera' || source === 'sample' ? source : benchFrames === null ? null : 'sample',
    model: parameters.get('model'),
    step: STEPS.find((step) => step === parameters.get('step')) ?? null,
    precision: parameters.get('precision'),
    benchFrames,
  };
}
