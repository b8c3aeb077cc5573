/** The shaders, compiled: once a device, all at the same time, off the thread that asks. */

import blur from '../wgsl/blur.wgsl?raw';
import columns from '../wgsl/columns.wgsl?raw';
import composite from '../wgsl/composite.wgsl?raw';
import fit from '../wgsl/fit.wgsl?raw';
import ingest from '../wgsl/ingest.wgsl?raw';
import matte from '../wgsl/matte.wgsl?raw';
import person from '../wgsl/person.wgsl?raw';
import rows from '../wgsl/rows.wgsl?raw';
import shrink from '../wgsl/shrink.wgsl?raw';
import smooth from '../wgsl/smooth.wgsl?raw';
import temporal from '../wgsl/temporal.wgsl?raw';

const COMPUTE = { ingest, rows, columns, person, temporal, fit, smooth, matte, shrink, blur };

/** Every compute shader here covers its output with groups of this many invocations a side. */
const GROUP = 8;

export type KernelName = keyof typeof COMPUTE;
export type Kernels = Record<KernelName, GPUComputePipeline> & { composite: GPURenderPipeline; format: GPUTextureFormat };

export async function compileKernels(device: GPUDevice): Promise<Kernels> {
  const format = navigator.gpu.getPreferredCanvasFormat();
  const module = device.createShaderModule({ label: 'composite', code: composite });
  const [drawn, ...computed] = await Promise.all([
    device.createRenderPipelineAsync({
      label: 'composite',
      layout: 'auto',
      vertex: { module },
      fragment: { module, targets: [{ format }] },
    }),
    ...Object.entries(COMPUTE).map(async ([label, code]) => {
      const compute = { module: device.createShaderModule({ label, code }) };
      return [label, await device.createComputePipelineAsync({ label, layout: 'auto', compute })] as const;
    }),
  ]);
  return { ...(Object.fromEntries(computed) as Record<KernelName, GPUComputePipeline>), composite: drawn, format };
}

/** One dispatch: a kernel, what it is bound to, and how many invocations it needs. */
export interface Dispatch {
  pipeline: GPUComputePipeline;
  bindings: GPUBindGroup;
  width: number;
  height: number;
}

export function dispatch(
  device: GPUDevice,
  pipeline: GPUComputePipeline,
  resources: readonly (GPUBuffer | GPUTexture | GPUSampler | GPUExternalTexture)[],
  { width, height }: { width: number; height: number },
): Dispatch {
  return { pipeline, bindings: bound(device, pipeline, resources), width, height };
}

/** `resources` in the order of their `@binding`s. */
export function bound(
  device: GPUDevice,
  pipeline: GPUComputePipeline | GPURenderPipeline,
  resources: readonly (GPUBuffer | GPUTexture | GPUSampler | GPUExternalTexture)[],
): GPUBindGroup {
  return device.createBindGroup({
    label: pipeline.label,
    layout: pipeline.getBindGroupLayout(0),
    entries: resources.map((resource, binding) => ({ binding, resource: asBinding(resource) })),
  });
}

function asBinding(resource: GPUBuffer | GPUTexture | GPUSampler | GPUExternalTexture): GPUBindingResource {
  if (resource instanceof GPUBuffer) return { buffer: resource };
  return resource instanceof GPUTexture ? resource.createView() : resource;
}

export function encode(
  encoder: GPUCommandEncoder,
  label: string,
  dispatches: readonly Dispatch[],
  timestampWrites?: GPUComputePassTimestampWrites,
): void {
  const pass = encoder.beginComputePass({ label, ...(timestampWrites && { timestampWrites }) });
  for (const { pipeline, bindings, width, height } of dispatches) {
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindings);
    pass.dispatchWorkgroups(Math.ceil(width / GROUP), Math.ceil(height / GROUP));
  }
  pass.end();
}
