"""Which layer of the PyTorch network a node of an ONNX graph came from, as far as the names of weights tell."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

#: Of :func:`vitexport.capture.capture`'s wrapper, under which a network is traced.
_ROOT = "network."

#: How far weights are looked for: attention's softmax lies six nodes behind its projection.
_FARTHEST = 64


class Layers:
    """The weights' names and the edges of a graph; ``earlier`` is one that it was made of, for what it has lost."""

    def __init__(self, graph: onnx.GraphProto, earlier: onnx.GraphProto) -> None:
        self._weights = {tensor.name for each in (graph, earlier) for tensor in each.initializer}
        makers = (*earlier.node, *graph.node)
        self._makes = {output: node for node in makers for output in node.output if output}
        self._takes: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._takes.setdefault(name, []).append(node)

    def of(self, node: onnx.NodeProto) -> str:
        """``blocks.0.attn.qkv`` where a weight or a bias of that layer goes into the node or into what is added to its
        result; ``behind blocks.0.attn.qkv`` where that layer is the nearest before it; empty where there is none."""
        own = self._named(node)
        added = [after for output in node.output for after in self._takes.get(output, ()) if after.op_type == "Add"]
        for near in (own, *map(self._named, added)):
            if near:
                return near
        before = self._before(node)
        return f"behind {before}" if before else ""

    def _named(self, node: onnx.NodeProto) -> str:
        for name in node.input:
            if name in self._weights and "." in name:
                return str(name).rpartition(".")[0].removeprefix(_ROOT)
        return ""

    def _before(self, node: onnx.NodeProto) -> str:
        """Breadth first, so that the nearest is found."""
        waiting, seen = deque(node.input), set(node.input)
        for _ in range(_FARTHEST):
            if not waiting:
                break
            maker = self._makes.get(waiting.popleft())
            if maker is None:
                continue
            if found := self._named(maker):
                return found
            waiting.extend(name for name in maker.input if name not in seen)
            seen.update(maker.input)
        return ""
