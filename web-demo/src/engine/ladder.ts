/** Which way to run: each is tried in order, held to the golden picture, timed, and taken or left for a stated reason. */

import type { Gpu, Progress } from 'vitexport';
import { buildFor } from 'vitexport/vitexport/ort.js';
import type { Bundle } from './bundle';
import { CanvasRenderer } from './canvasRenderer';
import { compileKernels, type Kernels } from './gpu/kernels';
import { GpuRenderer } from './gpuRenderer';
import { openNetwork } from './network';
import type { Look, StepName, StepReason, TroubleCode, Wishes } from './protocol';
import type { OnSize, Renderer } from './renderer';
import { codeOf, EngineError, sentenceOf } from './trouble';

/** One frame of a camera that gives 30 a second. */
const BUDGET_MS = 33;

/** To tell whether a step keeps the budget: odd, so that one hiccup does not decide. */
const REHEARSALS = 3;
const REHEARSAL_SIZE = { height: 480, width: 640 };

/** What goes wrong with every other step alike. */
const FILES_AT_FAULT: ReadonlySet<TroubleCode> = new Set(['model-missing', 'model-damaged', 'model-unsuited']);

export interface Climb {
  bundle: Bundle;
  wishes: Wishes;
  /** The device and its shaders, or why there is none. */
  gpu: Graphics | string;
  look: Look;
  onSize: OnSize;
  /** Empty; filled while climbing, so that a climb that fails has said why. */
  steps: StepReason[];
  onPhase: (phase: 'download' | 'compile' | 'check', progress?: Progress) => void;
}

export interface Graphics extends Gpu {
  kernels: Kernels;
}

export interface Top {
  step: StepName;
  renderer: Renderer;
}

interface Candidate {
  step: StepName;
  provider: 'webgpu' | 'wasm';
  precision: string | undefined;
  compositing: 'gpu' | '2d';
}

/** Throws `EngineError` where no step can run. */
export async function climb(how: Climb): Promise<Top> {
  const { wishes, steps } = how;
  const budget = wishes.budgetMs ?? BUDGET_MS;
  let best: { renderer: Renderer; reason: StepReason; medianMs: number } | null = null;
  let refusal: unknown = null;
  let usedGpu = false;
  for (const candidate of candidates(how)) {
    const { step } = candidate;
    const reason: StepReason = { step, precision: candidate.precision ?? 'any', chosen: false, reason: '', medianMs: null };
    steps.push(reason);
    const isWish = wishes.step === step;
    const obstacle = best && (best.medianMs <= budget) ? 'not needed: an earlier step keeps the budget' : obstacleOf(candidate, how);
    if (obstacle !== null) {
      reason.reason = obstacle;
      continue;
    }
    usedGpu ||= candidate.provider === 'webgpu';
    try {
      const renderer = await open(candidate, how, usedGpu);
      reason.precision = renderer.network.model.info.precision;
      if (isWish) {
        Object.assign(reason, { chosen: true, reason: 'asked for' });
        await best?.renderer.dispose();
        steps.push(...untried(how));
        return { step, renderer };
      }
      reason.medianMs = await rehearse(renderer).catch(async (error: unknown) => {
        await renderer.dispose().catch(ignore); // what went wrong first is what is told
        throw error;
      });
      const said = `${reason.medianMs.toFixed(1)} ms a frame`;
      reason.reason = reason.medianMs <= budget ? `${said} keeps the budget of ${budget} ms` : `${said} is more than the budget of ${budget} ms`;
      const slower = best !== null && best.medianMs <= reason.medianMs ? renderer : best?.renderer;
      if (best === null || best.medianMs > reason.medianMs) best = { renderer, reason, medianMs: reason.medianMs };
      await slower?.dispose();
    } catch (error) {
      refusal ??= error;
      reason.reason = sentenceOf(error).replace(/\.$/, '');
      if (FILES_AT_FAULT.has(codeOf(error))) {
        await best?.renderer.dispose();
        throw error;
      }
    }
  }
  if (best === null) throw nothingRuns(refusal, steps);
  best.reason.chosen = true;
  if (best.medianMs > budget) best.reason.reason += ', and no step is quicker';
  return { step: best.reason.step, renderer: best.renderer };
}

