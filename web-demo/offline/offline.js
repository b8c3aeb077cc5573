/**
 * Keeps the page for when there is no network: a service worker, whose constants the build fills in.
 *
 * A version is served whole: page, list, models and runtime come from the caches of one build until no tab shows it any
 * more, because a new list beside an old model would call the model damaged.
 */

/** @typedef {{shell: string, models: string}} CacheNames each ends in a digest of what it holds */

/** @type {ServiceWorkerGlobalScope} */
const worker = /** @type {any} */ (globalThis);
/** @type {CacheNames} */
const CACHES = JSON.parse('__CACHES__');
/** @type {string[]} */
const SHELL = JSON.parse('__SHELL__');

/** With these a page may have WebAssembly threads, also where its host cannot send headers. */
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

worker.addEventListener('install', (event) => {
  // `reload`: past the browser's own cache, which may hold files of the version before.
  const requests = SHELL.map((path) => new Request(path, { cache: 'reload' }));
  event.waitUntil(caches.open(mine(CACHES.shell)).then((cache) => cache.addAll(requests)));
});

worker.addEventListener('activate', (event) => {
  event.waitUntil(forgetOthers().then(() => worker.clients.claim()));
});

worker.addEventListener('message', (event) => {
  /** @type {{keep: string[]} | {takeOver: true}} */
  const asked = event.data;
  if ('takeOver' in asked) event.waitUntil(worker.skipWaiting());
  else event.waitUntil(keep(asked.keep).then(() => event.ports[0]?.postMessage('kept')));
});

worker.addEventListener('fetch', (event) => {
  const { method, url } = event.request;
  if (method === 'GET' && url.startsWith(worker.registration.scope)) event.respondWith(answer(event.request));
});

/*
 * `ignoreVary`, wherever something is looked up: hosts answer `Vary: Origin`, and a module is asked for with an Origin
 * while the cache was filled without one; the content is the same.
 */

/** Caches of this page alone: others on the same origin may have theirs. */
async function forgetOthers() {
  const current = Object.values(CACHES).map(mine);
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith(mine('')) && !current.includes(name));
  await Promise.all(old.map((name) => caches.delete(name)));
}

/** @param {string} name */
function mine(name) {
  return `${worker.registration.scope} ${name}`;
}

/** @param {Request} request */
async function answer(request) {
  const shell = await caches.open(mine(CACHES.shell));
  const held = await shell.match(request, { ignoreSearch: request.mode === 'navigate', ignoreVary: true });
  if (held !== undefined) return isolated(held);
  if (!chosen(request.url)) return fetch(request);
  const models = await caches.open(mine(CACHES.models));
  const kept = await models.match(request, { ignoreVary: true });
  if (kept !== undefined) return kept;
  const fresh = await fetch(request);
  if (fresh.status === 200) await models.put(request, fresh.clone());
  return fresh;
}

/**
 * Whether `url` is one of the files that a visitor gets by choosing a model or the sample.
 * @param {string} url
 */
function chosen(url) {
  return /^(models|sample)\//.test(url.slice(worker.registration.scope.length));
}

/**
 * What the first visit fetched before this worker was there.
 * @param {string[]} urls
 */
async function keep(urls) {
  const models = await caches.open(mine(CACHES.models));
  const shell = await caches.open(mine(CACHES.shell));
  const wanted = urls.filter((url) => url.startsWith(worker.registration.scope) && chosen(url));
  await Promise.all(
    wanted.map(async (url) => {
      const held = (await models.match(url, { ignoreVary: true })) ?? (await shell.match(url, { ignoreVary: true }));
      if (held === undefined) await models.add(url);
    }),
  );
}

/** @param {Response} response */
function isolated(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
