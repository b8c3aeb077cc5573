/** What the first visit downloads, compressed as a host would, held to a budget: over it, the build fails. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import type { Plugin } from 'vite';
import { filesIn } from './files';
import { readList } from './list';

const MB = 1e6;

/** Megabytes (10^6 bytes) of page, runtime and default model. Without JSPI the runtime is 1.6 times as large. */
const BUDGETS = { jspi: 4, asyncify: 5.3 } as const;

/** Hosts with a cap on the size of a file: Cloudflare Pages and Workers. */
const LARGEST_FILE = 25 * 2 ** 20;

/** What is asked for only when one chooses it, and so is no part of a first visit. */
const LATER = /^(models|sample)\/|^_headers$|\.map$/;

/**
 * Quality 9 of 11: what a host compresses ahead is at most this large, and 27 MB are done in seconds.
 * A file that was brotli's worst case would be sent as it is.
 */
function compressed(file: string): number {
  const content = readFileSync(file);
  const params = { [constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_SIZE_HINT]: content.length };
  return Math.min(brotliCompressSync(content, { params }).length, content.length);
}

/** The largest variant of the default model that one visitor downloads. */
function defaultModel(folder: string): string[] {
  const { models } = readList(folder);
  const [first] = models;
  if (first === undefined) throw new Error('models.json lists no model. Run: make web-demo');
  const manifest = `models/${first.bundle}manifest.json`;
  const { rungs } = JSON.parse(readFileSync(join(folder, manifest), 'utf8')) as { rungs: { variants: { files: string[] }[] }[] };
  const weigh = (files: string[]) => files.reduce((sum, file) => sum + readFileSync(join(folder, 'models', first.bundle, file)).length, 0);
  const variants = (rungs[0]?.variants ?? []).map(({ files }) => files).sort((a, b) => weigh(b) - weigh(a));
  return [manifest, ...(variants[0] ?? []).map((file) => `models/${first.bundle}${file}`)];
}

/** Prints what the first visit costs; throws where it is over budget, or a file over the hosts' cap. */
export function budget(): Plugin {
  let folder = '';
  return {
    name: 'first-visit-budget',
    apply: 'build',
    configResolved: (config) => {
      folder = join(config.root, config.build.outDir);
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
