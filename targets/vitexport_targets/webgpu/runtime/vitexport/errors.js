/** The bundle itself is wrong: a file is missing, damaged, or of a version this loader does not know. */
export class BundleError extends Error {
  /** @override */
  name = 'BundleError';
}

/** This browser cannot run what was asked for; another provider, precision or browser may. */
export class UnavailableError extends Error {
  /** @override */
  name = 'UnavailableError';
}

/**
 * The message of whatever was thrown.
 * @param {unknown} thrown
 */
export function sentence(thrown) {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