/** The wish first, then the order of the ladder. */
function candidates({ bundle, wishes }: Climb): Candidate[] {
  const variants = bundle.manifest.rungs[0]?.variants ?? [];
  const has = (precision: string) => variants.some((variant) => variant.precision === precision);
  const on = (step: StepName, provider: 'webgpu' | 'wasm', precision: string | undefined, compositing: 'gpu' | '2d') => ({ step, provider, precision, compositing });
  const asked = wishes.precision;
  const ladder: Candidate[] = [];
  if (has('fp16') && (asked ?? 'fp16') === 'fp16') ladder.push(on('webgpu-fp16', 'webgpu', 'fp16', 'gpu'));
  if (asked !== 'fp16') ladder.push(on('webgpu-fp32', 'webgpu', asked ?? 'fp32', 'gpu'));
  ladder.push(on('wasm-gpu', 'wasm', asked, 'gpu'), on('wasm-2d', 'wasm', asked, '2d'));
  return ladder.sort((a, b) => Number(b.step === wishes.step) - Number(a.step === wishes.step));
}

function obstacleOf({ step, provider, precision, compositing }: Candidate, { gpu, bundle, wishes }: Climb): string | null {
  if (compositing === '2d') return null;
  if (typeof gpu === 'string') return gpu;
  if (gpu.adapter.software && wishes.step !== step) return 'the adapter is software: a CPU plays the GPU, slower than WebAssembly uses it';
  if (provider === 'wasm') return null;
  const variant = bundle.manifest.rungs[0]?.variants.find((each) => each.precision === precision);
  const missing = variant?.requires.filter((feature) => !gpu.device.features.has(feature)) ?? [];
  return missing.length > 0 ? `the adapter has no ${missing.join(', ')}` : null;
}

function untried(how: Climb): StepReason[] {
  return candidates(how)
    .filter(({ step }) => !how.steps.some((each) => each.step === step))
    .map((candidate) => ({
      step: candidate.step,
      precision: candidate.precision ?? 'any',
      chosen: false,
      reason: obstacleOf(candidate, how) ?? 'another step was asked for',
      medianMs: null,
    }));
}

async function open({ provider, precision, compositing }: Candidate, how: Climb, usedGpu: boolean): Promise<Renderer> {
  const gpu = typeof how.gpu === 'string' ? null : how.gpu;
  how.onPhase('download');
  const network = await openNetwork(how.bundle, {
    provider,
    precision,
    device: provider === 'webgpu' ? (gpu?.device ?? null) : null,
    // What a GPU needs serves WebAssembly too: once it is loaded, nothing else is.
    build: provider === 'webgpu' || usedGpu ? buildFor(true) : undefined,
    threads: how.wishes.threads,
    onProgress: (progress) => how.onPhase(progress.loadedBytes < progress.totalBytes ? 'download' : 'compile', progress),
    onCheck: () => how.onPhase('check'),
  });
  return compositing === 'gpu' && gpu
    ? new GpuRenderer(gpu.device, gpu.kernels, network, how.look, how.onSize)
    : new CanvasRenderer(network, how.look, how.onSize);
}

/** Median milliseconds of a whole frame, on a canvas that nobody sees. */
async function rehearse(renderer: Renderer): Promise<number> {
  const { height, width } = REHEARSAL_SIZE;
  renderer.attach(new OffscreenCanvas(width, height));
  const frame = await createImageBitmap(new ImageData(width, height));
  const times: number[] = [];
  try {
    while (times.length <= REHEARSALS) {
      const started = performance.now();
      await renderer.show(frame, Infinity, ignore, 'no', ignore);
      await renderer.idle();
      times.push(performance.now() - started);
    }
  } finally {
    frame.close();
  }
  return median(times.slice(1)); // the first compiled the shaders
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** By linear interpolation, as numpy's. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (sorted.length - 1) * part;
  const low = sorted[Math.floor(at)] ?? NaN;
  return low + ((sorted[Math.ceil(at)] ?? low) - low) * (at - Math.floor(at));
}

function nothingRuns(refusal: unknown, steps: readonly StepReason[]): EngineError {
  const code = codeOf(refusal);
  const all = steps.map(({ step, reason }) => `${step}: ${reason}`).join('; ');
  return new EngineError(code === 'internal' ? 'no-step' : code, `This model runs in no way here. ${all}.`, { cause: refusal });
}

const ignore = () => undefined;

/** A device's shaders: once for all models that run on it. */
export async function graphicsOf(gpu: Gpu | string): Promise<Graphics | string> {
  if (typeof gpu === 'string') return gpu;
  try {
    return { ...gpu, kernels: await compileKernels(gpu.device) };
  } catch (error) {
    gpu.device.destroy();
    return `the GPU refused the page's shaders (${sentenceOf(error)})`;
  }
}
