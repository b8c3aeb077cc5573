"""Fewer bits, through ai-edge-quantizer: what is asked of it, and whether it was done.

The quantiser passes over what it has no kernel for without a word (4-bit blocks of a convolution, 8-bit blocks of
anything), and may hand back the float file. So what it hands back is read, and must show the precision asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.contract import SourceModel
from vitexport.errors import LoweringFailed, root_line
from vitexport.quantize import calibration
from vitexport.quantize.layers import LEAST_SIZE, fingerprint, layers
from vitexport.quantize.observers import Grid
from vitexport_targets._precisions import LEAST_SHARE
from vitexport_targets.tflite import half
from vitexport_targets.tflite.ranges import measured
from vitexport_targets.tflite.signature import Interface, fed
from vitexport_targets.tflite.weights import constants

if TYPE_CHECKING:
    from vitexport.contract import Tensor
    from vitexport.quantize.layers import Fingerprint

#: What static quantisation is for: in a ViT, quantising everything else too is 2 to 4 times slower than quantising
#: on the fly, and 11 dB worse.
_MATRIX = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")


@dataclass(frozen=True)
class Recipe:
    stored: tuple[str, ...]
    """Types of weights that show it was done."""
    ask: Callable[[Any], None]
    """Of a ``Quantizer``."""
    grid: Grid | None = None
    """Of activations, where their ranges are fixed."""


def _names(*names: str) -> list[Any]:
    from ai_edge_quantizer import qtyping

    return [qtyping.TFLOperationName[name] for name in names]


def _fp16(quantizer: Any) -> None:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    (everything,) = _names("ALL_SUPPORTED")
    quantizer.add_weight_only_config(".*", everything, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)


def _spare(quantizer: Any, scopes: Sequence[str]) -> None:
    """Operations that stay as they are: the quantiser follows the latest of what it was told of one."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    (everything,) = _names("ALL_SUPPORTED")
    for scope in scopes:
        quantizer.update_quantization_recipe(scope, everything, algorithm_key=AlgorithmName.NO_QUANTIZE)


def _w8(quantizer: Any) -> None:
    quantizer.add_weight_only_config(".*", *_names("ALL_SUPPORTED"), 8)


def _w8_dyn(quantizer: Any) -> None:
    quantizer.add_dynamic_config(".*", *_names("ALL_SUPPORTED"), 8)


def _static(bits: int) -> Callable[[Any], None]:
    def ask(quantizer: Any) -> None:
        for name in _names(*_MATRIX):
            quantizer.add_static_config(".*", name, bits, 8)

    return ask


def _w4(quantizer: Any) -> None:
    """Blocks exist of fully-connected layers alone; convolutions become int8."""
    from ai_edge_quantizer import qtyping

    full, *convolutions = _names(*_MATRIX)
    quantizer.add_dynamic_config(".*", full, 4, qtyping.QuantGranularity.BLOCKWISE_32)
    for name in convolutions:
        quantizer.add_dynamic_config(".*", name, 8)


RECIPES = {
    "fp16": Recipe(("float16",), _fp16),
    "w8": Recipe(("int8",), _w8),
    "w8-dyn": Recipe(("int8",), _w8_dyn),
    "w8a8": Recipe(("int8",), _static(8), Grid(8, symmetric=False)),
    "w8a16": Recipe(("int8",), _static(16), Grid(16, symmetric=True)),
    "w4": Recipe(("int4", "int8"), _w4),
}


def quantised(whole: bytes, name: str, sources: Sequence[SourceModel], interfaces: Sequence[Interface]) -> bytes:
    """The float32 file in another precision; itself for ``fp32``. Raises ``LoweringFailed``."""
    if name == "fp32":
        return whole
    from ai_edge_quantizer import quantizer as aeq

    recipe = RECIPES[name]
    kept = layers_of(whole, sources[0].keep_float.get(name, frozenset()), sources[0])
    try:
        quantizer = aeq.Quantizer(bytearray(whole))
        recipe.ask(quantizer)
        _spare(quantizer, half.readers(whole) if name == "fp16" else [*(each.scope for each in kept), *_small(whole)])
        ranges = None
        if recipe.grid:
            samples = _samples(sources, interfaces)
            ranges = measured(quantizer, whole, samples, sources[0].observer, recipe.grid)
        made = bytes(quantizer.quantize(ranges).quantized_model)
    except Exception as error:  # the quantiser raises whatever its passes raised
        raise LoweringFailed(
            f"ai-edge-quantizer cannot make {name} of {sources[0].name}: {root_line(error)}."
        ) from error
    check(made, name, sum(layer.size for layer in kept))
    return made


