"""What a model costs at a size, before anything is downloaded or built: ``vitexport inspect``.

Every figure is computed from the real module, run once on the meta device (shapes without numbers): see
:mod:`.skeleton` for the module and :mod:`.operations` for the count. Nothing comes from a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from vitexport import models
from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest

if TYPE_CHECKING:
    from vitexport.anatomy.operations import Count, Operation
    from vitexport.anatomy.skeleton import Skeleton

#: How many times larger or smaller than the training size a side may be without a warning. A choice: at 1.5 times
#: ``digits_vit_tiny`` has lost 8 to 11 points of its 97 (digits/README.md), at 1.3 times 3; below 1.5 lies 224 against
#: 160, above it 224 against 384.
FAR = 1.5

#: Weights that share one 16-bit scale at 4 bits; ONNX Runtime's MatMulNBits takes 16 and up, and 32 is its default.
_BLOCK = 32


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one picture or clip; twice as many FLOPs."""

    total: int
    attention: int
    """Projections and the two products of queries, keys and values."""
    attention_products: int
    """Those two alone: what grows with the square of the tokens where attention sees the whole picture."""
    mlp: int
    rest: int


@dataclass(frozen=True)
class WeightBytes:
    """``w8``, ``w4``: the weights of convolutions and matrix products in 8 and 4 bits, all else in 16.

    With 16-bit scales, one an output channel (w8), one a block of 32 weights (w4).
    """

    fp32: int
    fp16: int
    w8: int
    w4: int


@dataclass(frozen=True)
class Anatomy:
    """One model at one size. Activations count a batch of 1."""

    model: str
    size: Size
    trained_at: Size | None
    """None where the source does not say."""
    grid: tuple[int, ...] | None
    """Rows and columns of the feature map that the first attention sees, of a clip after its steps; None without
    attention."""
    tokens: int | None
    """That it sees there, class and register tokens included."""
    parameters: int
    macs: Macs
    attention_entries: int
    """Of all attention matrices, over heads and layers."""
    attention_bytes: int
    """The same in float32."""
    peak_activation_bytes: int
    """float32, estimated: see :class:`vitexport.anatomy.operations.Count`."""
    weight_bytes: WeightBytes
    warnings: tuple[str, ...]


def inspect(model: str, sizes: Sequence[Size] = (), frames: int | None = None) -> tuple[Anatomy, ...]:
    """``model`` at each of ``sizes`` (none: its own), in that order; a video network on clips of ``frames`` (None: its
    own number). Raises ``BadRequest`` as an export would."""
    models.family_of(ExportRequest(model=model, frames=frames))  # what is no model is refused before torch is imported
    from vitexport.anatomy.skeleton import skeleton

    return tuple(_dissect(model, skeleton(model, size, frames)) for size in dict.fromkeys(sizes or (None,)))


def _dissect(model: str, found: Skeleton) -> Anatomy:
    counted = _count(model, found)
    in_attention = [operation for operation, part in counted.operations if part == "attention"]
    products = sum(operation.macs for operation in in_attention if operation.of_values)
    attention, mlp, rest = (counted.macs(part) for part in ("attention", "mlp", "rest"))
    macs = Macs(attention + mlp + rest, attention, products, mlp, rest)
    entries = sum(prod(operation.shape) for operation in in_attention if operation.kind == "softmax")
    grid, tokens = _grid(counted)
    return Anatomy(
        model=model,
        size=found.size,
        trained_at=found.trained_at,
        grid=grid,
        tokens=tokens,
        parameters=sum(parameter.numel() for parameter in found.module.parameters()),
        macs=macs,
        attention_entries=entries,
        attention_bytes=4 * entries,
        peak_activation_bytes=counted.peak_bytes,
        weight_bytes=_weight_bytes(found.module, counted),
        warnings=tuple(_warnings(found, macs, grid)),
    )


def _count(model: str, found: Skeleton) -> Count:
    import torch

    from vitexport.anatomy.operations import count

    shape = (1, *Preprocessing(found.size, clip=found.clip).input_shape)
    try:
        return count(found.module, torch.empty(shape, device="meta"))
    except Exception as error:  # a module raises what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:300]
        raise BadRequest(
            f"'{model}' cannot take an input of shape {shape} ({reason}). Try another --size; code that branches on an "
            "image's values cannot be counted."
        ) from error


def _grid(counted: Count) -> tuple[tuple[int, ...] | None, int | None]:
    """The map that the last convolution before the first attention left, and the rows of that attention's first
    projection."""
    before: Operation | None = None
    for operation, part in counted.operations:
        if part == "attention" and operation.weights:
            channels = 1 if operation.kind == "convolution" else -1
            tokens = prod(operation.shape) // operation.shape[channels]
            return (before.shape[2:] if before else None), tokens
        if operation.kind == "convolution":
            before = operation
    return None, None


def _weight_bytes(module: Any, counted: Count) -> WeightBytes:
    multiplied = {name for operation, _ in counted.operations for name in operation.weights}
    parameters = dict(module.named_parameters())
    total = sum(p.numel() for p in parameters.values())
    matrices = [parameters[name] for name in multiplied if parameters[name].ndim > 1]
    packed = sum(p.numel() for p in matrices)
    other = 2 * (total - packed)
    channels = sum(p.shape[0] for p in matrices)
    blocks = sum(-(-p.numel() // _BLOCK) for p in matrices)
    return WeightBytes(4 * total, 2 * total, other + packed + 2 * channels, other + -(-packed // 2) + 2 * blocks)


def _warnings(found: Skeleton, macs: Macs, grid: tuple[int, ...] | None) -> list[str]:
    said = []
    if 2 * macs.attention > macs.total:
        said.append(
            f"{found.size}: attention is {macs.attention / macs.total:.0%} of the cost, "
            f"{macs.attention_products / macs.total:.0%} its products alone, which grow with the square of the tokens. "
            "A smaller size, a larger patch or windowed attention costs less."
        )
    if grid and found.trained_at and (ratio := _farthest(found.size, found.trained_at)) > FAR:
        said.append(
            f"{found.size} is {ratio:.1f} times off the {found.trained_at} that the model was trained at. "
            "Check its accuracy there, or take a checkpoint trained nearer."
        )
    return said


def _farthest(size: Size, trained_at: Size) -> float:
    """The larger ratio of the two sides, up or down."""
    ratios = (size.height / trained_at.height, size.width / trained_at.width)
    return max(max(ratio, 1 / ratio) for ratio in ratios)
