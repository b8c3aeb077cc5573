"""One case or more for each op of the evaluator's table: what it takes, and PyTorch where Apple's converter cannot tell
what it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import coremltools as ct
import numpy as np
import torch
import torch.nn.functional as F

Torch = Callable[..., Any]


def drawn(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Case:
    """One op on ``inputs``, which the program takes, with ``attributes``, which it holds."""

    op: str
    inputs: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    oracle: Torch | None = None
    """PyTorch, given the inputs by name; None: Apple's value_inference."""
    opset: Any = None
    note: str = ""

    def __str__(self) -> str:
        said = [self.note] if self.note else [f"{k}={v}" for k, v in self.attributes.items() if np.ndim(v) < 2]
        return " ".join([self.op, *map(str, said)])


def with_x(op: str, x: np.ndarray, oracle: Torch | None = None, **attributes: Any) -> Case:
    return Case(op, {"x": x}, attributes, oracle)


def of_pair(op: str, x: np.ndarray, y: np.ndarray) -> Case:
    return Case(op, {"x": x, "y": y})


IMAGE = drawn(2, 4, 7, 9, seed=1)
WHOLE = np.random.default_rng(2).integers(1, 9, (3, 5)).astype(np.int32)
OTHER = np.random.default_rng(3).integers(1, 9, (3, 5)).astype(np.int32)
TRUTH = np.array([[True, False], [True, True]])
OTHERWISE = np.array([[True, True], [False, False]])

ANYWHERE = drawn(3, 5)
POSITIVE = drawn(3, 5, low=0.1, high=4.0)
WITHIN_ONE = drawn(3, 5, low=-0.9, high=0.9)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.2], np.float32)

UNARY = [
    *(with_x(op, ANYWHERE) for op in ("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor")),
    *(with_x(op, ANYWHERE) for op in ("identity", "sign", "sin", "sinh", "square", "tan", "tanh")),
    *(with_x(op, WITHIN_ONE) for op in ("acos", "asin", "atanh")),
    with_x("sqrt", POSITIVE),
    with_x("round", HALVES),
    with_x("rsqrt", POSITIVE, epsilon=1e-3),
    with_x("rsqrt", POSITIVE),
    with_x("inverse", POSITIVE, epsilon=0.25),
    with_x("inverse", POSITIVE),
    with_x("log", POSITIVE, epsilon=0.5),
    with_x("log", POSITIVE),
    with_x("clip", ANYWHERE, alpha=-0.5, beta=1.25),
    with_x("threshold", ANYWHERE, alpha=0.3),
    with_x("logical_not", TRUTH),
    with_x("cast", ANYWHERE * 3, dtype="int32"),
    with_x("cast", WHOLE, dtype="fp32"),
    with_x("cast", WHOLE - 4, dtype="bool"),
    with_x("cast", ANYWHERE, dtype="fp16", oracle=lambda x: x),
]

