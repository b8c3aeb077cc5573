"""Where a scale of each channel can change hands between two layers, and the network still compute the same.

A layer's output channel divided by s, and what reads it multiplied by s, are the same numbers (Nagel et al. 2019,
"Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721; Xiao et al. 2022,
"SmoothQuant", arXiv:2211.10438). It holds between a LayerNorm and the linear layers that read it, and between the
values that attention averages and the projection behind it.

Which column reads which channel is not guessed from names: each value of the captured graph that is a mere
rearrangement of a layer's output is computed on the channels' numbers instead. What else becomes of a channel pins it:
its scale stays. So packed and separate queries, keys and values, windows and rolls, means and gates all work alike.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Of a column that reads no channel of the producer in question.
NOBODY = -1


@dataclass(frozen=True)
class Layer:
    """Parameters of a LayerNorm or a linear layer, by their names in the module."""

    node: str
    weight: str
    bias: str | None


@dataclass(frozen=True, eq=False)
class Reader:
    layer: Layer
    value: str
    """The node that it reads."""
    channels: Any
    """int64 (columns,): the producer's channel that each column of its weight reads, or ``NOBODY``."""


@dataclass(frozen=True, eq=False)
class Seam:
    producer: Layer
    readers: tuple[Reader, ...]
    free: Any
    """bool (channels,): those whose scale may change hands."""
    shifts: Any
    """bool (channels,): those that an offset may be taken from as well."""


def seams(program: Any) -> tuple[Seam, ...]:
    """Of a ``torch.export.ExportedProgram`` of fixed sizes, in the order in which their producers are computed."""
    import torch

    held = _parameters(program)
    makers = (torch.ops.aten.layer_norm.default, torch.ops.aten.linear.default)
    found = (_Search(held).of(node) for node in program.graph.nodes if node.target in makers)
    return tuple(seam for seam in found if seam is not None)


def _parameters(program: Any) -> Mapping[str, str]:
    """Placeholder -> the parameter's name in the module, of those that are read once and share no memory."""
    names = program.graph_signature.inputs_to_parameters
    memory = Counter(program.state_dict[name].data_ptr() for name in names.values())
    return {
        node.name: names[node.name].partition(".")[2]  # the wrapper of capture.py is before the dot
        for node in program.graph.nodes
        if node.name in names and len(node.users) == 1 and memory[program.state_dict[names[node.name]].data_ptr()] == 1
    }


@dataclass(frozen=True, eq=False)
class _Search:
    """One producer's channels on their way."""

    held: Mapping[str, str]
    readers: list[Reader] = field(default_factory=list)
    pinned: set[int] = field(default_factory=set)
    rigid: set[int] = field(default_factory=set)
    """Channels that an offset must not be taken from."""

    def of(self, node: Any) -> Seam | None:
        import torch

        layer = self._layer(node)
        value = node.meta["val"]
        if layer is None or (node.target is torch.ops.aten.layer_norm.default and len(node.args[1]) != 1):
            return None
        channels = value.shape[-1]
        self._follow({node: torch.arange(channels).expand(value.shape)}, node)
        free = torch.tensor([c not in self.pinned for c in range(channels)])
        readers = [reader for reader in self.readers if bool(free[reader.channels[reader.channels >= 0]].any())]
        read = {int(c) for reader in readers for c in reader.channels}
        free &= torch.tensor([c in read for c in range(channels)])
        if not readers or not free.any():
            return None
        offset = layer.bias is not None and all(reader.layer.bias is not None for reader in readers)
        shifts = free & offset & torch.tensor([c not in self.rigid for c in range(channels)])
        return Seam(layer, tuple(readers), free, shifts)

    def _layer(self, node: Any) -> Layer | None:
        """Where all parameters are the node's own."""
        import torch

        first = 2 if node.target is torch.ops.aten.layer_norm.default else 1
        weight, bias = [*node.args[first : first + 2], None, None][:2]
        if weight is None or weight.name not in self.held or not (bias is None or bias.name in self.held):
            return None
        return Layer(node.name, self.held[weight.name], None if bias is None else self.held[bias.name])

    def _follow(self, labels: dict[Any, Any], producer: Any) -> None:
        """Every node behind ``producer``, in order: ``labels`` holds what is known to carry channels."""
        for node in _behind(producer):
            given = [argument for argument in node.all_input_nodes if argument in labels]
            if not given:
                continue
            rule = _rules().get(node.target)
            made = None if rule is None else rule(self, node, labels)
            if made is not None:
                labels[node] = made
            elif rule is not _read:
                for argument in given:
                    self.pin(labels[argument])

    def pin(self, label: Any) -> None:
        for part in label if isinstance(label, tuple | list) else [label]:
            self.pinned.update(part.unique().tolist())

    def alike(self, label: Any, axes: tuple[int, ...]) -> Any:
        """The label where ``axes`` have their first place only; channels that differ along them are pinned."""
        import torch

        first = label
        for axis in axes:
            first = first.narrow(axis, 0, 1)
        differs = label != first
        self.pinned.update(label[differs].tolist(), torch.broadcast_to(first, label.shape)[differs].tolist())
        return first


