"""Which value of an artifact is a block's output: found by its numbers, never by its name.

Converters name what they make as they like, merge and transpose. But the float32 file of a network holds, somewhere,
the very numbers that PyTorch has where a block ends; there its name is read off. Files in fewer bits keep that name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vitexport.contract import Value
from vitexport.diff.order import Order, orders

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors

#: rms(a-b) / rms(b) of two values that are the same one: 60 dB. Float32 runtimes leave 100 to 140 dB at any place of
#: the presets, and the mildest fault that the tests plant 85. Of several that are as near, the nearest is taken.
SAME = 1e-3

#: Of a value that may be the one in a file that computes it wrongly: it has more in common with PyTorch's than it has
#: not, 0 dB.
LIKE = 1.0

#: What is read at once: 64 MiB cross a browser's automation protocol, as base64, in seconds.
_CHUNK_BYTES = 2**26

Read = Callable[[tuple[str, ...]], "Tensors"]


@dataclass(frozen=True)
class Match:
    key: str
    """What the float32 file calls it."""
    order: Order
    noise: float
    """rms(a-b) / rms(b) in the float32 file."""

    @property
    def same(self) -> bool:
        """Whether the numbers say that it is the value; else it is merely the nearest."""
        return self.noise <= SAME


@dataclass(frozen=True)
class _Candidate:
    position: int
    """In the order in which the file computes its values."""
    match: Match


def match(wanted: Tensors, values: Mapping[str, Value], read: Read) -> dict[str, Match]:
    """A value for each of ``wanted``, PyTorch's in the order in which they are computed; none for what has no like.

    ``values`` are those of the float32 file, ``read`` computes some of them from the same picture.
    """
    candidates: dict[str, list[_Candidate]] = {name: [] for name in wanted}
    positions = {key: position for position, key in enumerate(values)}
    sizes = {value.size for value in wanted.values()}
    for chunk in _chunks({key: value for key, value in values.items() if _size(value) in sizes}):
        found = read(tuple(values[key].name for key in chunk))
        for key in chunk:
            for name, ours in wanted.items():
                near = _nearest(key, found[values[key].name], ours)
                if near is not None:
                    candidates[name].append(_Candidate(positions[key], near))
    return _in_order(candidates)


def _size(value: Value) -> int:
    return -1 if value.shape is None else math.prod(value.shape)


def _chunks(values: Mapping[str, Value]) -> Iterator[list[str]]:
    chunk: list[str] = []
    held = 0
    for key, value in values.items():
        chunk.append(key)
        held += 4 * _size(value)
        if held >= _CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def _nearest(key: str, theirs: Tensor, ours: Tensor) -> Match | None:
    """In the order of axes in which it comes nearest; None where it has nothing in common."""
    if theirs.size != ours.size:
        return None
    level = _rms(ours)
    # A transposition keeps the rms: without that in common, no order need be tried. Within a factor of two it may be
    # the value with a fault in it.
    if not 0.5 * level <= _rms(theirs) <= 2 * level:
        return None
    best: Match | None = None
    for order in orders(theirs.shape, ours.shape):
        noise = _rms(order.apply(theirs) - ours) / (level or 1.0)
        if noise < (LIKE if best is None else best.noise):
            best = Match(key, order, noise)
        if best is not None and best.same:
            break
    return best


def _rms(values: Tensor) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _in_order(candidates: Mapping[str, Sequence[_Candidate]]) -> dict[str, Match]:
    """What is computed later in PyTorch is computed later in the file. Those that are sure come first. A value that is
    missing before one of them is not computed at all (a batch norm goes into its convolution); after the last of them,
    all may be wrong, and the nearest is taken."""
    chosen: dict[str, _Candidate] = {}
    reached = -1
    for name, found in candidates.items():
        same = [c for c in found if c.match.same and c.position > reached]
        if same:
            chosen[name] = min(same, key=lambda c: c.match.noise)
            reached = chosen[name].position
    names = list(candidates)
    last = max((names.index(name) for name in chosen), default=-1)
    for name in names[last + 1 :]:
        later = [c for c in candidates[name] if c.position > reached]
        if later:
            chosen[name] = min(later, key=lambda c: c.match.noise)
            reached = chosen[name].position
    return {name: chosen[name].match for name in names if name in chosen}
