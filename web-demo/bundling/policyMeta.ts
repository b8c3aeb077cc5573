/** The content security policy inside the page: what a host that sends no headers is held to as well. */

import type { Plugin } from 'vite';
import { metaPolicy } from './policy.ts';

/** Only of a build: vite's development server injects styles into the page, which the policy forbids. */
export function policyMeta(): Plugin {
  return {
    name: 'policy-meta',
    apply: 'build',
    transformIndexHtml: () => [
      { tag: 'meta', attrs: { 'http-equiv': 'Content-Security-Policy', content: metaPolicy }, injectTo: 'head-prepend' },
    ],
  };
}