BINARY = [
    *(of_pair(op, ANYWHERE, drawn(1, 5, seed=9)) for op in ("add", "sub", "mul", "real_div", "maximum", "minimum")),
    *(of_pair(op, WHOLE, OTHER) for op in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")),
    *(of_pair(op, WHOLE, OTHER) for op in ("add", "sub", "mul", "floor_div", "mod", "maximum")),
    of_pair("real_div", WHOLE, OTHER),
    of_pair("floor_div", ANYWHERE, POSITIVE),
    of_pair("mod", ANYWHERE, POSITIVE),
    of_pair("pow", POSITIVE, drawn(3, 1, seed=4)),
    *(of_pair(op, TRUTH, OTHERWISE) for op in ("logical_and", "logical_or", "logical_xor")),
    Case("select", {"cond": TRUTH, "a": drawn(2, 2, seed=5), "b": drawn(2, 2, seed=6)}),
]


def hardtanh_like(x: Any) -> Any:
    return F.leaky_relu(x, 0.1).clamp(max=1.5)


ACTIVATIONS = [
    with_x("relu", ANYWHERE),
    with_x("relu6", ANYWHERE * 5),
    with_x("sigmoid", ANYWHERE),
    with_x("silu", ANYWHERE, lambda x: x / (1 + (-x).exp())),
    with_x("softplus", ANYWHERE * 20),
    with_x("softsign", ANYWHERE),
    with_x("leaky_relu", ANYWHERE, alpha=0.1),
    with_x("elu", ANYWHERE, alpha=0.7),
    with_x("prelu", IMAGE, alpha=drawn(4, seed=7, low=0.1, high=1)),
    with_x("thresholded_relu", ANYWHERE, alpha=0.4),
    with_x("clamped_relu", ANYWHERE, hardtanh_like, alpha=0.1, beta=1.5),
    with_x("linear_activation", ANYWHERE, alpha=0.4, beta=-0.1),
    with_x("scaled_tanh", ANYWHERE, alpha=0.4, beta=1.3),
    with_x("sigmoid_hard", ANYWHERE * 3, alpha=1 / 6, beta=0.5),
    with_x("gelu", ANYWHERE, mode="EXACT"),
    with_x("gelu", ANYWHERE, mode="TANH_APPROXIMATION"),
    with_x("gelu", ANYWHERE, mode="SIGMOID_APPROXIMATION"),
    with_x("softmax", IMAGE, axis=1),
    with_x("softmax", IMAGE * 40),
]

W_LINEAR, B_LINEAR = drawn(6, 5, seed=11), drawn(6, seed=12)


def sdpa(query: Any, key: Any, value: Any, attn_mask: Any = None) -> Any:
    """Written out, since the op itself calls PyTorch's."""
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if attn_mask is not None:
        scores = scores + attn_mask if attn_mask.is_floating_point() else scores.masked_fill(~attn_mask, -torch.inf)
    return scores.softmax(-1) @ value


def attended(name: str, **more: np.ndarray) -> Case:
    sides = {"query": drawn(2, 3, 5, 8), "key": drawn(2, 3, 7, 8, seed=1), "value": drawn(2, 3, 7, 4, seed=2)}
    return Case("scaled_dot_product_attention", sides | more, {}, sdpa, ct.target.iOS18, name)


LINEAR = [
    with_x("linear", drawn(2, 3, 5), weight=W_LINEAR, bias=B_LINEAR),
    with_x("linear", drawn(2, 3, 5), weight=W_LINEAR),
    of_pair("matmul", drawn(2, 3, 4), drawn(2, 4, 5, seed=1)),
    Case("matmul", {"x": drawn(2, 4, 3), "y": drawn(2, 5, 4, seed=1)}, {"transpose_x": True, "transpose_y": True}),
    Case("einsum", {"values": (drawn(2, 6, 3, 4), drawn(1, 4, 3, 5, seed=1))}, {"equation": "nchw,nwhu->nchu"}),
    Case("einsum", {"values": (drawn(6, 3, 4), drawn(4, 3, 5, seed=1))}, {"equation": "bkq,qkc->bkc"}),
    attended("plain"),
    attended("added mask", attn_mask=drawn(1, 1, 5, 7, seed=3)),
    attended("boolean mask", attn_mask=drawn(5, 7, seed=3) > -1.5),
]

KERNEL, CONV_BIAS, DEPTHWISE = drawn(6, 4, 3, 3, seed=21), drawn(6, seed=22), drawn(4, 1, 3, 3, seed=23)
UP_KERNEL = drawn(4, 3, 3, 2, seed=24)


def conv_same(x: Any) -> Any:
    """PyTorch's own 'same' only knows stride 1: an odd pixel goes behind. 7 x 9 at stride 2 lacks 2 and 2."""
    return F.conv2d(F.pad(x, (1, 1, 1, 1)), torch.tensor(KERNEL), stride=2)


def conv_same_even(lower: bool) -> Torch:
    """4 x 4 windows at stride 2 over 7 x 9 lack 3 and 3: one and two."""
    kernel = torch.tensor(drawn(6, 4, 4, 4, seed=25))
    sides = (2, 1, 2, 1) if lower else (1, 2, 1, 2)
    return lambda x: F.conv2d(F.pad(x, sides), kernel, stride=2)


CONVOLUTIONS = [
    with_x(
        "conv",
        IMAGE,
        lambda x: F.conv2d(x, torch.tensor(KERNEL), torch.tensor(CONV_BIAS)),
        weight=KERNEL,
        bias=CONV_BIAS,
    ),
    with_x(
        "conv",
        IMAGE,
        lambda x: F.conv2d(F.pad(x, (3, 0, 1, 2)), torch.tensor(KERNEL), stride=(2, 1), dilation=(1, 2)),
        weight=KERNEL,
        strides=[2, 1],
        dilations=[1, 2],
        pad_type="custom",
        pad=[1, 2, 3, 0],
    ),
    with_x(
        "conv",
        IMAGE,
        lambda x: F.conv2d(x, torch.tensor(DEPTHWISE), padding=1, groups=4),
        weight=DEPTHWISE,
        groups=4,
        pad_type="same",
    ),
    with_x("conv", IMAGE, conv_same, weight=KERNEL, strides=[2, 2], pad_type="same"),
    with_x("conv", IMAGE, conv_same_even(False), weight=drawn(6, 4, 4, 4, seed=25), strides=[2, 2], pad_type="same"),
    with_x(
        "conv", IMAGE, conv_same_even(True), weight=drawn(6, 4, 4, 4, seed=25), strides=[2, 2], pad_type="same_lower"
    ),
    with_x("conv", IMAGE[:, :, 0], lambda x: F.conv1d(x, torch.tensor(KERNEL[..., 0])), weight=KERNEL[..., 0]),
    with_x(
        "conv_transpose",
        IMAGE,
        lambda x: F.conv_transpose2d(x, torch.tensor(UP_KERNEL), stride=(2, 1)),
        weight=UP_KERNEL,
        strides=[2, 1],
    ),
    with_x(
        "conv_transpose",
        IMAGE,
        lambda x: F.conv_transpose2d(x, torch.tensor(UP_KERNEL), torch.ones(3), 2, padding=1, output_padding=1),
        weight=UP_KERNEL,
        bias=np.ones(3, np.float32),
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        output_shape=[2, 3, 14, 17],
    ),
]


def average_covered(x: Any) -> Any:
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


POOLS = [
    with_x(
        "max_pool",
        IMAGE,
        lambda x: F.max_pool2d(x, (3, 2), (2, 1)),
        kernel_sizes=[3, 2],
        strides=[2, 1],
        pad_type="valid",
    ),
    with_x(
        "max_pool",
        IMAGE,
        lambda x: F.max_pool2d(x, 3, 2, 1),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
    ),
    with_x(
        "max_pool",
        IMAGE,
        lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True),
        kernel_sizes=[2, 2],
        strides=[2, 2],
        pad_type="valid",
        ceil_mode=True,
    ),
    with_x(
        "avg_pool",
        IMAGE,
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
    ),
    with_x(
        "avg_pool",
        IMAGE,
        average_covered,
        kernel_sizes=[3, 3],
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        exclude_padding_from_average=True,
    ),
    with_x(
        "avg_pool",
        IMAGE,
        lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True),
        kernel_sizes=[2, 2],
        strides=[2, 2],
        pad_type="valid",
        ceil_mode=True,
        exclude_padding_from_average=True,
    ),
]