def _small(whole: bytes) -> list[str]:
    """Scopes of the operations of a float32 file that have small weights, and no others."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffers

    read, found = flatbuffers.read_model(bytearray(whole)), []
    for graph in read.subgraphs:
        for op in graph.operators:
            sizes = [len(_stored(read, graph, index)) // 4 for index in op.inputs]
            if 0 < max(sizes, default=0) < LEAST_SIZE:
                found.append(_scope(op, graph))
    return found


def _stored(read: Any, graph: Any, index: int) -> Any:
    """The bytes of an operation's constant, if it is one of float32."""
    data = read.buffers[graph.tensors[index].buffer].data if index >= 0 else None
    return b"" if data is None or graph.tensors[index].type != half.FLOAT32 else data


def _scope(op: Any, graph: Any) -> str:
    """What the quantiser calls an operation, as a pattern."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffers

    return f"^{re.escape(flatbuffers.get_op_scope(op, graph.tensors))}$"


@dataclass(frozen=True)
class FloatLayer:
    """One that stays as it is."""

    scope: str
    """A pattern of what the quantiser calls it: the tensors that it makes."""
    size: int
    """Of its weight, in values."""


def layers_of(whole: bytes, keep_float: frozenset[Fingerprint], source: SourceModel) -> tuple[FloatLayer, ...]:
    """Those of a float32 file that have these weights, as they are or as the converter merges them with the scale of a
    norm. Raises ``LoweringFailed`` where there are none such."""
    if not keep_float:
        return ()
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffers

    known = layers(source.program.module())
    kept = {mark: layer.fingerprint for layer in known if layer.fingerprint in keep_float for mark in layer.marks}
    read = flatbuffers.read_model(bytearray(whole))
    done: set[Fingerprint] = set()
    found: list[FloatLayer] = []
    for graph in read.subgraphs:
        for op in graph.operators:
            for data in filter(len, (_stored(read, graph, index) for index in op.inputs)):
                layer = kept.get(fingerprint(data.view(np.float32)))
                if layer is not None:
                    size = 0 if layer in done else data.size // 4  # sizes of a ladder share their weights
                    found.append(FloatLayer(_scope(op, graph), size))
                    done.add(layer)
    if missing := keep_float - done:
        raise LoweringFailed(
            f"{len(missing)} of {len(keep_float)} layers that are to stay float are not in {source.name}'s .tflite: "
            "the converter has merged them with others. Make the plan anew, or do without."
        )
    return tuple(found)


def _samples(sources: Sequence[SourceModel], interfaces: Sequence[Interface]) -> dict[str, list[dict[str, Tensor]]]:
    """Pictures to measure ranges on, by signature."""
    found = {}
    for source, interface in zip(sources, interfaces, strict=True):
        how = source.preprocessing
        _, channels, *sides = (1, *how.input_shape)
        shape = (1, *sides, channels) if interface.feed != "nchw" else (1, *how.input_shape)
        dtype = np.uint8 if interface.feed == "image" else np.float32
        pictures = calibration.of(source).pictures
        found[interface.signature] = [{interface.input_name: fed(each, shape, dtype, how)} for each in pictures]
    return found


def check(made: bytes, name: str, kept: int = 0) -> None:
    """Raises ``LoweringFailed`` where the file does not show the precision that was asked for, but for ``kept`` values
    that are to be float."""
    recipe = RECIPES[name]
    stored = constants(made)
    total = sum(constant.size for constant in stored) - kept
    done = sum(constant.size for constant in stored if constant.dtype in recipe.stored)
    first = sum(constant.size for constant in stored if constant.dtype == recipe.stored[0])
    if first == 0 or done < LEAST_SHARE * total:
        left = 100 - 100 * done / max(total, 1)
        raise LoweringFailed(
            f"{name} is refused: ai-edge-quantizer has no such form for this network's layers, and left {left:.0f} % "
            "of its weights as they were without a word. Ask for another precision."
        )
