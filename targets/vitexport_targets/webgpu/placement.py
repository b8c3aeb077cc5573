"""Which provider took which node, read from onnxruntime's own log of session creation (verbose level).

::

    [V:onnxruntime:, ... VerifyEachNodeIsAssignedToAnEp] Node placements
    [V:onnxruntime:, ... VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1
    [V:onnxruntime:, ... VerifyEachNodeIsAssignedToAnEp]   Attention (attention)

Before that the WebGPU provider was asked which nodes it takes, and names those that it has no kernel for::

    [I:onnxruntime:, ... GetCapability] webgpu kernel not found in registries for Op type: Attention node name: att
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from vitexport.contract import Placement

CPU = "CPUExecutionProvider"

_SPEAKER = "VerifyEachNodeIsAssignedToAnEp]"
_PLACED = re.compile(r"(?:All nodes|Node\(s\)) placed on \[(\w+)\]\. Number of nodes: (\d+)$")
_NODE = re.compile(r"\w+ \(.*\)$")
_NO_KERNEL = re.compile(r"webgpu kernel not found in registries for Op type: \w+ node name: (.*)$")


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


def without_kernel(log: Iterable[str]) -> frozenset[str]:
    """Names of the nodes that the WebGPU provider has no kernel for."""
    return frozenset(found[1] for line in log if (found := _NO_KERNEL.search(line)))
