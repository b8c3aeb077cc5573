"""Fewer bits for ONNX files, through onnxruntime.quantization: what is asked of it, and whether it was done.

Measured in ONNX Runtime's CPU provider (one thread, AVX2 without VNNI): latency of ViT-Ti beside fp32, SNR of
``digits_vit_tiny`` on 200 held-out pictures and of ViT-Ti's random weights on noise. All but the first row of each
precision were tried without packing the patch embedding and the positions, which costs ``w4`` nothing and others 2 dB.

=====================================================  =====  =======  =====
w8, int8 for each output channel (``packed``)          1.00x  46.5 dB  32 dB
w8, ``MatMulNBits`` in blocks of 64, symmetric         1.38x  50.3 dB  34 dB
w8-dyn, int8 weights of seven bits                     0.72x  41.0 dB  26 dB
w8-dyn, int8 weights                                   0.73x  21.1 dB  22 dB
w8-dyn, uint8 weights                                  0.82x  45.1 dB  30 dB
w8a8, int8 weights of seven bits                       0.73x  39.7 dB  23 dB
w8a8, attention's own products too                     0.73x  34.9 dB  21 dB
w8a8, the same, uint8 weights                          0.82x  35.9 dB  22 dB
w8a8, the same, results of all products too            0.82x  16.6 dB  20 dB
w4, blocks of 32 with zero points, float16 scales      1.02x  27.7 dB  11 dB
w4, blocks of 16 / 64 / 128 with zero points                  29.0 / 27.8 / 27.4 dB
w4, blocks of 16 / 32 / 64 / 128, symmetric                   28.3 / 27.0 / 26.5 / 26.0 dB
w4, blocks of 32, HQQ / k-quant                               27.3 / 26.7 dB
=====================================================  =====  =======  =====

Where a CPU has no VNNI, ONNX Runtime multiplies uint8 by int8 in 16 bits that saturate, without a word:
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html#when-to-use-reduce-range-and-per-channel-quantization
Weights of seven bits do not. uint8 ones do not either, and take 14 % longer.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexport.contract import INPUT_NAME, SourceModel
from vitexport.errors import LoweringFailed, root_line
from vitexport.progress import step
from vitexport_targets import _onnx_ranges
from vitexport_targets._onnx_half import to_fp16
from vitexport_targets._onnx_weights import fingerprints, named, packed, weights, with_products
from vitexport_targets._precisions import LEAST_SHARE

if TYPE_CHECKING:
    import onnx

    from vitexport.quantize.layers import Fingerprint

#: Weights that share a scale, along a row. WebGPU's fast kernel for many tokens knows blocks of 32 alone ("wide tile"
#: in onnxruntime/contrib_ops/webgpu/quantization/matmul_nbits.cc), and 32 divides the width of every ViT.
BLOCK = 32

#: Precisions whose activations are float16 as well, by what their weights are in.
HALVED = {"w4-fp16": "w4"}

#: float16's smallest normal number and its largest: the range of scales that it holds to 11 bits.
_HALF = (2.0**-14, 65504.0)


@dataclass(frozen=True)
class Recipe:
    make: Callable[[onnx.ModelProto, list[str], SourceModel], onnx.ModelProto]
    """From the float graph, and the names of the nodes that must stay as they are."""
    shown_by: str
    """The operator that shows it was done."""
    of: str
    """What has such a form."""


def in_precision(model: onnx.ModelProto, name: str, source: SourceModel) -> onnx.ModelProto:
    """The float32 graph in another precision; itself for ``fp32``. Inputs and outputs stay float32, as do the layers
    that ``source`` names for it. Raises ``LoweringFailed``.
    """
    if name == "fp32":
        return model
    if name == "fp16":
        return to_fp16(model, source)
    if name in HALVED:
        weights_in = HALVED[name]
        kept = source.keep_float.get(name, source.keep_float.get(weights_in, frozenset()))
        whole = in_precision(model, weights_in, replace(source, keep_float={weights_in: kept}))
        return to_fp16(whole, source)
    keep_float = source.keep_float.get(name, frozenset())
    missing = keep_float - fingerprints(model)  # small ones among them, which stay float whatever is asked
    if missing:
        raise LoweringFailed(
            f"{len(missing)} of {len(keep_float)} layers that are to stay float are not in {source.name}'s ONNX graph. "
            "Make the plan anew, from this model and size."
        )
    with step("optimise", name):
        return _quantised(model, name, source, keep_float)


def _quantised(
    model: onnx.ModelProto, name: str, source: SourceModel, keep_float: frozenset[Fingerprint]
) -> onnx.ModelProto:
    recipe, made = RECIPES[name], named(model)
    spared = [node for weight in weights(made) if weight.fingerprint in keep_float for node in weight.nodes]
    try:
        with _quietly():
            made = packed(recipe.make(made, spared, source), keep_float)
    except Exception as error:  # the quantisers raise whatever their passes raised
        raise LoweringFailed(
            f"onnxruntime.quantization cannot make {name} of {source.name}: {root_line(error)}."
        ) from error
    check(made, name, model, keep_float)
    return _signed_as(made, model)


def check(made: onnx.ModelProto, name: str, model: onnx.ModelProto, keep_float: frozenset[Fingerprint]) -> None:
    """Raises ``LoweringFailed`` where ``made`` does not show the precision that was asked for."""
    total, left = (sum(w.size for w in weights(each) if w.fingerprint not in keep_float) for each in (model, made))
    recipe = RECIPES[name]
    done = any(node.op_type == recipe.shown_by for node in made.graph.node)
    if not done or left > (1 - LEAST_SHARE) * total:
        raise LoweringFailed(
            f"{name} is refused: it is a form of {recipe.of}, of which this network has none that ONNX Runtime would "
            "take. Ask for another precision."
        )


def _signed_as(made: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """What a file says of itself; the quantisers write their own name and stale shapes over it."""
    import onnx

    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    made.graph.name, made.doc_string = model.graph.name, ""
    del made.metadata_props[:], made.graph.value_info[:], made.graph.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    onnx.checker.check_model(made)
    return made


# ---------------------------------------------------------------------------------------------------- how it is made


def _w8(model: onnx.ModelProto, spared: list[str], source: SourceModel) -> onnx.ModelProto:
    """Nothing is left to do: what is float is packed."""
    return model


def _w4(model: onnx.ModelProto, spared: list[str], source: SourceModel) -> onnx.ModelProto:
    """Blocks of products; float32 activations, so that every adapter runs it."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        with_products(model), block_size=BLOCK, is_symmetric=False, nodes_to_exclude=_as_products(spared)
    )
    quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    return _with_half_scales(made)


