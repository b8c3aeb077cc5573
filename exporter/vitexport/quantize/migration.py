"""How much of each channel's scale changes hands at a seam, chosen by what eight bits then lose there.

A tensor of activations has one step for all of its channels, so that one channel two hundred times as large as the rest
leaves them two of 256 levels. Divided by s and its column of the weight multiplied by s, the network computes the same,
and the rest has levels again. Two formulas are known for s:

* ``max|x|^a / max|W|^(1-a)`` (Xiao et al. 2022, "SmoothQuant", arXiv:2211.10438), here with ``a`` in quarters;
* the channel's range over the mean range, its middle moved to zero (Li et al. 2022, "RepQ-ViT", arXiv:2212.08254,
  section 3.2): the same with ``a = 1``, of values that an offset was taken from.

Each is tried with and without the offset, and beside leaving the seam as it is. Half of the pictures give the ranges
and the other half is what they are judged on, both ways: where every channel fills its range, another picture leaves it
and is clipped. Judged on the pictures that gave the ranges, ``a = 1`` with the offset won at nearly every seam of
``digits_vit_tiny``, and took ONNX's ``w8a8`` from the 39.8 dB that it has untouched to 34.8; judged as here, to 40.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitexport.quantize.seams import Reader, Seam

#: Of ``a``: on the other half of the pictures, tenths lose within a tenth of what quarters lose.
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)

#: Rows (tokens) of each half of the pictures, and output channels, that a candidate is judged on. Ranges are taken from
#: all rows, and columns' sizes from all output channels.
ROWS = 512
OUTPUTS = 256

#: A channel is not taken for smaller than this share of its seam's median one: what is still in the pictures that were
#: measured may move in others, and its column is not to vanish from the float32 sum.
LEAST_SHARE = 0.01

#: Of what a seam loses as it is, the share that must remain at most for it to be touched: less is the pictures' chance.
WORTH = 0.9


@dataclass(eq=False)
class Seen:
    """What a reader was given: ranges of its columns over all rows, and some of the rows."""

    least: Any = None
    largest: Any = None
    rows: tuple[Any, ...] = ()

    def add(self, value: Any, rows: int) -> None:
        """Of (..., columns), with evenly spaced ``rows`` kept."""
        import torch

        flat = value.detach().reshape(-1, value.shape[-1])
        least, largest = flat.amin(0), flat.amax(0)
        self.least = least if self.least is None else torch.minimum(self.least, least)
        self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)
        kept = torch.linspace(0, len(flat) - 1, min(rows, len(flat))).round().long()
        self.rows = (*self.rows, flat[kept].clone())

    def joined(self, other: Seen) -> Seen:
        import torch

        return Seen(torch.minimum(self.least, other.least), torch.maximum(self.largest, other.largest))


@dataclass(frozen=True)
class Recipe:
    alpha: float
    shifted: bool


@dataclass(frozen=True, eq=False)
class Migration:
    """(channels,) each: the producer's ``x`` becomes ``(x - offset) / scale``."""

    scale: Any
    offset: Any


Half = Mapping[str, Seen]
"""By reader's node."""


def chosen(seam: Seam, halves: tuple[Half, Half], weights: Mapping[str, Any]) -> Migration | None:
    """The best; None where leaving the seam as it is loses hardly more. ``weights`` by name."""
    import torch

    own = [weights[reader.layer.weight] for reader in seam.readers]
    one, other = ([half[reader.layer.node] for reader in seam.readers] for half in halves)
    both = _Ranges.of(seam, [a.joined(b) for a, b in zip(one, other, strict=True)], own)
    if not bool(torch.isfinite(torch.stack([both.least, both.largest])).all()):
        return None
    folds = [
        (
            _Ranges.of(seam, measured, own),
            [_Trial.of(*each) for each in zip(seam.readers, measured, judged, own, strict=True)],
        )
        for measured, judged in ((one, other), (other, one))
    ]

    def lost(recipe: Recipe | None) -> float:
        return sum(trial.lost(*ranges.migrated(recipe)) for ranges, trials in folds for trial in trials)

    shifted = (False, True) if bool(seam.shifts.any()) else (False,)
    recipes = [Recipe(alpha, shift) for shift in shifted for alpha in ALPHAS]
    found = {recipe: lost(recipe) for recipe in recipes}
    best = min(recipes, key=lambda recipe: found[recipe])
    return Migration(*both.migrated(best)) if found[best] <= WORTH * lost(None) else None


