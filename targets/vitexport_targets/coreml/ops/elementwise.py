"""One number out for each number in, or for each pair."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vitexport_targets.coreml.ops.bounds import together
from vitexport_targets.coreml.ops.signature import Apply, Tensor


def _of_one(function: Apply) -> Apply:
    def apply(x: Tensor) -> Tensor:
        return function(x)

    return apply


def _of_two(function: Apply) -> Apply:
    def apply(x: Tensor, y: Tensor) -> Tensor:
        together(x, y)
        return function(x, y)

    return apply


def _identity(x: Tensor) -> Tensor:
    return x


def real_div(x: Tensor, y: Tensor) -> Tensor:
    """Of integers, too, MIL keeps the type: the quotient is rounded down."""
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="floor")


def _floor_div(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode="floor")


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return 1 / (x + epsilon)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    return x.clamp(alpha, beta)


def threshold(x: Tensor, alpha: float) -> Tensor:
    return x.clamp(min=alpha)


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    together(cond, a, b)
    return torch.where(cond, a, b)


def cast(x: Tensor, dtype: str) -> Tensor:
    """Between floats it is the declared type of the output that rounds, or does not: see the evaluator."""
    match dtype:
        case "bool":
            return x != 0
        case "fp16" | "fp32" | "fp64":
            return x if x.is_floating_point() else x.to(torch.get_default_dtype())
        case "int8" | "uint8" | "int16" | "int32" | "int64":
            return x.trunc().to(getattr(torch, dtype)) if x.is_floating_point() else x.to(getattr(torch, dtype))
        case "uint16":
            return x.trunc().to(torch.int32)
        case _:
            raise NotImplementedError(f"casts to '{dtype}'")


_UNARY: Mapping[str, Apply] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "identity": _identity,
    "logical_not": torch.logical_not,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}

_BINARY: Mapping[str, Apply] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": _floor_div,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "real_div": real_div,
    "sub": torch.sub,
}

OPS: Mapping[str, Apply] = {
    **{name: _of_one(function) for name, function in _UNARY.items()},
    **{name: _of_two(function) for name, function in _BINARY.items()},
    "cast": cast,
    "clip": clip,
    "inverse": inverse,
    "log": log,
    "rsqrt": rsqrt,
    "select": select,
    "threshold": threshold,
}
