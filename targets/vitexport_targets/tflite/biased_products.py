"""Constants added to a matrix product, or multiplied with it, in another shape than the product has.

Why: LiteRT.js 2.5.3's GPU delegate fuses ``x @ w * c`` and ``q @ k + bias`` into one kernel, and computes all rows of
the product but the first wrongly (drift 0.3 to 1; Swin's last stage, SwinV2, TinyViT and what else has a bias of
attention), while it says that it took all of it. With a reshape in between there is nothing to fuse, and it is right; a
reshape moves nothing. Heads of several windows at once, as in Swin's other stages, come out right and stay. Delete this
when the delegate is mended, which tests/test_tflite_products.py notices.
"""

from __future__ import annotations

from math import prod
from typing import Any

from vitexport_targets.tflite.attention import is_attention, spell_out
from vitexport_targets.tflite.fixed import fixed_nodes, held, value_of


def keep_constants_apart(module: Any) -> int:
    """Rewrite the graph module of an exported program in place. Returns how many operations were rewritten."""
    graph = module.graph
    fixed = fixed_nodes(graph)
    for node in list(graph.nodes):
        if is_attention(node) and len(node.args) > 3 and node.args[3] in fixed:
            spell_out(graph, node)
    found = [node for node in list(graph.nodes) if _replaced(module, node, fixed)]
    graph.eliminate_dead_code()
    module.recompile()
    return len(found)


def _replaced(module: Any, node: Any, fixed: set[Any]) -> bool:
    import torch

    aten, graph = torch.ops.aten, module.graph
    inplace = {aten.add_.Tensor: aten.add.Tensor, aten.mul_.Tensor: aten.mul.Tensor}
    target = inplace.get(node.target, node.target)
    if target not in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor) or node.kwargs:
        return False
    if not all(isinstance(operand, torch.fx.Node) for operand in node.args):
        return False
    constants = [operand for operand in node.args if operand in fixed]
    products = [operand for operand in node.args if operand not in fixed and _is_product(operand, fixed)]
    if len(constants) != 1 or len(products) != 1 or constants[0].meta["val"].numel() == 1:
        return False
    shape = node.meta["val"].shape
    if shape != products[0].meta["val"].shape or len(shape) < 3 or (len(shape) > 3 and shape[0] > 1):
        return False
    flat = (1, 1, prod(shape[:-1]) * shape[-1]) if len(shape) == 3 else (1, prod(shape[:-1]), shape[-1])

    # In its final shape: of two reshapes the converter would make one, behind the operation, though one of them is of a
    # constant (SwinV2's bias, which is computed from coordinates).
    constant = held(module, node, value_of(module, constants[0]).expand(shape).reshape(flat))
    with graph.inserting_before(node):
        operands = [
            constant if operand in constants else graph.call_function(aten.reshape.default, (operand, [*flat]))
            for operand in node.args
        ]
        made = graph.call_function(target, tuple(operands))
        back = graph.call_function(aten.reshape.default, (made, [*shape]))
        back.meta = dict(node.meta)
    node.replace_all_uses_with(back)
    return True


def _is_product(node: Any, fixed: set[Any]) -> bool:
    """Whether a matrix product makes it, or what is computed element by element of one: that is fused, too."""
    import torch

    aten = torch.ops.aten
    if node.target in (aten.linear.default, aten.matmul.default, aten.bmm.default, aten.addmm.default):
        return True
    of_scalars = node.target in (aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor, aten.sub.Tensor) and all(
        not isinstance(o, torch.fx.Node) or o.meta["val"].numel() == 1 for o in node.args[1:]
    )
    single = (aten.relu.default, aten.gelu.default, aten.silu.default, aten.hardswish.default, aten.dropout.default)
    return (of_scalars or node.target in (*single, aten.clone.default)) and _is_product(node.args[0], fixed)