@dataclass(frozen=True, eq=False)
class _Ranges:
    """Of a producer's channels, over all columns that read them."""

    seam: Seam
    least: Any
    largest: Any
    heaviest: Any
    """max|W|"""

    @classmethod
    def of(cls, seam: Seam, seen: Sequence[Seen], weights: Sequence[Any]) -> _Ranges:
        import torch

        def by_channel(columns: Sequence[Any], how: str) -> Any:
            found = torch.full((len(seam.free),), torch.inf if how == "amin" else -torch.inf)
            for reader, values in zip(seam.readers, columns, strict=True):
                read = reader.channels >= 0
                found.scatter_reduce_(0, reader.channels[read], values[read], how)
            return torch.where(seam.free, found, torch.zeros_like(found))

        heaviest = by_channel([weight.abs().amax(0) for weight in weights], "amax")
        return cls(
            seam, by_channel([s.least for s in seen], "amin"), by_channel([s.largest for s in seen], "amax"), heaviest
        )

    def migrated(self, recipe: Recipe | None) -> tuple[Any, Any]:
        """Scale and offset of each channel."""
        import torch

        one, none = torch.ones_like(self.least), torch.zeros_like(self.least)
        if recipe is None:
            return one, none
        free = self.seam.free
        offset = torch.where(self.seam.shifts & recipe.shifted, (self.least + self.largest) / 2, none)
        size = torch.maximum((self.least - offset).abs(), (self.largest - offset).abs())
        scale = _floored(size, free) ** recipe.alpha / _floored(self.heaviest, free) ** (1 - recipe.alpha)
        scale = scale / scale[free].log().mean().exp()  # values keep their size on the whole
        return torch.where(free, scale, one), offset


def _floored(size: Any, free: Any) -> Any:
    """Where all are zero, all alike."""
    some = size[free & (size > 0)]
    return size.clamp(min=LEAST_SHARE * float(some.median()) if len(some) else 1.0)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A reader's arithmetic in eight bits: activations uint8 per tensor, weights int8 per output channel."""

    columns: Any
    rows: Any
    least: Any
    largest: Any
    weight: Any
    true: Any
    """Without the bias, which stays float."""

    @classmethod
    def of(cls, reader: Reader, measured: Seen, judged: Seen, weight: Any) -> _Trial:
        import torch

        rows = torch.cat(judged.rows)
        some = weight[torch.linspace(0, len(weight) - 1, min(OUTPUTS, len(weight))).round().long()]
        return cls(reader.channels, rows, measured.least, measured.largest, some, rows @ some.T)

    def lost(self, scale: Any, offset: Any) -> float:
        """rms(a-b)^2 / rms(b)^2 of what the reader makes of values that were migrated."""
        import torch

        read = self.columns >= 0
        scale, offset = torch.where(read, scale[self.columns], 1.0), torch.where(read, offset[self.columns], 0.0)
        least = min(float(((self.least - offset) / scale).min()), 0.0)  # zero is one of the levels
        largest = max(float(((self.largest - offset) / scale).max()), 0.0)
        step = (largest - least) / 255 or 1.0
        zero = round(-least / step)
        rows = (((self.rows - offset) / scale / step).round_() + zero).clamp_(0, 255).sub_(zero).mul_(step)
        weight = self.weight * scale
        steps = weight.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        answer = rows @ ((weight / steps).round_() * steps).T + self.weight @ offset
        return float((answer - self.true).square().sum() / self.true.square().sum().clamp(min=1e-30))