GAMMA, BETA = drawn(4, seed=31, low=0.5, high=2), drawn(4, seed=32)
MEAN, VARIANCE = drawn(4, seed=33), drawn(4, seed=34, low=0.1, high=2)


def batch_normed(x: Any) -> Any:
    return F.batch_norm(x, *map(torch.tensor, (MEAN, VARIANCE, GAMMA, BETA)), eps=1e-3)


def l2_normed(x: Any) -> Any:
    return x / (x.square().sum((1, 2, 3), keepdim=True) + 1e-2).sqrt()


NORMALISATIONS = [
    with_x("layer_norm", IMAGE, axes=[1], gamma=GAMMA, beta=BETA, epsilon=1e-3),
    with_x("layer_norm", IMAGE, axes=[-1, -2], epsilon=1e-6),
    with_x("batch_norm", IMAGE, batch_normed, mean=MEAN, variance=VARIANCE, gamma=GAMMA, beta=BETA, epsilon=1e-3),
    with_x(
        "batch_norm",
        IMAGE,
        lambda x: F.batch_norm(x, torch.tensor(MEAN), torch.tensor(VARIANCE)),
        mean=MEAN,
        variance=VARIANCE,
        epsilon=1e-5,
    ),
    with_x(
        "instance_norm",
        IMAGE,
        lambda x: F.instance_norm(x, None, None, *map(torch.tensor, (GAMMA, BETA))),
        gamma=GAMMA,
        beta=BETA,
        epsilon=1e-5,
    ),
    with_x("l2_norm", IMAGE, l2_normed, epsilon=1e-2),
]

