/** The service worker, with the build's own files written into it: offline/offline.js says what it does. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Plugin } from 'vite';
import { filesIn } from './files.ts';
import { readList } from './list.ts';

const SOURCE = join(import.meta.dirname, '..', 'offline', 'offline.js');

/** Emits `offline.js` beside `index.html`: a service worker sees what lies below it, and nothing else. */
export function offline(): Plugin {
  let publicDir = '';
  return {
    name: 'offline',
    apply: 'build',
    configResolved: (config) => {
      publicDir = config.publicDir;
    },
    generateBundle: {
      order: 'post',
      handler(_, bundle) {
        const list = readList(publicDir);
        const own = filesIn(publicDir).filter((file) => !/^(models|sample)\//.test(file));
        const built = Object.keys(bundle).filter((file) => file !== '_headers' && !file.endsWith('.map'));
        const shell = ['./', ...own, ...built.filter((file) => file !== 'index.html'), 'models/models.json'];
        const digest = createHash('sha256');
        for (const file of own) digest.update(readFileSync(join(publicDir, file)));
        for (const file of Object.values(bundle)) digest.update(file.type === 'chunk' ? file.code : file.source);
        digest.update(JSON.stringify(list));
        const names = {
          shell: `shell-${digest.digest('hex').slice(0, 16)}`,
          models: `models-${createHash('sha256').update(JSON.stringify(list)).digest('hex').slice(0, 16)}`,
        };
        const source = readFileSync(SOURCE, 'utf8')
          .replace('__CACHES__', JSON.stringify(names))
          .replace('__SHELL__', JSON.stringify(shell));
        this.emitFile({ type: 'asset', fileName: 'offline.js', source });
      },
    },
  };
}
