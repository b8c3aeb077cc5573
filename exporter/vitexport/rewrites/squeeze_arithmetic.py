"""Arithmetic without the axes that nothing happens along: Swin's mask added at rank 4.

Why: timm adds the mask of shifted windows to scores of shape (B, windows, heads, tokens, tokens), of which B is 1 where
one picture is taken at a time. GPU delegates take tensors of rank 4 at most (LiteRT's: "Can't parse inputs with const
tensors"). Without the axis of size 1 it is the same sum. Delete this when timm adds the mask to the bias
(https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/swin_transformer_v2.py).
"""

from __future__ import annotations

from typing import Any

from vitexport.rewrites.graph import call, is_fixed, reshaped, reshaping_readers
from vitexport.rewrites.split_permutations import HIGHEST_RANK


def squeeze_arithmetic(program: Any) -> int:
    """Rewrite ``program``, a ``torch.export.ExportedProgram``, in place. Returns how many operations were rewritten."""
    graph = program.graph_module.graph
    found = [node for node in graph.nodes if _is_high(node) and _replaced(graph, node)]
    if found:
        graph.eliminate_dead_code()
        program.graph_module.recompile()
        program.validate()
    return len(found)


def _is_high(node: Any) -> bool:
    import torch

    aten = torch.ops.aten
    binary = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)
    return node.target in binary and node.meta["val"].ndim > HIGHEST_RANK


def _replaced(graph: Any, node: Any) -> bool:
    shape, readers = node.meta["val"].shape, reshaping_readers(node)
    if readers is None or node.kwargs or not is_fixed(shape):
        return False
    kept = [axis for axis, size in enumerate(shape) if size != 1]
    if len(kept) > HIGHEST_RANK or not all(hasattr(operand, "meta") for operand in node.args):
        return False

    def squeezed(operand: Any) -> Any:
        own = (1,) * len(shape) + tuple(operand.meta["val"].shape)
        return reshaped(graph, operand, [own[axis - len(shape)] for axis in kept], node)

    with graph.inserting_before(node):
        made = call(graph, node.target, *map(squeezed, node.args), like=node)
    for reader in readers:
        with graph.inserting_before(reader):
            reader.replace_all_uses_with(reshaped(graph, made, reader.meta["val"].shape, reader))
    return True