REDUCTIONS = [
    *(
        with_x(f"reduce_{name}", POSITIVE, axes=[-1], keep_dims=keep)
        for name in ("l1_norm", "l2_norm", "log_sum", "log_sum_exp", "max", "min", "prod", "sum", "sum_square")
        for keep in (False, True)
    ),
    with_x("reduce_mean", IMAGE, lambda x: x.mean((2, 3)), axes=[2, 3], keep_dims=False),
    with_x("reduce_mean", IMAGE, lambda x: x.mean((-1,), keepdim=True), axes=[-1], keep_dims=True),
    with_x("reduce_sum", IMAGE),
    with_x("reduce_argmax", IMAGE, axis=1, keep_dims=False),
    with_x("reduce_argmin", IMAGE, axis=-1, keep_dims=True),
    *(with_x("cumsum", IMAGE, axis=1, exclusive=False, reverse=reverse) for reverse in (False, True)),
    # value_inference cannot do these: it builds its zeros with the data as their dtype
    with_x("cumsum", IMAGE, lambda x: x.cumsum(1) - x, axis=1, exclusive=True),
    with_x("cumsum", IMAGE, lambda x: x.sum(1, keepdim=True) - x.cumsum(1), axis=1, exclusive=True, reverse=True),
]

SHAPES = [
    with_x("reshape", IMAGE, shape=[2, 2, -1, 9]),
    with_x("transpose", IMAGE, perm=[0, 2, -1, 1]),
    with_x("expand_dims", ANYWHERE, axes=[0, -1]),
    with_x("squeeze", drawn(1, 3, 1, 2), axes=[-2]),
    with_x("squeeze", drawn(1, 3, 1, 2)),
    with_x("flatten2d", IMAGE, axis=2),
    Case("concat", {"values": (IMAGE, IMAGE + 1)}, {"axis": -2}),
    Case(
        "concat",
        {"values": (IMAGE, IMAGE + 1)},
        {"axis": 1, "interleave": True},
        lambda values: torch.stack(values, 2).reshape(2, 8, 7, 9),
    ),
    Case("stack", {"values": (ANYWHERE, POSITIVE)}, {"axis": 1}),
    with_x("split", IMAGE, axis=1, num_splits=2),
    with_x("split", IMAGE, axis=-1, split_sizes=[2, 3, 4]),
    with_x("tile", ANYWHERE, reps=[2, 3]),
    with_x("reverse", IMAGE, axes=[1, -1]),
    with_x("reverse", ANYWHERE),
    with_x("pad", IMAGE, pad=[1, 2, 0, 3], mode="constant", constant_val=1.5),
    with_x("pad", IMAGE, pad=[1, 2, 0, 3], mode="reflect"),
    with_x("pad", IMAGE, pad=[1, 2, 0, 3], mode="replicate"),
    with_x("pixel_shuffle", IMAGE, lambda x: F.pixel_shuffle(x, 2), upscale_factor=2),
    with_x("pixel_unshuffle", IMAGE[..., :6, :6], lambda x: F.pixel_unshuffle(x, 3), downscale_factor=np.uint32(3)),
    # blocks in ONNX's DCR order, which TensorFlow has too: the block's place is the slow part of the channel
    with_x(
        "depth_to_space",
        drawn(1, 8, 2, 3),
        lambda x: torch.einsum("nabchw->nchawb", x.reshape(1, 2, 2, 2, 2, 3)).reshape(1, 2, 4, 6),
        block_size=2,
    ),
    with_x(
        "space_to_depth",
        drawn(1, 2, 4, 6),
        lambda x: torch.einsum("nchawb->nabchw", x.reshape(1, 2, 2, 2, 3, 2)).reshape(1, 8, 2, 3),
        block_size=2,
    ),
]

ROWS = np.array([[0, 2], [-1, 1]], np.int32)
HOT = np.array([1, 0, 3], np.int32)

LOOKUPS = [
    with_x(
        "slice_by_index",
        IMAGE,
        begin=[0, 1, -3, 8],
        end=[1, 4, 7, -10],
        stride=[1, 2, 1, -3],
        begin_mask=[True, False, False, False],
        end_mask=[True, False, False, False],
        squeeze_mask=[False, False, False, False],
    ),
    with_x("slice_by_index", IMAGE, begin=[0, -1, 2, 0], end=[2, 0, 6, 9], squeeze_mask=[False, True, False, False]),
    with_x("slice_by_index", IMAGE, begin=[0, 0, 0, 0], end=[2, 4, 1, -1]),
    with_x("slice_by_size", IMAGE, begin=[0, 1, 2, 0], size=[2, -1, 3, 4]),
    Case("gather", {"x": ANYWHERE, "indices": ROWS}, {"axis": 0}),
    Case("gather", {"x": IMAGE, "indices": ROWS}, {"axis": -2}),
    Case("gather", {"x": drawn(2, 5, 3), "indices": ROWS}, {"axis": 1, "batch_dims": 1}),
    Case("gather_along_axis", {"x": ANYWHERE, "indices": np.array([[0, 4], [-1, 1], [2, 2]], np.int32)}, {"axis": 1}),
    with_x("shape", IMAGE),
    Case("fill", {"shape": np.array([2, 3], np.int32)}, {"value": 1.5}, lambda shape: torch.full((2, 3), 1.5)),
    Case("fill_like", {"ref_tensor": ANYWHERE}, {"value": 2.0}, lambda ref_tensor: torch.full((3, 5), 2.0)),
    Case("range_1d", {}, {"end": 11, "start": 2, "step": 3}),
    Case("one_hot", {"indices": HOT}, {"one_hot_vector_size": 4}, lambda indices: F.one_hot(indices.long(), 4).int()),
    Case(
        "one_hot",
        {"indices": HOT},
        {"one_hot_vector_size": 4, "axis": 0, "on_value": 5, "off_value": 2},
        lambda indices: (F.one_hot(indices.long(), 4) * 3 + 2).T.int(),
    ),
]


