/** `models.json` as the build reads it; `prepare.py` writes it. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ModelList } from '../src/app/list';

/** `folder`: the page's public folder, or what was built from it. Throws a sentence where there is none. */
export function readList(folder: string): ModelList {
  try {
    return JSON.parse(readFileSync(join(folder, 'models', 'models.json'), 'utf8')) as ModelList;
  } catch (cause) {
    throw new Error('There are no models to build the page with. Run: make web-demo, or python web-demo/prepare.py', { cause });
  }
}
