"""Which provider took which node, read from onnxruntime's own log of session creation (verbose level).

::

    [V:onnxruntime:, ... VerifyEachNodeIsAssignedToAnEp] Node placements
    [V:onnxruntime:, ... VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1
    [V:onnxruntime:, ... VerifyEachNodeIsAssignedToAnEp]   Attention (attention)
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from vitexport.contract import Placement

CPU = "CPUExecutionProvider"

_SPEAKER = "VerifyEachNodeIsAssignedToAnEp]"
_PLACED = re.compile(r"(?:All nodes|Node\(s\)) placed on \[(\w+)\]\. Number of nodes: (\d+)$")
_NODE = re.compile(r"\w+ \(.*\)$")


def read_placement(log: Iterable[str]) -> Placement | None:
    """None where the log does not tell. Nodes on the CPU are a fallback only where another provider took some."""
    nodes: dict[str, int] = {}
    on_cpu: list[str] = []
    provider = ""
    for line in log:
        said = line.partition(_SPEAKER)[2].strip()
        if placed := _PLACED.match(said):
            provider = placed[1]
            nodes[provider] = int(placed[2])
        elif provider == CPU and _NODE.match(said):
            on_cpu.append(said)
    accelerated = len(nodes) > 1
    return Placement(nodes, tuple(on_cpu) if accelerated else ()) if nodes else None
