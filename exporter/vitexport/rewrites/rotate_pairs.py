"""Rotate neighbours in pairs without strides and without an axis for the two of a pair: RoPE as EVA-02 has it.

Why: timm rotates by ``stack([-x[..., 1::2], x[..., ::2]], -1)``, of rank 5 for an x of rank 4. GPU delegates take
rank 4 at most, and XNNPACK no slices with strides (LiteRT leaves 956 of an EVA-02-Ti's 1,032 operations to the CPU). As
rows of two it is the same numbers. Delete this when timm rotates halves instead
(https://github.com/huggingface/pytorch-image-models/blob/main/timm/layers/pos_embed_sincos.py, ``rot``).
"""

from __future__ import annotations

from math import prod
from typing import Any

from vitexport.rewrites.graph import call, is_fixed, reshaped, reshaping_readers


def rotate_pairs(program: Any) -> int:
    """Rewrite ``program``, a ``torch.export.ExportedProgram``, in place. Returns how many rotations were rewritten."""
    import torch

    graph = program.graph_module.graph
    stacks = [node for node in graph.nodes if node.target is torch.ops.aten.stack.default]
    found = [node for node in stacks if _replaced(graph, node)]
    if found:
        graph.eliminate_dead_code()
        program.graph_module.recompile()
        program.validate()
    return len(found)


def _replaced(graph: Any, stack: Any) -> bool:
    import torch

    aten = torch.ops.aten
    parts, *axis = stack.args
    readers, rank = reshaping_readers(stack), stack.meta["val"].ndim
    if (
        readers is None
        or len(parts) != 2
        or (axis or [0])[0] not in (-1, rank - 1)
        or not is_fixed(stack.meta["val"].shape)
    ):
        return False
    negated, even = parts
    if negated.target is not aten.neg.default or _every_second(even) != 0 or _every_second(negated.args[0]) != 1:
        return False
    odd = negated.args[0]
    if even.args[0] is not odd.args[0]:
        return False
    with graph.inserting_before(stack):
        pairs = reshaped(graph, even.args[0], [prod(stack.meta["val"].shape[:-1]), 2], stack)
        first, second = (call(graph, aten.slice.Tensor, pairs, 1, at, at + 1, like=stack) for at in (0, 1))
        turned = call(
            graph, aten.cat.default, [call(graph, aten.neg.default, second, like=stack), first], 1, like=stack
        )
    for reader in readers:
        with graph.inserting_before(reader):
            reader.replace_all_uses_with(reshaped(graph, turned, reader.meta["val"].shape, reader))
    return True


def _every_second(node: Any) -> int | None:
    """Where a slice of every second value along the last axis starts; None of any other node."""
    import torch

    if node.target is not torch.ops.aten.slice.Tensor:
        return None
    given = list(node.args[1:])
    axis, start, end, step = given + [0, None, None, 1][len(given) :]
    size, rank = node.args[0].meta["val"].shape[-1], node.args[0].meta["val"].ndim
    if step != 2 or axis not in (-1, rank - 1) or size % 2 or not (end is None or end >= size):
        return None
    return int(start or 0)