def _with_half_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """A scale for each 32 weights is 1 bit of each weight in float32: ViT-S 14.1 MB, in float16 12.9. ONNX Runtime
    computes the ``Cast`` back once, when it loads the file."""
    from onnx import TensorProto, helper, numpy_helper

    held = {tensor.name: tensor for tensor in model.graph.initializer}
    widened = []
    for node in model.graph.node:
        tensor = held.get(node.input[2]) if node.op_type == "MatMulNBits" else None
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            continue
        scale = numpy_helper.to_array(tensor)
        size = np.abs(scale[scale != 0])
        if size.size and _HALF[0] <= size.min() and size.max() <= _HALF[1]:
            half = f"{tensor.name}.half"
            widened.append(helper.make_node("Cast", [half], [tensor.name], name=tensor.name, to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(scale.astype(np.float16), half))
    for cast in reversed(widened):
        model.graph.node.insert(0, cast)
    return model


def _w8_dyn(model: onnx.ModelProto, spared: list[str], source: SourceModel) -> onnx.ModelProto:
    """Products alone: ``ConvInteger`` takes 1.9 times as long as a float convolution, and loses 10 dB more than
    packed weights do (selfie)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    return _through_a_file(
        lambda path: quantize_dynamic(
            with_products(model),
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_as_products(spared),
        )
    )


def _w8a8(model: onnx.ModelProto, spared: list[str], source: SourceModel) -> onnx.ModelProto:
    """Layers with weights, by name: ``MatMulConstBOnly`` is passed over without a word, and attention's own products
    would be quantised too. Results of products stay float; a convolution's must be quantised for an integer kernel to
    take it. One that reads pixels is packed: 2 dB of 35 for no byte."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    pixels = {node.name for node in model.graph.node if node.op_type == "Conv" and node.input[0] == INPUT_NAME}
    layers = {node for weight in weights(model) for node in weight.nodes} - pixels - set(spared)
    if not layers:
        return model

    def quantise(path: str) -> None:
        ranges = Path(path).with_name("ranges.json")
        _onnx_ranges.write(model, layers, source, ranges)
        quantize_static(
            model,
            path,
            None,
            calibration_cache_path=ranges,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            nodes_to_quantize=sorted(layers),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )

    return _through_a_file(quantise)


RECIPES = {
    "w8": Recipe(_w8, "Cast", "layers with weights"),
    "w8-dyn": Recipe(_w8_dyn, "MatMulInteger", "matrix products"),
    "w8a8": Recipe(_w8a8, "QuantizeLinear", "matrix products and convolutions"),
    "w4": Recipe(_w4, "MatMulNBits", "matrix products"),
}


def _as_products(nodes: list[str]) -> list[str]:
    """Their names after :func:`with_products`."""
    return [*nodes, *(f"{node}.product" for node in nodes)]


def _through_a_file(quantise: Callable[[str], None]) -> onnx.ModelProto:
    """onnxruntime's functions answer in a file."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantise(str(path))
        made: onnx.ModelProto = onnx.load(path)
        return made


@contextmanager
def _quietly() -> Iterator[None]:
    """onnxruntime.quantization talks of each node, and to do so configures the root logger as it is imported."""
    root = logging.root
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)
