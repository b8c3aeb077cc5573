/** Where a bundle's files are: on a server, or dropped onto the page. */

import { fetchManifest } from 'vitexport/vitexport/files.js';
import type { Builds } from 'vitexport';
import type { Manifest } from 'vitexport/manifest';
import type { ModelSource } from './protocol';
import { EngineError } from './trouble';

export interface Bundle {
  url: URL;
  manifest: Manifest;
  get: (address: URL) => Promise<Response>;
  /** Set where the bundle carries no runtime, or carries it where it cannot be imported from. */
  runtime: Builds | null;
}

/** No server has this name (RFC 2606); addresses below it stand for dropped files. */
const DROPPED = new URL('https://dropped.invalid/');

export async function openBundle(source: ModelSource, runtime: Builds | null): Promise<Bundle> {
  if (source.from === 'files') return openDropped(source.files, runtime);
  const url = new URL(source.url, globalThis.location.href);
  const get = kept(fetched);
  const { manifest } = await fetchManifest(url, get);
  const carried = Object.keys(manifest.runtime?.builds ?? {}).length > 0;
  return { url, manifest, get, runtime: carried ? null : runtime };
}

async function openDropped(files: readonly { path: string; file: Blob }[], runtime: Builds | null): Promise<Bundle> {
  const paths = files.map(({ path }) => path.replace(/^\/+/, ''));
  const found = paths.filter((path) => /(^|\/)manifest\.json$/.test(path)).sort((a, b) => a.length - b.length)[0];
  if (found === undefined) {
    throw new EngineError('model-missing', 'There is no manifest.json among these files. Drop the whole folder that vitexport wrote.');
  }
  const folder = found.slice(0, -'manifest.json'.length);
  const byPath = new Map(paths.map((path, i) => [path, files[i]?.file]));
  const get = ({ pathname }: URL) => {
    const path = decodeURIComponent(pathname.slice(1));
    const file = byPath.get(folder + path);
    return file
      ? Promise.resolve(new Response(file))
      : Promise.reject(new EngineError('model-missing', `'${path}' is not among the dropped files. Drop the whole folder that vitexport wrote.`));
  };
  const { manifest } = await fetchManifest(DROPPED, get);
  // Its own runtime cannot be imported: code comes from the page's own origin, or from nowhere.
  return { url: DROPPED, manifest, get, runtime };
}

async function fetched(address: URL): Promise<Response> {
  const response = await fetch(address).catch((cause: unknown) => {
    throw new EngineError('model-missing', `${address.href} cannot be reached.`, { cause });
  });
  if (!response.ok) throw new EngineError('model-missing', `${address.href} answered ${response.status}.`);
  return response;
}

/** The small files of a bundle, each fetched once: several steps are tried, and a lost GPU starts again from here. */
function kept(get: (address: URL) => Promise<Response>): (address: URL) => Promise<Response> {
  const bodies = new Map<string, Blob>();
  return async (address) => {
    const known = bodies.get(address.href);
    if (known) return new Response(known);
    const response = await get(address);
    const [mine, theirs] = response.body?.tee() ?? [];
    void new Response(mine).blob().then(
      (blob) => bodies.set(address.href, blob),
      () => undefined, // a body that breaks off is the reader's to report, and is fetched again
    );
    return new Response(theirs);
  };
}
