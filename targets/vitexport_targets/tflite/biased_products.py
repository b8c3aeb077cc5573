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


def keep_constants_apart(module: Any) -> int:
    """Rewrite the graph module of an exported program in place. Returns how many operations were rewritten."""
    graph = module.graph
    fixed = _independent_of_input(graph)
    for node in list(graph.nodes):
        if _is_attention(node) and len(node.args) > 3 and node.args[3] in fixed:
            _spell_out(graph, node)
    found = [node for node in list(graph.nodes) if _replaced(graph, node, fixed)]
    graph.eliminate_dead_code()
    module.recompile()
    return len(found)


def _independent_of_input(graph: Any) -> set[Any]:
    found: set[Any] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and all(n in found for n in node.all_input_nodes)):
            found.add(node)
    return found


def _is_attention(node: Any) -> bool:
    import torch

    return node.target is torch.ops.aten.scaled_dot_product_attention.default


def _spell_out(graph: Any, node: Any) -> None:
    """softmax(scale q k^T + bias) v, as ``torch.nn.functional.scaled_dot_product_attention`` documents it."""
    import torch

    aten = torch.ops.aten
    query, key, value, bias, *rest = node.args
    shape = query.meta["val"].shape
    scale = node.kwargs.get("scale") or shape[-1] ** -0.5
    if any(rest) or node.kwargs.get("enable_gqa") or bias.meta["val"].dtype == torch.bool:
        return

    with graph.inserting_before(node):

        def call(target: Any, *args: Any) -> Any:
            made = graph.call_function(target, args)
            values = torch.fx.node.map_arg(args, lambda argument: argument.meta["val"])
            made.meta = {**node.meta, "val": target(*values)}
            return made

        scores = call(aten.matmul.default, call(aten.mul.Tensor, query, scale), call(aten.transpose.int, key, -2, -1))
        weights = call(aten.softmax.int, call(aten.add.Tensor, scores, bias), -1)
        node.replace_all_uses_with(call(aten.matmul.default, weights, value))


def _replaced(graph: Any, node: Any, fixed: set[Any]) -> bool:
    import torch

    aten = torch.ops.aten
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

    with graph.inserting_before(node):
        operands = []
        for operand in node.args:
            whole = graph.call_function(aten.expand.default, (operand, [*shape])) if operand in constants else operand
            operands.append(graph.call_function(aten.reshape.default, (whole, [*flat])))
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
