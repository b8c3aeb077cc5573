/** Which provider took which node, from onnxruntime's own log: what `placement.py` reads of the same lines. */

/** @typedef {import('./report').Placement} Placement */

const CPU = 'CPUExecutionProvider';
const SPEAKER = 'VerifyEachNodeIsAssignedToAnEp]';
const PLACED = /(?:All nodes|Node\(s\)) placed on \[(\w+)\]\. Number of nodes: (\d+)$/;
const NODE = /^\w+ \(.*\)$/;

/** Offenders are named; of a network that falls back altogether the first will do. */
const MOST_NAMED = 100;

/**
 * @param {readonly string[]} lines
 * @returns {Placement | null} null where the log does not tell
 */
export function readPlacement(lines) {
  /** @type {Record<string, number>} */
  const nodes = {};
  /** @type {string[]} */
  const onCpu = [];
  let provider = '';
  for (const line of lines) {
    const at = line.indexOf(SPEAKER);
    if (at < 0) continue;
    const said = line.slice(at + SPEAKER.length).trim();
    const placed = PLACED.exec(said);
    if (placed) {
      provider = placed[1] ?? '';
      nodes[provider] = Number(placed[2]);
    } else if (provider === CPU && NODE.test(said)) onCpu.push(said);
  }
  const providers = Object.keys(nodes).length;
  return providers === 0 ? null : { nodes, fallback: providers > 1 ? onCpu.slice(0, MOST_NAMED) : [] };
}