def _behind(producer: Any) -> Iterator[Any]:
    node = producer.next
    while node.op != "root":
        yield node
        node = node.next


_Rule = Callable[[_Search, Any, dict[Any, Any]], Any]


def _move(search: _Search, node: Any, labels: dict[Any, Any]) -> Any:
    """What only moves numbers moves channels' numbers. What is joined with them carries none."""
    import torch

    def label(argument: Any) -> Any:
        if argument in labels:
            known = labels[argument]
            return known.contiguous() if isinstance(known, torch.Tensor) else known
        return torch.full(argument.meta["val"].shape, NOBODY)

    args, kwargs = (torch.fx.node.map_arg(given, label) for given in (node.args, node.kwargs))
    return node.target(*args, **kwargs)


def _pad(search: _Search, node: Any, labels: dict[Any, Any]) -> Any:
    """By nothing, as Swin pads what its windows divide."""
    return None if any(node.args[1]) else labels[node.args[0]]


def _average(search: _Search, node: Any, labels: dict[Any, Any]) -> Any:
    """A mean keeps scale and offset where it is over values of one channel."""
    label = labels[node.args[0]]
    axes = tuple(axis % label.ndim for axis in node.args[1])
    first = search.alike(label, axes)
    return first.reshape(node.meta["val"].shape)


def _attend(search: _Search, node: Any, labels: dict[Any, Any]) -> Any:
    """Attention's weights sum to one: what it makes of values keeps their scale and their offset. Queries and keys are
    multiplied with each other, and stay."""
    values = node.args[2]
    for other in (*node.args[:2], *node.args[3:], *node.kwargs.values()):
        if other in node.all_input_nodes and other in labels:
            search.pin(labels[other])
    return _over_tokens(search, node, labels[values]) if values in labels else None


def _product(search: _Search, node: Any, labels: dict[Any, Any]) -> Any:
    """Of a matrix that carries no channels with one that does: a sum over tokens, whose weights need not be one."""
    left, right = node.args
    if left in labels or labels[right].ndim < 2:
        return None
    search.rigid.update(labels[right].unique().tolist())
    return _over_tokens(search, node, labels[right])


def _over_tokens(search: _Search, node: Any, label: Any) -> Any:
    shape = node.meta["val"].shape
    if label.shape[:-2] != shape[:-2] or label.shape[-1] != shape[-1]:
        return None
    return search.alike(label, (label.ndim - 2,)).expand(shape)


def _scaled(search: _Search, node: Any, labels: dict[Any, Any]) -> Any:
    """By something that carries no channels: a gate, a LayerScale, a constant. A ReLU scales by 0 or 1."""
    given = [argument for argument in node.args if argument in labels]
    if len(given) != 1:
        return None
    search.rigid.update(labels[given[0]].unique().tolist())
    return labels[given[0]].expand(node.meta["val"].shape)


def _read(search: _Search, node: Any, labels: dict[Any, Any]) -> Any:
    """The end of the way: a linear layer whose every column reads one channel."""
    value = node.args[0]
    layer = search._layer(node)
    if layer is None or any(argument in labels for argument in node.all_input_nodes if argument is not value):
        for argument in node.all_input_nodes:
            if argument in labels:
                search.pin(labels[argument])
        return None
    label = labels[value]
    first = search.alike(label, tuple(range(label.ndim - 1)))
    search.readers.append(Reader(layer, value.name, first.flatten().clone()))
    return None


def _rules() -> Mapping[Any, _Rule]:
    import torch

    aten = torch.ops.aten
    moves = (
        *(aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int),
        *(aten.permute.default, aten.transpose.int, aten.roll.default, aten.expand.default, aten.repeat.default),
        *(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int, operator.getitem),
        *(aten.select.int, aten.slice.Tensor, aten.cat.default, aten.stack.default),
        *(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default, aten.unsqueeze.default),
        *(aten.contiguous.default, aten.clone.default, aten.alias.default, aten.dropout.default),
    )
    return {
        **dict.fromkeys(moves, _move),
        **dict.fromkeys((aten.matmul.default, aten.bmm.default), _product),
        **dict.fromkeys((aten.mul.Tensor, aten.relu.default), _scaled),
        aten.pad.default: _pad,
        aten.mean.dim: _average,
        aten.scaled_dot_product_attention.default: _attend,
        aten.linear.default: _read,
    }
