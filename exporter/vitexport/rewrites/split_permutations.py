"""Permutations of rank 4 at most: windows cut out of a picture and put back without a tensor of rank 6.

Why: Swin partitions (B, H, W, C) by way of (B, H/7, 7, W/7, 7, C), of which B and H/7 stay together as the last two do:
(B H/7, 7, W/7, 7 C) and a swap of its middle axes move the same numbers to the same places. What rank 4 cannot hold at
once, such as Hiera's (h, 2, w, 2, C) -> (2, 2, h, w, C), it can in several swaps of two neighbouring blocks of axes.
GPU delegates take tensors of rank 4 at most (LiteRT's: "bad input dims size: 6"), and one such reshape leaves half of a
network to the CPU. Delete this when they do so themselves
(https://github.com/google-ai-edge/LiteRT, "Tensor dimensions must be less than 5").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from math import prod
from typing import Any

from vitexport.rewrites.graph import call, is_fixed, reshaped, reshaping_readers

#: What every runtime's GPU takes.
HIGHEST_RANK = 4


def split_permutations(program: Any) -> int:
    """Rewrite ``program``, a ``torch.export.ExportedProgram``, in place. Returns how many permutations were rewritten.

    Those between two reshapes: the shape in the middle is their business alone.
    """
    graph = program.graph_module.graph
    found = [node for node in graph.nodes if _order(node) is not None and _replaced(graph, node)]
    if found:
        graph.eliminate_dead_code()
        program.graph_module.recompile()
        program.validate()
    return len(found)


def merged(shape: Sequence[int], order: Sequence[int]) -> tuple[list[int], list[int]]:
    """The coarsest ``shape`` and ``order`` that permute alike: axes of size 1 dropped, lasting neighbours joined."""
    moving = [axis for axis in order if shape[axis] != 1] or [order[0]]
    place = {axis: at for at, axis in enumerate(sorted(moving))}
    groups: list[list[int]] = []
    for axis in moving:
        if groups and place[axis] == place[groups[-1][-1]] + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    before = sorted(groups)
    return [prod(shape[axis] for axis in group) for group in before], [before.index(group) for group in groups]


def swaps(shape: Sequence[int], order: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """The permutation as (outer, a, b, inner) -> (outer, b, a, inner), one after the other."""
    axes = list(range(len(order)))
    for place, wanted in enumerate(order):
        at = axes.index(wanted)
        if at == place:
            continue
        together = takewhile(lambda pair: pair[0] == pair[1], zip(order[place:], axes[at:], strict=False))
        end = at + sum(1 for _ in together)
        blocks = axes[:place], axes[place:at], axes[at:end], axes[end:]
        outer, a, b, inner = (prod(shape[axis] for axis in block) for block in blocks)
        yield outer, a, b, inner
        axes = [*blocks[0], *blocks[2], *blocks[1], *blocks[3]]


def _order(node: Any) -> list[int] | None:
    """Of a permutation's axes, where it has more than a GPU takes; None of any other node."""
    import torch

    aten = torch.ops.aten
    if node.target not in (aten.permute.default, aten.transpose.int) or node.meta["val"].ndim <= HIGHEST_RANK:
        return None
    rank = node.meta["val"].ndim
    if node.target is aten.permute.default:
        return [axis % rank for axis in node.args[1]]
    order = list(range(rank))
    one, other = (axis % rank for axis in node.args[1:3])
    order[one], order[other] = other, one
    return order


def _replaced(graph: Any, node: Any) -> bool:
    import torch

    order, shape, readers = _order(node), node.args[0].meta["val"].shape, reshaping_readers(node)
    if order is None or readers is None or not is_fixed(shape):
        return False
    sizes, axes = merged(shape, order)
    steps = [(sizes, axes)] if len(sizes) <= HIGHEST_RANK else [([*swap], [0, 2, 1, 3]) for swap in swaps(sizes, axes)]
    moved = node.args[0]
    with graph.inserting_before(node):
        for sizes, axes in steps:
            moved = call(graph, torch.ops.aten.permute.default, reshaped(graph, moved, sizes, node), axes, like=node)
    for reader in readers:
        with graph.inserting_before(reader):
            reader.replace_all_uses_with(reshaped(graph, moved, reader.meta["val"].shape, reader))
    return True
