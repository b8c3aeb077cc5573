"""LayerScale folded into the linear layer before it: DINOv2's gamma becomes part of weights and bias.

Why: LiteRT.js 2.5.3's GPU delegate computes a network wrongly that has two or more blocks of ``x + gamma * linear(y)``
(drift 2e-3 of two small blocks, 1.06 of DINOv2-S), and says that it took all of it. Without the multiplication it is
right, and 24 operations are saved everywhere. Exact but for one float32 rounding of each weight. The folding may stay
when the delegate is mended, which tests/test_tflite_target.py notices.
"""

from __future__ import annotations

from typing import Any


def fold_layer_scale(module: Any) -> int:
    """Rewrite the graph module of an exported program in place. Returns how many were folded."""
    import torch

    aten = torch.ops.aten
    found = 0
    for node in list(module.graph.nodes):
        if node.target not in (aten.mul.Tensor, aten.mul_.Tensor):
            continue
        made, gamma = sorted(node.args, key=lambda argument: getattr(argument, "op", "") == "get_attr")
        linear = _before_dropout(made)
        if getattr(linear, "target", None) is not aten.linear.default or getattr(gamma, "op", "") != "get_attr":
            continue
        if any(len(each.users) > 1 for each in (made, linear)):
            continue
        scale = module.get_parameter(gamma.target).detach()
        operands = [operand for operand in linear.args[1:] if operand is not None]
        if scale.ndim != 1 or not all(o.op == "get_attr" and len(o.users) == 1 for o in operands):
            continue
        for operand in operands:
            _scale(module, operand.target, scale)
        node.replace_all_uses_with(made)
        module.graph.erase_node(node)
        found += 1
    if found:
        module.graph.eliminate_dead_code()
        module.recompile()
    return found


def _before_dropout(node: Any) -> Any:
    """What is dropped out, which outside of training is handed on: dropout is captured as an operation all the same."""
    import torch

    while getattr(node, "target", None) is torch.ops.aten.dropout.default and not node.args[2] and len(node.users) == 1:
        (node, *_) = node.args
    return node


def _scale(module: Any, name: str, scale: Any) -> None:
    """Of a weight (out, in) or bias (out,), each row by its scale. A new parameter: the old one is the source's."""
    import torch

    owner, _, own = name.rpartition(".")
    value = module.get_parameter(name).detach()
    scaled = (value.double() * scale.double().reshape(-1, *[1] * (value.ndim - 1))).to(value.dtype)
    setattr(module.get_submodule(owner), own, torch.nn.Parameter(scaled, requires_grad=False))
