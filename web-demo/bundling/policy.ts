/** What the page may do, as headers: nothing leaves the device, and WebAssembly may have threads. */

/**
 * No other origin can be reached. `wasm-unsafe-eval` lets WebAssembly be compiled, and no script be evaluated;
 * onnxruntime-web starts its threads, and a dropped bundle's files are read, from blob: addresses.
 */
const directives: Record<string, string> = {
  'default-src': "'none'",
  'script-src': "'self' 'wasm-unsafe-eval'",
  'worker-src': "'self' blob:",
  'connect-src': "'self' blob:",
  'img-src': "'self' blob: data:",
  'media-src': "'self' blob:",
  'style-src': "'self'",
  'manifest-src': "'self'",
  'base-uri': "'none'",
  'form-action': "'none'",
};

const policy = (all: Record<string, string>) =>
  Object.entries(all)
    .map(([name, value]) => `${name} ${value}`)
    .join('; ');

/** For `<meta>`, where `frame-ancestors` is not heard: https://www.w3.org/TR/CSP3/#meta-element */
export const metaPolicy = policy(directives);

/** What the local server sends, and `_headers` asks of hosts that read it. */
export const headers: Record<string, string> = {
  'Content-Security-Policy': policy({ ...directives, 'frame-ancestors': "'none'" }),
  'Permissions-Policy': 'camera=(self), microphone=(), geolocation=(), display-capture=()',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  // A page in a group of its own gets SharedArrayBuffer, and with it WebAssembly threads.
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
};