def bilinear(height: int, width: int, align: bool) -> Torch:
    return lambda x: F.interpolate(x, (height, width), mode="bilinear", align_corners=align)


def nearest(height: int, width: int) -> Torch:
    return lambda x: F.interpolate(x, (height, width), mode="nearest")


def at_corners_of(height: int, width: int) -> Torch:
    """Pixel i of n lies at i * (size / n): the DEFAULT grid, since (size - size/n) / (n - 1) is just that."""

    def sample(x: Any) -> Any:
        rows = (torch.arange(height) * (x.shape[2] / height)).clamp(max=x.shape[2] - 1)
        columns = (torch.arange(width) * (x.shape[3] / width)).clamp(max=x.shape[3] - 1)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)
        scale = torch.tensor([x.shape[3] - 1, x.shape[2] - 1])
        return F.grid_sample(x, (2 * grid / scale - 1).expand(len(x), -1, -1, -1), align_corners=True)

    return sample


RESIZES = [
    with_x(
        "upsample_bilinear",
        IMAGE,
        bilinear(14, 27, False),
        scale_factor_height=2,
        scale_factor_width=3,
        align_corners=False,
    ),
    with_x(
        "upsample_bilinear",
        IMAGE,
        bilinear(10, 13, True),
        scale_factor_height=1.5,
        scale_factor_width=1.5,
        align_corners=True,
    ),
    with_x("upsample_nearest_neighbor", IMAGE, nearest(14, 27), scale_factor_height=2, scale_factor_width=3),
    with_x("resize_nearest_neighbor", IMAGE, nearest(5, 20), target_size_height=5, target_size_width=20),
    with_x(
        "resize_bilinear",
        IMAGE,
        bilinear(5, 20, False),
        target_size_height=5,
        target_size_width=20,
        sampling_mode="UNALIGN_CORNERS",
    ),
    with_x(
        "resize_bilinear",
        IMAGE,
        bilinear(5, 20, True),
        target_size_height=5,
        target_size_width=20,
        sampling_mode="STRICT_ALIGN_CORNERS",
    ),
    with_x(
        "resize_bilinear",
        IMAGE,
        at_corners_of(5, 20),
        target_size_height=5,
        target_size_width=20,
        sampling_mode="DEFAULT",
    ),
    with_x(
        "resize",
        IMAGE,
        bilinear(5, 20, False),
        shape=[5, 20],
        resized_dims=np.uint32(2),
        interpolation_mode="LINEAR",
        sampling_mode="UNALIGN_CORNERS",
    ),
]

SCALES, ZEROS = drawn(4, seed=41, low=0.01, high=0.1), np.array([-5, 0, 3, 127], np.int8)

QUANTIZED = [
    Case(
        "quantize", {"input": IMAGE}, {"scale": np.float32(0.03), "zero_point": np.uint8(128), "output_dtype": "uint8"}
    ),
    Case("quantize", {"input": IMAGE}, {"scale": SCALES, "zero_point": ZEROS, "axis": 1, "output_dtype": "int8"}),
    Case("quantize", {"input": IMAGE}, {"scale": np.float32(0.5), "output_dtype": "int8"}),
]

CASES = [*UNARY, *BINARY, *ACTIVATIONS, *LINEAR, *CONVOLUTIONS, *POOLS, *NORMALISATIONS, *REDUCTIONS, *SHAPES,
         *LOOKUPS, *RESIZES, *QUANTIZED]  # fmt: skip
