// node build.mjs WEB_DEMO OUT ENTRY...: the demo's modules as a browser takes them. What it imports lies in WEB_DEMO.
import { createRequire } from 'node:module';
import { basename, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [demo, out, ...entries] = process.argv.slice(2).map((path) => resolve(path));
const { build } = await import(pathToFileURL(createRequire(join(demo, 'package.json')).resolve('vite')).href);
const runtime = resolve(demo, '../targets/vitexport_targets/webgpu/runtime');

await build({
  root: demo,
  configFile: false,
  logLevel: 'error',
  resolve: {
    alias: [
      { find: /^vitexport$/, replacement: join(runtime, 'vitexport.js') },
      { find: /^vitexport\//, replacement: `${runtime}/` },
    ],
  },
  build: {
    target: 'es2022',
    outDir: out,
    emptyOutDir: true,
    minify: false,
    lib: { entry: Object.fromEntries(entries.map((path) => [basename(path, '.ts'), path])), formats: ['es'] },
    rollupOptions: { output: { entryFileNames: '[name].js' } },
  },
});
