/**
 * What a page that Python drives answers with: values, or the error that came instead. Tensors cross as base64, which
 * is what a browser's automation protocol can carry.
 */

/** @typedef {{error: {name: string, message: string}}} Failure */

/** All that was said on the console. */
/** @type {string[]} */
export const lines = [];

// WebAssembly takes hold of these functions when it starts, so they are replaced before.
for (const level of /** @type {const} */ (['debug', 'log', 'info', 'warn', 'error'])) {
  console[level] = (...said) => void lines.push(said.join(' '));
}

/**
 * @template T
 * @param {() => Promise<T>} job
 * @returns {Promise<T | Failure>}
 */
export async function caught(job) {
  try {
    return await job();
  } catch (thrown) {
    const { name, message } = thrown instanceof Error ? thrown : new Error(String(thrown));
    return { error: { name, message } };
  }
}

/** @param {string} text */
export function unpack(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
}

/** @param {ArrayBufferView} values */
export function pack(values) {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const chunks = [];
  // String.fromCharCode takes its characters as arguments, of which there may not be many.
  for (let i = 0; i < bytes.length; i += 0x8000) chunks.push(String.fromCharCode(...bytes.subarray(i, i + 0x8000)));
  return btoa(chunks.join(''));
}
