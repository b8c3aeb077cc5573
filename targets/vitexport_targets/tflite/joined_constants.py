"""(x + bias) + mask, as SwinV2's shifted windows have it, becomes x + (bias + mask), which is added here.

Why: the converter turns it about likewise, and leaves the sum of two constants to be computed with each picture. A GPU
delegate takes no operation of constants alone ("node has 2 const input(s)"), nor what comes after it: 141 of a SwinV2's
1,099 operations.
"""

from __future__ import annotations

from typing import Any

from vitexport.rewrites.graph import is_reshape
from vitexport_targets.tflite.fixed import fixed_nodes, held, value_of


def join_constants(module: Any) -> int:
    """Rewrite the graph module of an exported program in place. Returns how many sums were joined."""
    graph = module.graph
    fixed = fixed_nodes(graph)
    found = sum(_joined(module, node, fixed) for node in list(graph.nodes))
    graph.eliminate_dead_code()
    module.recompile()
    return found


def _joined(module: Any, node: Any, fixed: set[Any]) -> bool:
    late, rest = _parted(node, fixed)
    if late is None:
        return False
    while is_reshape(rest) and rest.meta["val"].shape == rest.args[0].meta["val"].shape and len(rest.users) == 1:
        rest = rest.args[0]
    early, made = _parted(rest, fixed)
    if early is None or len(rest.users) > 1 or made.meta["val"].shape != node.meta["val"].shape:
        return False
    both = held(module, node, value_of(module, early) + value_of(module, late))
    fixed.add(both)
    node.args = (made, both)
    return True


def _parted(node: Any, fixed: set[Any]) -> tuple[Any, Any]:
    """Of a sum, the constant and what it is added to; (None, None) of anything else."""
    import torch

    if node.target is not torch.ops.aten.add.Tensor or node.kwargs:
        return None, None
    constants = [operand for operand in node.args if operand in fixed]
    others = [operand for operand in node.args if operand not in fixed and isinstance(operand, torch.fx.Node)]
    return (constants[0], others[0]) if len(constants) == len(others) == 1 else (None, None)
