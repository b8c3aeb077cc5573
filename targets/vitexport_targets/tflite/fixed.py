"""What does not depend on a captured program's input, and its values."""

from __future__ import annotations

from typing import Any


def fixed_nodes(graph: Any) -> set[Any]:
    """Weights, and what is computed of nothing else."""
    found: set[Any] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and all(n in found for n in node.all_input_nodes)):
            found.add(node)
    return found


def value_of(module: Any, node: Any) -> Any:
    """Of one of :func:`fixed_nodes`."""
    import torch

    if node.op == "get_attr":
        value = module
        for part in node.target.split("."):
            value = getattr(value, part)
        return value
    arguments, named = torch.fx.node.map_arg((node.args, node.kwargs), lambda argument: value_of(module, argument))
    return node.target(*arguments, **named)


def held(module: Any, node: Any, value: Any) -> Any:
    """``value`` as a buffer that ``node`` may read."""
    name = f"constant_of_{node.name}"
    module.register_buffer(name, value.detach().contiguous())
    with module.graph.inserting_before(node):
        made = module.graph.get_attr(name)
    made.meta = {**node.meta, "val": value.detach().to("meta")}
    return made
