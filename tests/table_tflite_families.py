"""The rows that tests/test_tflite_families.py left for this tree, as the Markdown table of tflite/README.md."""

from __future__ import annotations

import json

from families import Family
from test_sizes_matrix import row_of
from test_tflite_families import CELLS

HEAD = ("", "native", "WASM", "WebGPU", "ops", "XNNPACK", "WebGPU")


def main() -> None:
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for cell in CELLS:
        (family,) = cell.values
        print(line(family))


def line(family: Family) -> str:
    """Drift by runtime, then how many operations there are and whose share they are; of WebGPU's, what was left out."""
    path = row_of(family)
    if not path.is_file():
        return f"| `{family.model}` | not run |"
    row = json.loads(path.read_text())
    drift, nodes = row["drift"], row["nodes"]
    native = max(drift["interpreter"], drift["compiled-model"])
    total = sum(nodes["interpreter"].values())
    shares = (share(nodes["interpreter"], "xnnpack"), share(nodes["webgpu"], "webgpu"))
    shown = (f"{native:.0e}", f"{drift['wasm']:.0e}", f"{drift['webgpu']:.0e}", str(total), *shares)
    return f"| `{family.model}` | {' | '.join(shown)} |"


def share(nodes: dict[str, int], provider: str) -> str:
    taken, total = nodes.get(provider, 0), sum(nodes.values())
    return "all" if taken == total else f"{100 * taken / total:.1f} %, {total - taken} left"


if __name__ == "__main__":
    main()
