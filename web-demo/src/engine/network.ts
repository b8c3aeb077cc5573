/** The network of a bundle, opened in one way of running it: which output is the person, and whether it computes right. */

import { load, type LoadedModel, type Progress } from 'vitexport';
import type { Preprocessing, Rung } from 'vitexport/manifest';
import type { Bundle } from './bundle';
import { EngineError } from './trouble';

/** Where in the network's output the person is; all of it from the manifest. */
export interface PersonOutput {
  name: string;
  height: number;
  width: number;
  classes: number;
  /** Which plane. */
  person: number;
  /** Whether the planes are logits, of all classes or of the person alone; else probabilities. */
  logits: boolean;
}

export function personOutput({ outputs }: Rung): PersonOutput {
  for (const { name, shape, person, scores } of outputs) {
    if (person === null) continue;
    const [height = 0, width = 0] = shape.slice(-2);
    const classes = shape.slice(0, -2).reduce((a, b) => a * b, 1);
    return { name, height, width, classes, person, logits: scores === 'logits' };
  }
  throw new EngineError('model-unsuited', 'This bundle has no output with a person in it: no mask, and no class named person.');
}

export interface Opening {
  provider: 'webgpu' | 'wasm';
  precision: string | undefined;
  device: GPUDevice | null;
  /** The build of the runtime that is loaded already; it has WebAssembly's provider too. */
  build: 'jspi' | 'asyncify' | 'wasm' | undefined;
  threads: number | undefined;
  onProgress: (progress: Progress) => void;
  onCheck: () => void;
}

export interface Network {
  model: LoadedModel;
  preprocessing: Preprocessing;
  person: PersonOutput;
  check: { metric: string; worst: number; tolerance: number };
}

/** Throws where it cannot run so, and where its answer to the golden picture is not PyTorch's. */
export async function openNetwork(bundle: Bundle, how: Opening): Promise<Network> {
  const { provider, precision, device, build, threads, onProgress, onCheck } = how;
  const model = await load(bundle.url, {
    fetch: bundle.get,
    provider,
    onProgress,
    ...(precision !== undefined && { precision }),
    ...(device && { device }),
    ...(build && { build }),
    ...(threads !== undefined && { threads }),
    ...(bundle.runtime && { runtime: bundle.runtime }),
  });
  try {
    const { rung } = model.info;
    const person = personOutput(rung);
    if (rung.preprocessing.clip) throw new EngineError('model-unsuited', 'This network takes clips of several frames at once, which the page does not make.');
    onCheck();
    const { verdict, reason, metric, worst, tolerance } = await model.spotCheck();
    if (verdict === 'failed') throw new EngineError('no-step', `it computes something else here than PyTorch did: ${reason}`);
    return { model, preprocessing: rung.preprocessing, person, check: { metric, worst, tolerance } };
  } catch (error) {
    await model.dispose();
    throw error;
  }
}
