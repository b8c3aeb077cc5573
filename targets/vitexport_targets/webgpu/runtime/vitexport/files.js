/** A bundle's files: fetched relative to its manifest, and held to the hashes written there. */

import { BundleError } from './errors.js';

/** @typedef {import('../manifest').Manifest} Manifest */
/** @typedef {{file: string, loadedBytes: number, totalBytes: number}} Progress */
/** Gives what lies at an address, as the global `fetch` does. @typedef {(address: URL) => Promise<Response>} Fetch */
/** A bundle: its manifest, where its files lie, and how they are had. @typedef {{manifest: Manifest, base: URL, get: Fetch}} Source */

export const SCHEMA_VERSION = 1;

/** Hashing needs a secure context; on plain http from another host, browsers take it away. */
export const canVerify = () => globalThis.crypto?.subtle !== undefined;

/**
 * @param {URL} url of the bundle's folder (ending in `/`) or of its manifest
 * @param {Fetch} [get]
 * @returns {Promise<Source>}
 */
export async function fetchManifest(url, get = (address) => fetch(address)) {
  const address = url.pathname.endsWith('/') ? new URL('manifest.json', url) : url;
  const response = await request(address, get);
  /** @type {unknown} */
  const parsed = await response.json().catch((/** @type {unknown} */ cause) => {
    throw new BundleError(`${address.href} is not JSON. Is it a vitexport bundle's manifest?`, { cause });
  });
  assertManifest(parsed, address);
  return { manifest: parsed, base: new URL('.', address), get };
}

/**
 * @param {unknown} value
 * @param {URL} address
 * @returns {asserts value is Manifest}
 */
function assertManifest(value, address) {
  const version = typeof value === 'object' && value !== null && 'schema_version' in value ? value.schema_version : undefined;
  if (version !== SCHEMA_VERSION) {
    throw new BundleError(
      `${address.href} has schema version ${String(version)}, and this loader reads ${SCHEMA_VERSION}. ` +
        'Use the vitexport.js that lies beside that manifest, or export the model again.',
    );
  }
}

/**
 * The bytes of a file named in the manifest.
 * @param {Source} source
 * @param {string} path
 * @param {(progress: Progress) => void} [onProgress]
 * @returns {Promise<Uint8Array<ArrayBuffer>>} throws `BundleError` where they are not those that were exported
 */
export async function fetchVerified({ manifest, base, get }, path, onProgress) {
  const entry = manifest.files.find((file) => file.path === path);
  if (entry === undefined) throw new BundleError(`The manifest does not list '${path}'. Export the model again.`);
  const bytes = await read(await request(new URL(path, base), get), entry.bytes, (loadedBytes) =>
    onProgress?.({ file: path, loadedBytes, totalBytes: entry.bytes }),
  );
  if (bytes.byteLength !== entry.bytes) {
    throw new BundleError(`'${path}' has ${bytes.byteLength} bytes instead of ${entry.bytes}. Copy the bundle again.`);
  }
  if (canVerify() && (await sha256(bytes)) !== entry.sha256) {
    throw new BundleError(`'${path}' is damaged: its SHA-256 is not the one in manifest.json. Copy the bundle again.`);
  }
  return bytes;
}

/**
 * @param {URL} address
 * @param {Fetch} [get]
 */
export async function request(address, get = (url) => fetch(url)) {
  const response = await get(address).catch((/** @type {unknown} */ cause) => {
    throw new BundleError(`${address.href} cannot be reached. Is the server running, and may this page fetch from it?`, { cause });
  });
  if (!response.ok) throw new BundleError(`${address.href} answered ${response.status}. Is the bundle complete?`);
  return response;
}

/**
 * A body, read chunk by chunk into one buffer of the expected size.
 * @param {Response} response
 * @param {number} expectedBytes
 * @param {(loadedBytes: number) => void} onLoaded
 * @returns {Promise<Uint8Array<ArrayBuffer>>}
 */
async function read(response, expectedBytes, onLoaded) {
  if (response.body === null) return new Uint8Array(await response.arrayBuffer());
  const bytes = new Uint8Array(expectedBytes);
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return bytes.subarray(0, loaded);
    if (loaded + value.byteLength > expectedBytes) {
      await reader.cancel();
      throw new BundleError(`${response.url} is longer than the ${expectedBytes} bytes in manifest.json. Copy the bundle again.`);
    }
    bytes.set(value, loaded);
    loaded += value.byteLength;
    onLoaded(loaded);
  }
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
