/** The page without a network: its service worker, and a word when there is a newer version. */

/** Does nothing in development, where nothing was built to be kept. `onNewer` gets what changes to the newer version. */
export async function keepOffline(onNewer: (takeOver: () => void) => void): Promise<void> {
  if (!import.meta.env.PROD || !('serviceWorker' in navigator)) return;
  // Where storage is forbidden the page works all the same, with a network.
  const registration = await navigator.serviceWorker.register('./offline.js').catch(() => null);
  if (!registration) return;
  const offer = () => {
    const { waiting } = registration;
    if (waiting === null || navigator.serviceWorker.controller === null) return;
    onNewer(() => {
      navigator.serviceWorker.addEventListener('controllerchange', () => location.reload(), { once: true });
      waiting.postMessage({ takeOver: true });
    });
  };
  offer();
  registration.addEventListener('updatefound', () => registration.installing?.addEventListener('statechange', offer));
}

/**
 * Keeps what this visit fetched before the service worker was there; `urls` are the engine's. Resolves with whether the
 * next visit needs no network.
 */
export async function keepWhatWasFetched(urls: readonly string[]): Promise<boolean> {
  if (!import.meta.env.PROD || !('serviceWorker' in navigator)) return false;
  const { active } = await navigator.serviceWorker.ready;
  if (active === null) return false;
  const mine = performance.getEntriesByType('resource').map(({ name }) => name);
  const { port1, port2 } = new MessageChannel();
  const kept = new Promise<true>((resolve) => (port1.onmessage = () => resolve(true)));
  active.postMessage({ keep: [...new Set([...mine, ...urls])] }, [port2]);
  return kept;
}
