"""One TensorFlow Lite op as a PyTorch layer: NHWC attributes and weights in, a module on NCHW values out.

What each op means is TensorFlow Lite's own definition (``tensorflow/lite/kernels``, schema ``schema.fbs``), and a test
holds every kind to LiteRT's interpreter.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tflite
import torch
from torch import nn

from vitexport.errors import BadRequest, LoweringFailed
from vitexport.models.tflite_file import Op, Tensor
from vitexport.models.tflite_layers import Binary, Concat, Mean, Reshape

#: Where each NHWC axis is found in NCHW.
_AXIS = {0: 0, 1: 2, 2: 3, 3: 1}

_OHWI_TO_OIHW = (0, 3, 1, 2)
_IHWO_TO_OIHW = (3, 0, 1, 2)  # depthwise (1, h, w, channels); and (out, h, w, in) to the (in, out, h, w) of a transpose

_ACTIVATIONS: Mapping[int, tuple[Callable[[], nn.Module], ...]] = {
    tflite.ActivationFunctionType.NONE: (),
    tflite.ActivationFunctionType.RELU: (nn.ReLU,),
    tflite.ActivationFunctionType.RELU6: (nn.ReLU6,),
    tflite.ActivationFunctionType.RELU_N1_TO_1: (lambda: nn.Hardtanh(-1.0, 1.0),),
}


def nchw(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a value has here: NHWC turned to NCHW at rank 4, any other rank as it is."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def layer(op: Op) -> nn.Module:
    """A module that takes the op's computed operands in order; its constants are its parameters and buffers.

    Raises ``LoweringFailed`` on a kind or an attribute that is not known here.
    """
    if op.kind not in _LAYERS:
        raise LoweringFailed(
            f"The op {op.kind} ('{op.output.name}') is not known to vitexport's TFLite reader, which reads "
            f"{', '.join(sorted(_LAYERS))}. Export the PyTorch model it came from, with --model FILE.py:FACTORY."
        )
    for tensor in (*op.inputs, op.output):
        if tensor is not None and tensor.data is None and tensor.dtype != "float32":
            raise unknown(op, f"computes with {tensor.dtype} values ('{tensor.name}')")
    return _LAYERS[op.kind](op)


def unknown(op: Op, what: str) -> LoweringFailed:
    return LoweringFailed(
        f"{op.kind} '{op.output.name}' {what}, which vitexport's TFLite reader does not know. "
        "Export the PyTorch model it came from, with --model FILE.py:FACTORY."
    )


# -------------------------------------------------------------------------------------------------------- operands


def _image(op: Op) -> Tensor:
    """The first operand, which must be a computed NHWC image."""
    image = op.inputs[0] if op.inputs else None
    if image is None or image.data is not None or len(image.shape) != 4:
        raise unknown(op, "takes something other than an image (N, H, W, C)")
    return image


def _constant(op: Op, position: int, dtype: str) -> np.ndarray[Any, Any]:
    tensor = op.inputs[position] if position < len(op.inputs) else None
    if tensor is None or tensor.data is None or tensor.dtype != dtype:
        raise unknown(op, f"has an operand {position} that is not a constant of type {dtype}")
    return tensor.data


def _weight(op: Op, position: int, order: tuple[int, ...]) -> torch.Tensor:
    data = _constant(op, position, "float32")
    if data.ndim != len(order):
        raise unknown(op, f"has a weight of rank {data.ndim}")
    return torch.tensor(data.transpose(order))


def _filled(empty: nn.Module, op: Op, weight: torch.Tensor) -> nn.Module:
    """A layer made on the meta device (so that no random weights are drawn), given the file's."""
    empty.weight = nn.Parameter(weight, requires_grad=False)
    empty.bias = nn.Parameter(_weight(op, 2, (0,)), requires_grad=False)
    return empty


def _positive(op: Op, *names: str) -> tuple[int, ...]:
    values = tuple(op.options[name] for name in names)
    if any(v < 1 for v in values):
        raise BadRequest(f"The TFLite file is damaged: {op.kind} '{op.output.name}' has {names} = {values}.")
    return values


