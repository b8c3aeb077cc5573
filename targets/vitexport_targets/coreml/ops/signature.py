"""What an op takes, read from the function that does it: its parameters are named and typed as MIL names them.

A parameter annotated ``Tensor`` gets a tensor; ``int``, ``float``, ``bool``, ``str``, ``Ints`` or ``Bools`` get the
value that a constant (or, for an open size, a computed) tensor holds; ``Tensors`` gets a list of them.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Tensor: TypeAlias = torch.Tensor
Tensors: TypeAlias = tuple[torch.Tensor, ...]
Ints: TypeAlias = tuple[int, ...]
Bools: TypeAlias = tuple[bool, ...]

#: Text, alone or as labels: what torch has no tensors for.
Text: TypeAlias = NDArray[np.str_]
Labels: TypeAlias = tuple[str, ...]

#: What passes between ops.
Value: TypeAlias = Tensor | Text

Apply: TypeAlias = Callable[..., Any]


def _one(value: Value) -> Any:
    if (value.numel() if isinstance(value, torch.Tensor) else value.size) != 1:
        raise ValueError(f"takes one value and gets a tensor of shape {list(value.shape)}")
    return value.item()


def _number(value: Value, exactly: tuple[type, ...]) -> Any:
    found = _one(value)
    if not isinstance(found, exactly):
        raise ValueError(f"takes {exactly[-1].__name__} and gets {found!r}")
    return found


def _text(value: Value) -> str:
    return str(_number(value, (str,)))


def _vector(value: Value, exactly: type) -> tuple[Any, ...]:
    found = value.tolist() if value.ndim else [value.item()]
    if value.ndim > 1 or any(type(v) is not exactly for v in found):
        raise ValueError(f"takes a list of {exactly.__name__} and gets a tensor of shape {list(value.shape)}")
    return tuple(found)


def _tensor(value: Value) -> Tensor:
    if not isinstance(value, torch.Tensor):
        raise ValueError("takes a tensor and gets text")
    return value


_KINDS: Mapping[Any, Callable[[Value], Any]] = {
    Tensor: _tensor,
    int: lambda value: int(_number(value, (int,))),
    float: lambda value: float(_number(value, (int, float))),
    bool: lambda value: bool(_number(value, (bool,))),
    str: _text,
    Ints: lambda value: _vector(value, int),
    Bools: lambda value: _vector(value, bool),
    Labels: lambda value: _vector(value, str),
}


@dataclass(frozen=True)
class Parameter:
    convert: Callable[[Value], Any]
    required: bool
    several: bool = False
    """Whether it takes all that it is bound to, as a tuple."""


@dataclass(frozen=True)
class Op:
    """One row of the table."""

    apply: Apply
    parameters: Mapping[str, Parameter]


def op(apply: Apply) -> Op:
    """The row for a function."""
    hints = typing.get_type_hints(apply)
    return Op(apply, {name: _parameter(hints[name], p) for name, p in inspect.signature(apply).parameters.items()})


def _parameter(hint: Any, parameter: inspect.Parameter) -> Parameter:
    if isinstance(hint, types.UnionType):  # X | None
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    required = parameter.default is inspect.Parameter.empty
    if hint == Tensors:
        return Parameter(_tensor, required, several=True)
    return Parameter(_KINDS[hint], required)
