/** The files of a folder, as a web server would name them. */

import { readdirSync } from 'node:fs';
import { join, relative, sep } from 'node:path';

/** Paths relative to `folder`, with forward slashes, sorted. */
export function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .sort();
}
