/** What the first visit downloads, compressed as a host would, held to a budget: over it, the build fails. */

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import type { Plugin } from 'vite';
import type { Manifest } from 'vitexport/manifest';
import { filesIn } from './files.ts';
import { readList } from './list.ts';

const MB = 1e6;

/** Megabytes (10^6 bytes) of page, runtime and default model. Without JSPI the runtime is 1.6 times as large. */
const BUDGETS = { jspi: 4, asyncify: 5.3 } as const;

/** Hosts with a cap on the size of a file: Cloudflare Pages and Workers. */
const LARGEST_FILE = 25 * 2 ** 20;

/** What is asked for only when one chooses it, and so is no part of a first visit. */
const LATER = /^(models|sample)\/|^_headers$|\.map$/;

/** Quality 9 of 11 with the largest window: what a host compresses ahead is smaller, and 27 MB are done in seconds. */
function compressed(file: string): number {
  const content = readFileSync(file);
  const params = { [constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS };
  return Math.min(brotliCompressSync(content, { params }).length, content.length);
}

/** What a visitor downloads of the default model: its manifest, the largest variant, and the exam that it must pass. */
function defaultModel(folder: string): string[] {
  const [first] = readList(folder).models;
  if (first === undefined) throw new Error('models.json lists no model. Run: make web-demo');
  const bundle = `models/${first.bundle}`;
  const manifest = JSON.parse(readFileSync(join(folder, bundle, 'manifest.json'), 'utf8')) as Manifest;
  const [rung] = manifest.rungs;
  const [exam] = rung?.golden ?? [];
  if (rung === undefined || exam === undefined) throw new Error(`${bundle}manifest.json lists no size or no photo. Run: make web-demo`);
  const bytes = (files: string[]) => manifest.files.reduce((sum, file) => sum + (files.includes(file.path) ? file.bytes : 0), 0);
  const largest = rung.variants.map(({ files }) => files).reduce((a, b) => (bytes(b) > bytes(a) ? b : a));
  return ['manifest.json', ...largest, exam.input, ...Object.values(exam.outputs)].map((file) => bundle + file);
}

/** Prints what the first visit costs; throws where it is over budget, or a file over the hosts' cap. */
export function budget(): Plugin {
  let folder = '';
  return {
    name: 'first-visit-budget',
    apply: 'build',
    configResolved: (config) => {
      folder = resolve(config.root, config.build.outDir);
    },
    closeBundle() {
      const files = filesIn(folder);
      const tooLarge = files.filter((file) => readFileSync(join(folder, file)).length > LARGEST_FILE);
      if (tooLarge.length > 0) this.error(`${tooLarge.join(', ')}: over 25 MiB, which some hosts refuse.`);
      const page = files.filter((file) => !LATER.test(file));
      const common = [...page, 'models/models.json', ...defaultModel(folder)];
      const { builds } = readList(folder).runtime;
      for (const [name, limit] of Object.entries(BUDGETS)) {
        const build = builds[name];
        if (build === undefined) this.error(`models.json names no '${name}' build of the runtime. Run: make web-demo`);
        const runtime = [build.module, ...build.wasm].map((file) => `models/${file}`);
        const sizes = [...common, ...runtime].map((file) => compressed(join(folder, file)));
        const total = sizes.reduce((sum, bytes) => sum + bytes, 0) / MB;
        const said = `First visit with ${name}: ${total.toFixed(2)} MB brotli, of ${limit} MB`;
        if (total > limit) this.error(`${said}: over the budget.`);
        this.info(`${said}.`);
      }
    },
  };
}
