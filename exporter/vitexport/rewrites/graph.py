"""What rewrites of a captured graph share: new nodes with the values that others read shapes from, and reshapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def call(graph: Any, target: Any, *args: Any, like: Any) -> Any:
    """A node at the graph's insertion point, with its value, and ``like``'s account of where it comes from."""
    import torch

    node = graph.call_function(target, args)
    values = torch.fx.node.map_arg(args, lambda argument: argument.meta["val"])
    node.meta = {**like.meta, "val": target(*values)}
    return node


def reshaped(graph: Any, node: Any, shape: Sequence[int], like: Any) -> Any:
    """``node``, or what it is a mere reshape of, as ``shape``."""
    import torch

    while is_reshape(node):
        node = node.args[0]
    return call(graph, torch.ops.aten.reshape.default, node, list(shape), like=like)


def is_reshape(node: Any) -> bool:
    """Whether the order of numbers in memory stays."""
    import torch

    aten = torch.ops.aten
    return node.target in (
        *(aten.reshape.default, aten.view.default, aten.flatten.using_ints, aten.unflatten.int),
        *(aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims),
    )


def reshaping_readers(node: Any) -> list[Any] | None:
    """The reshapes that read ``node``, past copies, which have the same order; None where something else reads it."""
    import torch

    copies = (torch.ops.aten.contiguous.default, torch.ops.aten.clone.default)
    found: list[Any] = []
    for user in node.users:
        further = reshaping_readers(user) if user.target in copies else [user] if is_reshape(user) else None
        if further is None:
            return None
        found += further
    return found


def is_fixed(shape: Sequence[Any]) -> bool:
    """A dimension that was left open is no number, and comparing or multiplying it would tie it to one."""
    return all(isinstance(size, int) for size in shape)
