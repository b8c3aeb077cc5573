/** The page that asks onnxruntime-web which nodes of a graph its WebGPU provider takes, whatever the graph is. */

import { createDevice } from '../../runtime/vitexport/device.js';
import { buildFor, loadOrt } from '../../runtime/vitexport/ort.js';
import { request } from '../../runtime/vitexport/files.js';
import { caught, lines } from '../wire.js';

/** @typedef {import('../../runtime/manifest').RuntimeBuild} RuntimeBuild */
/** @typedef {{builds: Record<string, RuntimeBuild>, base: string}} Runtime */

/** What is said of where nodes go, of all that a verbose log says. */
const PLACES = /kernel not found in registries|VerifyEachNodeIsAssignedToAnEp/;

const device = createDevice();

const harness = {
  /**
   * The lines that the runtime logs while it makes a session of a graph. Whatever goes wrong after its nodes were
   * placed, such as a kernel that refuses its attributes, is in `refusal` beside them.
   * @param {Runtime} runtime
   * @param {string} graph where it is
   * @param {boolean} optimised as it is run, or as it is stored
   */
  place: ({ builds, base }, graph, optimised) =>
    caught(async () => {
      const ort = await loadOrt({ builds, base: new URL(base, globalThis.location.href) }, buildFor(true));
      const gpu = await device;
      if (typeof gpu === 'string') throw Object.assign(new Error(gpu), { name: 'UnavailableError' });
      const content = await (await request(new URL(graph, globalThis.location.href))).arrayBuffer();
      lines.length = 0;
      let refusal = '';
      try {
        const session = await ort.InferenceSession.create(new Uint8Array(content), {
          executionProviders: [{ name: 'webgpu', device: gpu.device }],
          graphOptimizationLevel: optimised ? 'all' : 'disabled',
          logSeverityLevel: 0,
        });
        await session.release();
      } catch (thrown) {
        refusal = String(thrown);
      }
      return { lines: lines.filter((line) => PLACES.test(line)), refusal };
    }),
};

Object.assign(globalThis, { harness });
