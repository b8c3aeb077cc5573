/** What goes wrong, as a sentence and a way on. */

import { BundleError, UnavailableError } from 'vitexport';
import type { Trouble, TroubleCode } from './protocol';

const WAYS_ON: Record<TroubleCode, string> = {
  'no-webgpu': 'Update the browser, or go on with WebAssembly.',
  'model-missing': 'Check the connection and load the model again, or choose another model.',
  'model-damaged': 'Reload the page, so that the file is fetched anew, or choose another model.',
  'model-unsuited': 'Choose a segmentation bundle that has a person class.',
  'no-step': 'Choose another model, or leave the choice of step and precision to the page.',
  'out-of-memory': 'Close other tabs, or choose a smaller model.',
  'device-lost': 'Nothing to do: the page starts the GPU again by itself.',
  'source-ended': 'Choose a source again.',
  internal: 'Reload the page. If it happens again, copy the report and file an issue.',
};

/** An error that knows its code. */
export class EngineError extends Error {
  override name = 'EngineError';
  readonly code: TroubleCode;

  constructor(code: TroubleCode, sentence: string, options?: ErrorOptions) {
    super(sentence, options);
    this.code = code;
  }
}

/** What engines say when there is no more memory; none of them has an error class of its own for it. */
const MEMORY = /out of memory|allocation failed|bad_alloc|could not allocate|exceeds? (the )?(max|limit)/i;

export function codeOf(thrown: unknown): TroubleCode {
  const known = knownIn(thrown);
  if (known) return known.code;
  if (MEMORY.test(sentenceOf(thrown))) return 'out-of-memory';
  if (thrown instanceof BundleError) return 'model-damaged';
  if (thrown instanceof UnavailableError) return 'no-step';
  return 'internal';
}

/** The loader wraps what a fetch of ours threw. */
function knownIn(thrown: unknown): EngineError | null {
  if (thrown instanceof EngineError) return thrown;
  return thrown instanceof Error && thrown.cause instanceof EngineError ? thrown.cause : null;
}

export function sentenceOf(thrown: unknown): string {
  const known = knownIn(thrown);
  if (known) return known.message;
  return thrown instanceof Error ? thrown.message : String(thrown);
}

export function troubleOf(thrown: unknown, recovers = false): Trouble {
  const code = codeOf(thrown);
  return { code, sentence: sentenceOf(thrown), wayOn: WAYS_ON[code], recovers };
}
