"""Where a network is looked into: the value that leaves each of its blocks, in the order in which they are computed.

A block is one of the modules that a network repeats (``blocks.3``, ``stages.1.blocks.0``, ``encoder.layer.5``); what
comes before, between and after them (a patch embedding, a norm) is looked at as well. Nothing is known of families:
that a list of modules of one class is a stack of blocks can be seen in any network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitexport.contract import SourceModel

#: Of :func:`vitexport.capture.capture`'s wrapper, under which the module is traced.
_ROOT = "network"

#: What a module that is not made of modules is looked into by.
_LAYERS = ("conv", "linear", "addmm", "matmul")


@dataclass(frozen=True)
class Place:
    name: str
    """Of the module that a value leaves, or of the output that it is."""
    node: str
    """Of the captured graph, whose value it is."""
    repeated: bool = False
    """One of several blocks of a class, which can be compared with its like."""


def places(source: SourceModel) -> tuple[Place, ...]:
    """Those inside the network; its outputs are no part of them."""
    graph = source.program.graph
    last = {node.name for node in graph.output_node().all_input_nodes}
    order = {node.name: position for position, node in enumerate(graph.nodes)}
    found: dict[str, Place] = {}
    for name, repeated in _parts(source.module):
        node = _leaving(graph, f"{_ROOT}.{name}")
        if node is not None and node.name not in last:
            found.setdefault(node.name, Place(name, node.name, repeated))
    if not found:
        found = {node.name: Place(node.name, node.name) for node in _layers(graph) if node.name not in last}
    return tuple(sorted(found.values(), key=lambda place: order[place.node]))


def outputs(source: SourceModel) -> tuple[Place, ...]:
    nodes = source.program.graph.output_node().args[0]
    return tuple(Place(spec.name, node.name) for spec, node in zip(source.outputs, nodes, strict=True))


# ------------------------------------------------------------------------------------------------ modules


def _parts(module: Any) -> list[tuple[str, bool]]:
    """Names of the modules that are looked at, and whether they are repeated: blocks, and what stands beside them."""
    repeated = frozenset(_repeated(module))
    if repeated:
        return [(name, id(part) in repeated) for name, part in _walk(module, "", repeated)]
    prefix = ""
    while len(children := list(module.named_children())) == 1 and any(True for _ in children[0][1].children()):
        ((name, module),) = children  # what is looked at is in a wrapper
        prefix += f"{name}."
    return [(prefix + name, False) for name, _ in children]


def _walk(module: Any, prefix: str, repeated: frozenset[int]) -> Iterator[tuple[str, Any]]:
    """Blocks, innermost where a stage of them is repeated as well; of all else, what holds no blocks."""
    for key, child in module.named_children():
        if any(id(inner) in repeated for inner in child.modules() if inner is not child):
            yield from _walk(child, f"{prefix}{key}.", repeated)
        else:
            yield f"{prefix}{key}", child


def _repeated(module: Any) -> Iterator[int]:
    """Blocks: of the modules in numbered lists, those that are made of modules and of a class that comes twice."""
    import torch

    lists = (torch.nn.ModuleList, torch.nn.Sequential)
    numbered = [
        child
        for parent in module.modules()
        for key, child in parent.named_children()
        if key.isdigit() and not isinstance(child, lists) and any(True for _ in child.children())
    ]
    classes = Counter(type(child) for child in numbered)
    yield from (id(child) for child in numbered if classes[type(child)] > 1)


# -------------------------------------------------------------------------------------------------- graph


def _leaving(graph: Any, module: str) -> Any:
    """The last float tensor that is made in ``module`` and read outside of it; None where there is none."""
    inside = {node for node in graph.nodes if _is_in(node, module)}
    leaving = [node for node in graph.nodes if node in inside and _is_float(node) and set(node.users) - inside]
    return leaving[-1] if leaving else None


def _is_in(node: Any, module: str) -> bool:
    stack = node.meta.get("nn_module_stack") or {}
    return any(_beneath(path, module) for path, _ in stack.values())


def _beneath(path: str, module: str) -> bool:
    path = path.partition("@")[0]  # torch numbers the calls of a module that is called again
    return path == module or path.startswith(f"{module}.")


def _is_float(node: Any) -> bool:
    import torch

    value = node.meta.get("val")
    return node.op == "call_function" and isinstance(value, torch.Tensor) and value.dtype.is_floating_point


def _layers(graph: Any) -> list[Any]:
    return [node for node in graph.nodes if _is_float(node) and any(word in str(node.target) for word in _LAYERS)]
