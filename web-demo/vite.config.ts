import { join } from 'node:path';
import { defineConfig } from 'vite';
import { budget } from './bundling/budget.ts';
import { hosting } from './bundling/hosting.ts';
import { offline } from './bundling/offline.ts';
import { headers } from './bundling/policy.ts';
import { policyMeta } from './bundling/policyMeta.ts';

const runtime = join(import.meta.dirname, '..', 'targets', 'vitexport_targets', 'webgpu', 'runtime');
const isolation = Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith('Cross-Origin')));

export default defineConfig({
  // Any address below any host: nothing the page asks for begins with a slash.
  base: './',
  // One page; an address that is not there is a 404, and never the page.
  appType: 'mpa',
  // Where prepare.py wrote, if not to its default.
  publicDir: process.env.VITEXPORT_DEMO_PUBLIC ?? 'public',
  resolve: {
    alias: [
      { find: /^vitexport$/, replacement: join(runtime, 'vitexport.js') },
      { find: /^vitexport\//, replacement: `${runtime}/` },
    ],
  },
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    // A fetched module is never inlined as data:, which the policy forbids.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { headers: isolation, fs: { allow: ['..'] } },
  preview: { headers },
  plugins: [policyMeta(), offline(), hosting(), budget()],
});
