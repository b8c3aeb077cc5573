"""The layers that a quantiser changes: named as in PyTorch, and known again in any target's file by their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitexport.rewrites.graph import is_reshape

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from vitexport.contract import Tensor

Fingerprint = tuple[int, int]

#: In values: smaller weights stay float, whatever is asked. They are few bytes, and cost most. Of selfie they are 24 kB
#: of 230 (first and last layer, gates, depth-wise filters). IoU on tests/composites.py, all in fewer bits and without
#: them, in LiteRT: ``w8`` 0.975 and 0.989, ``w8-dyn`` 0.957 and 0.984, ``w8a8`` 0.931 and 0.952, ``w8a16`` 0.981 and
#: 0.987; median ms 3.4 and 2.9, 7.2 and 4.4, 4.0 and 3.5, 60 and 26.
LEAST_SIZE = 1024

Kind = Literal["linear", "convolution"]


def fingerprint(array: ArrayLike) -> Fingerprint:
    """Of float32 values in any order and shape: the sums, modulo 2**64, of their bit patterns and of the squares."""
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4").astype(np.uint64)
    return int(bits.sum()), int((bits * bits).sum())


@dataclass(frozen=True, eq=False)
class Layer:
    name: str
    """Of the module that holds the weights: ``blocks.3.mlp.fc1``."""
    kind: Kind
    parameter: str
    """Its weight, as the captured program calls it."""
    weight: Tensor
    """float32, output channels first; of a transposed convolution, second."""
    merged: tuple[Tensor, ...] = ()
    """What converters may make of it: the scale of a LayerNorm before it multiplied in, or of a LayerScale after it."""

    @property
    def fingerprint(self) -> Fingerprint:
        return fingerprint(self.weight)

    @property
    def marks(self) -> frozenset[Fingerprint]:
        """Those of the weight in all its guises."""
        return frozenset(map(fingerprint, (self.weight, *self.merged)))

    @property
    def half(self) -> Fingerprint:
        """That of the weight as float16 holds it."""
        with np.errstate(over="ignore"):
            return fingerprint(self.weight.astype(np.float16).astype(np.float32))


def kind_of(node: Any) -> Kind | None:
    """Of a node of a captured graph; None where it is no layer with weights."""
    import torch

    aten = torch.ops.aten
    if node.target is aten.linear.default:
        return "linear"
    known = (aten.conv2d.default, aten.conv2d.padding, aten.conv3d.default, aten.conv_transpose2d.input)
    return "convolution" if node.target in known else None


def layers(module: Any) -> tuple[Layer, ...]:
    """Of a captured program's module (``source.program.module()``), in the order in which they are computed. Weights
    that several layers share make one."""
    found: dict[str, Layer] = {}
    for node in module.graph.nodes:
        kind = kind_of(node)
        if kind is None or node.args[1].op != "get_attr":
            continue
        parameter = node.args[1].target
        name = parameter.removeprefix("network.").removesuffix(".weight")
        values = module.get_parameter(parameter).detach().numpy()
        found.setdefault(parameter, Layer(name, kind, parameter, values, tuple(_merged(module, node, values))))
    return tuple(found.values())


def _merged(module: Any, node: Any, weight: Tensor) -> Iterator[Tensor]:
    import torch

    aten = torch.ops.aten
    if kind_of(node) != "linear":
        return
    before = node.args[0]
    while is_reshape(before) or before.target in (aten.permute.default, aten.transpose.int, aten.dropout.default):
        before = before.args[0]
    if before.target is aten.layer_norm.default and len(before.args) > 2 and before.args[2] is not None:
        scale = module.get_parameter(before.args[2].target).detach().numpy()
        if scale.shape == weight.shape[1:]:
            yield weight * scale
    for after in node.users:
        if after.target in (aten.mul.Tensor, aten.mul_.Tensor) and getattr(after.args[1], "op", "") == "get_attr":
            scale = module.get_parameter(after.args[1].target).detach().numpy()
            if scale.shape == weight.shape[:1]:
                yield weight * scale[:, None]
