"""Drop ``aten.alias`` from a captured program.

Why: coremltools 9.0 stops with "Unsupported fx node alias, kind alias" on what ``run_decompositions`` leaves of Swin's
window partition; its table of torch operators has no entry for it
(https://github.com/apple/coremltools/tree/9.0/coremltools/converters/mil/frontend/torch). An alias names the same
tensor again, and in a program without mutation its input serves as well. Delete this when coremltools takes a Swin.
"""

from __future__ import annotations

from typing import Any


def drop_aliases(program: Any) -> None:
    """Edit the graph of an ``ExportedProgram`` in place."""
    import torch

    for node in list(program.graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])
            program.graph_signature.replace_all_uses(node.name, node.args[0].name)  # it may be what is returned
            program.graph.erase_node(node)
    program.graph.lint()
