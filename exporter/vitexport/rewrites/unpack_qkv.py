"""Take queries, keys and values apart before they are reshaped: attention without a tensor of rank 5 (Hiera's: 6).

Why: timm reshapes the three together, to (B, tokens, 3, heads, dim), and only then takes them apart. GPU delegates take
tensors of rank 4 at most (LiteRT's leaves 600 of a ViT's 647 operations to the CPU: "Tensor dimensions must be less
than 5"), and Core ML 5 (https://apple.github.io/coremltools/docs-guides/source/faqs.html). Splitting the last axis of
the projection first moves the same numbers to the same places, so it is exact. Delete this when timm splits first
(https://github.com/huggingface/pytorch-image-models/blob/main/timm/layers/attention.py).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitexport.rewrites.graph import call

#: Queries, keys and values; or keys and values, where one learned query pools (SigLIP).
_PARTS = (2, 3)


@dataclass(frozen=True, eq=False)
class _Packed:
    """``packed`` -> reshape to (..., 3, heads, dim) -> permute, the 3 to the front -> unbind -> getitem, thrice."""

    packed: Any
    lead: Sequence[Any]
    heads: int
    dim: int
    order: Sequence[int]
    """Of the axes of each part, (..., heads, dim)."""
    unbind: Any


def unpack_qkv(program: Any) -> int:
    """Rewrite ``program``, a ``torch.export.ExportedProgram``, in place. Returns how many attentions were rewritten."""
    graph = program.graph_module.graph
    found = [match for node in graph.nodes if (match := _match(node)) is not None]
    for match in found:
        _replace(graph, match)
    if found:
        graph.eliminate_dead_code()
        program.graph_module.recompile()
        program.validate()
    return len(found)


def _match(unbind: Any) -> _Packed | None:
    """What to put in the place of ``unbind``; None where it is not the end of such a chain."""
    import torch

    aten = torch.ops.aten
    if unbind.target is not aten.unbind.int or (unbind.args[1] if len(unbind.args) > 1 else 0) != 0:
        return None
    permute = unbind.args[0]
    if permute.target is not aten.permute.default or len(permute.users) > 1:
        return None
    reshape, order = permute.args
    if reshape.target not in (aten.reshape.default, aten.view.default) or len(reshape.users) > 1 or len(order) < 4:
        return None
    packed, sizes = reshape.args
    axis, width = len(order) - 3, packed.meta["val"].shape[-1]
    parts, heads, dim = reshape.meta["val"].shape[axis:]
    # A dimension that was left open is no number, and comparing it would tie it to one.
    if not all(isinstance(size, int) for size in (parts, heads, dim, width)):
        return None
    if order[0] != axis or parts not in _PARTS or width != parts * heads * dim:
        return None
    if not all(user.target is operator.getitem for user in unbind.users):
        return None
    return _Packed(packed, sizes[:axis], heads, dim, [at - (at > axis) for at in order[1:]], unbind)


def _replace(graph: Any, match: _Packed) -> None:
    import torch

    aten = torch.ops.aten
    with graph.inserting_before(match.unbind):
        split = call(graph, aten.split.Tensor, match.packed, match.heads * match.dim, -1, like=match.unbind)
        for taken in list(match.unbind.users):
            part = call(graph, operator.getitem, split, taken.args[1], like=match.unbind)
            shape = [*match.lead, match.heads, match.dim]
            shaped = call(graph, aten.reshape.default, part, shape, like=match.unbind)
            taken.replace_all_uses_with(call(graph, aten.permute.default, shaped, match.order, like=match.unbind))
            graph.erase_node(taken)
    graph.erase_node(match.unbind)
