/** `_headers`: what Cloudflare Pages and Netlify read, so that a deployment there sends what the local server sends. */

import type { Plugin } from 'vite';
import { headers } from './policy.ts';

export function hosting(): Plugin {
  return {
    name: 'hosting-headers',
    apply: 'build',
    generateBundle() {
      const lines = Object.entries(headers).map(([name, value]) => `  ${name}: ${value}`);
      // Names under assets/ carry a hash of their content.
      const forever = '/assets/*\n  Cache-Control: public, max-age=31536000, immutable';
      this.emitFile({ type: 'asset', fileName: '_headers', source: `/*\n${lines.join('\n')}\n\n${forever}\n` });
    },
  };
}
