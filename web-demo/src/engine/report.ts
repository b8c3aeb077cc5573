/** What is known of the model in use, for the page's instruments and for the report. */

import type { Gpu } from 'vitexport';
import type { Top } from './ladder';
import type { ModelFacts } from './protocol';

/** `gpu`: what composites, where the network itself runs on WebAssembly. */
export function factsOf({ step, renderer }: Top, gpu: Gpu | null): ModelFacts {
  const { model, person, check } = renderer.network;
  const { manifest, rung, precision, provider, runtime, build, threads } = model.info;
  const adapter = model.info.adapter ?? (renderer.kind === 'gpu' ? (gpu?.adapter ?? null) : null);
  return {
    name: manifest.model,
    licence: manifest.provenance.licence,
    origin: manifest.provenance.origin,
    precision,
    provider,
    step,
    input: rung.preprocessing.size,
    mask: { height: person.height, width: person.width },
    runtime,
    build,
    threads,
    adapter: adapter && {
      name: [adapter.vendor, adapter.architecture, adapter.device || adapter.description].filter(Boolean).join(' '),
      software: adapter.software,
      features: adapter.features,
    },
    check,
  };
}
