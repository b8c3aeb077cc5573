"""Attention of captured programs, spelled out where a delegate must see its parts."""

from __future__ import annotations

from typing import Any

from vitexport.rewrites.graph import call


def is_attention(node: Any) -> bool:
    import torch

    return node.target is torch.ops.aten.scaled_dot_product_attention.default


def spell_out(graph: Any, node: Any, *, keys_first: bool = False) -> bool:
    """softmax(scale q k^T + bias) v, as ``torch.nn.functional.scaled_dot_product_attention`` documents it.

    ``keys_first``: the product as (k (scale q)^T)^T. Returns whether it was done: masks of booleans, dropout and
    grouped queries are left as they are.
    """
    import torch

    aten = torch.ops.aten
    query, key, value, bias, *rest = [*node.args, None][: max(4, len(node.args))]
    scale = node.kwargs.get("scale") or query.meta["val"].shape[-1] ** -0.5
    boolean = bias is not None and bias.meta["val"].dtype == torch.bool
    if any(rest) or node.kwargs.get("enable_gqa") or boolean:
        return False

    def made(target: Any, *args: Any) -> Any:
        return call(graph, target, *args, like=node)

    def turned(matrix: Any) -> Any:
        return made(aten.transpose.int, matrix, -2, -1)

    with graph.inserting_before(node):
        scaled = made(aten.mul.Tensor, query, scale)
        scores = (
            turned(made(aten.matmul.default, key, turned(scaled)))
            if keys_first
            else made(aten.matmul.default, scaled, turned(key))
        )
        if bias is not None:
            scores = made(aten.add.Tensor, scores, bias)
        weights = made(aten.softmax.int, scores, -1)
        node.replace_all_uses_with(made(aten.matmul.default, weights, value))
    return True