def _same(op: Op) -> bool:
    if op.options["Padding"] not in (tflite.Padding.SAME, tflite.Padding.VALID):
        raise unknown(op, f"has the padding number {op.options['Padding']}")
    return bool(op.options["Padding"] == tflite.Padding.SAME)


def _margins(size: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]) -> list[tuple[int, int]]:
    """(before, after) of each axis by TensorFlow's rule for SAME: ceil(size / stride) outputs, the odd pixel after.

    https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    totals = [max((-(-n // s) - 1) * s + w - n, 0) for n, w, s in zip(size, window, stride, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def _chain(**modules: nn.Module | None) -> nn.Module:
    present = OrderedDict((name, module) for name, module in modules.items() if module is not None)
    return next(iter(present.values())) if len(present) == 1 else nn.Sequential(present)


def _activation(op: Op) -> nn.Module | None:
    code = op.options["FusedActivationFunction"]
    if code not in _ACTIVATIONS:
        raise unknown(op, f"has the fused activation number {code}")
    return next((make() for make in _ACTIVATIONS[code]), None)


# ---------------------------------------------------------------------------------------------------- convolutions


def _conv(op: Op) -> nn.Module:
    weight = _weight(op, 1, _OHWI_TO_OIHW)
    channels = _image(op).shape[3]
    if channels % weight.shape[1]:
        raise unknown(op, f"has a kernel for {weight.shape[1]} channels on {channels}")
    return _convolution(op, weight, groups=channels // weight.shape[1])


def _depthwise_conv(op: Op) -> nn.Module:
    return _convolution(op, _weight(op, 1, _IHWO_TO_OIHW), groups=_image(op).shape[3])


def _convolution(op: Op, weight: torch.Tensor, groups: int) -> nn.Module:
    stride, dilation = _positive(op, "StrideH", "StrideW"), _positive(op, "DilationHFactor", "DilationWFactor")
    (top, bottom), (left, right) = (0, 0), (0, 0)
    if _same(op):
        window = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))
        (top, bottom), (left, right) = _margins(_image(op).shape[1:3], window, stride)
    even = top == bottom and left == right
    conv = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride,
        (top, left) if even else 0,
        dilation,
        groups,
        device="meta",
    )
    # PyTorch's convolutions pad evenly; at stride 2 TensorFlow does not, and a symmetric pad would shift the image.
    pad = None if even else nn.ZeroPad2d((left, right, top, bottom))
    return _chain(pad=pad, conv=_filled(conv, op, weight), activation=_activation(op))


def _conv_transpose_bias(op: Op) -> nn.Module:
    """MediaPipe's ``Convolution2DTransposeBias``; options: three int32, ``TfLitePadding``, stride width, stride height.

    https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/util/tflite/operations/transpose_conv_bias.cc
    """
    padding, stride_w, stride_h = struct.unpack("<3i", op.custom_options[:12].ljust(12, b"\0"))
    if padding not in (1, 2) or min(stride_w, stride_h) < 1:  # kTfLitePaddingSame, kTfLitePaddingValid
        raise unknown(op, f"has padding {padding} and stride {stride_h}x{stride_w}")
    weight, stride = _weight(op, 1, _IHWO_TO_OIHW), (stride_h, stride_w)
    image, kernel = _image(op).shape[1:3], tuple(weight.shape[2:])
    full = [(n - 1) * s + k for n, s, k in zip(image, stride, kernel, strict=True)]
    made = [n * s for n, s in zip(image, stride, strict=True)] if padding == 1 else full
    surplus = [f - m for f, m in zip(full, made, strict=True)]
    if any(n < 0 or n % 2 for n in surplus):
        raise unknown(op, f"has a kernel {kernel} that its stride {stride} does not pad evenly")
    conv = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1],
        kernel,
        stride,
        tuple(n // 2 for n in surplus),
        device="meta",
    )
    return _filled(conv, op, weight)


# ---------------------------------------------------------------------------------------------- pools and resizing


def _average_pool(op: Op) -> nn.Module:
    window, stride = _positive(op, "FilterHeight", "FilterWidth"), _positive(op, "StrideH", "StrideW")
    size = _image(op).shape[1:3]
    if window == size and not _same(op):
        # A window over everything is a mean. Said so, runtimes take their reduction kernel, not a 128x128 window.
        return _chain(pool=Mean((2, 3), keep=True), activation=_activation(op))
    margins = _margins(size, window, stride) if _same(op) else [(0, 0), (0, 0)]
    if any(before != after for before, after in margins):
        raise unknown(op, "pads unevenly")
    # TensorFlow divides by the pixels under the window, without the padding.
    pool = nn.AvgPool2d(window, stride, tuple(before for before, _ in margins), count_include_pad=False)
    return _chain(pool=pool, activation=_activation(op))


def _mean(op: Op) -> nn.Module:
    _image(op)
    axes = {int(axis) % 4 for axis in _constant(op, 1, "int32").reshape(-1)}
    keep = bool(op.options["KeepDims"])
    if 0 in axes or not (keep or axes == {1, 2}):
        raise unknown(op, f"averages over the axes {sorted(axes)} of NHWC")
    return Mean(tuple(sorted(_AXIS[axis] for axis in axes)), keep)


def _resize_bilinear(op: Op) -> nn.Module:
    _image(op)
    size = tuple(int(n) for n in _constant(op, 1, "int32").reshape(-1))
    corners, centres = bool(op.options["AlignCorners"]), bool(op.options["HalfPixelCenters"])
    if corners == centres:
        raise unknown(op, f"has align corners {corners} and half-pixel centres {centres}")
    if size != op.output.shape[1:3]:
        raise BadRequest(f"The TFLite file is damaged: {op.kind} '{op.output.name}' resizes to {size}.")
    return nn.Upsample(size=size, mode="bilinear", align_corners=corners)


# ------------------------------------------------------------------------------------- element-wise, shape, joining


def _binary(operation: Callable[[Any, Any], Any]) -> Callable[[Op], nn.Module]:
    def build(op: Op) -> nn.Module:
        computed = [t for t in op.inputs if t is not None and t.data is None]
        constants = [t for t in op.inputs if t is not None and t.data is not None]
        if len({len(t.shape) for t in computed}) != 1 or len(computed) + len(constants) != 2:
            raise unknown(op, f"combines the shapes {[t.shape for t in op.inputs if t is not None]}")
        constant = _broadcast(op, constants[0], len(computed[0].shape)) if constants else None
        return _chain(operation=Binary(operation, constant), activation=_activation(op))

    return build


def _broadcast(op: Op, constant: Tensor, rank: int) -> torch.Tensor:
    """A constant operand with its trailing axes aligned as NHWC has them, then laid out as the values are."""
    if constant.data is None or constant.dtype != "float32" or constant.data.ndim > rank:
        raise unknown(op, f"combines with the constant '{constant.name}' ({constant.dtype}, {constant.shape})")
    data = constant.data.reshape((1,) * (rank - constant.data.ndim) + constant.shape)
    return torch.tensor(data.transpose(_OHWI_TO_OIHW) if rank == 4 else data)


def _concat(op: Op) -> nn.Module:
    rank = len(op.output.shape)
    if any(t is None or t.data is not None for t in op.inputs):
        raise unknown(op, "joins constants")
    axis = op.options["Axis"] % rank
    return _chain(concat=Concat(_AXIS[axis] if rank == 4 else axis), activation=_activation(op))


def _reshape(op: Op) -> nn.Module:
    taken = op.inputs[0]
    if taken is None or taken.data is not None or (taken.shape[:1], op.output.shape[:1]) != ((1,), (1,)):
        raise unknown(op, "mixes the batch with other axes")
    return Reshape(op.output.shape[1:])


_LAYERS: Mapping[str, Callable[[Op], nn.Module]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise_conv,
    "Convolution2DTransposeBias": _conv_transpose_bias,
    "AVERAGE_POOL_2D": _average_pool,
    "MEAN": _mean,
    "RESIZE_BILINEAR": _resize_bilinear,
    "ADD": _binary(torch.add),
    "MUL": _binary(torch.mul),
    "CONCATENATION": _concat,
    "RESHAPE": _reshape,
    "RELU": lambda op: nn.ReLU(),
    "RELU6": lambda op: nn.ReLU6(),
    "HARD_SWISH": lambda op: nn.Hardswish(),
    "LOGISTIC": lambda op: nn.Sigmoid(),
}
