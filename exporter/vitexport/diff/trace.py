"""What is found along a network: at each place, how far an artifact's value is from PyTorch's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from vitexport import parity
from vitexport.contract import Size

if TYPE_CHECKING:
    from vitexport.contract import Meaning, Tensor

#: ``same``: the float32 file has PyTorch's very numbers there; ``nearest``: that file answers wrongly, and from here on
#: no value has them, but this comes closest; ``not matched``: a converter has merged the value with the next.
Matched = Literal["same", "nearest", "not matched"]


@dataclass(frozen=True)
class Row:
    """One place; the worst over the golden photos. None: there is nothing to compare."""

    place: str
    """``blocks.3``, as PyTorch calls the module that the value leaves; at the end, the network's outputs."""
    repeated: bool = False
    """Whether it is one of several blocks of a class."""
    matched: Matched = "not matched"
    value: str = ""
    """What the artifact calls it."""
    snr_db: float | None = None
    own_snr_db: float | None = None
    """Beside what PyTorch makes of the artifact's own values before this place: what is lost here and nowhere else."""
    branch_snr_db: float | None = None
    """The same loss beside what the block adds to what it is given, where it has a residual: weights in fewer bits lose
    a share of that, however little it is. Else ``own_snr_db``."""
    drift: float | None = None
    cosine: float | None = None


@dataclass(frozen=True)
class Trace:
    """One variant on one provider, along the whole network."""

    model: str
    target: str
    precision: str
    provider: str
    size: Size
    runtime: str = ""
    first: str = ""
    """The first place whose SNR falls; empty where none stands out."""
    finding: str = ""
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""
    """Why it was not run."""

    @property
    def label(self) -> str:
        return f"{self.target} {self.precision} on {self.provider}, {self.size}"


@dataclass(frozen=True, eq=False)
class Photo:
    """The values at one place, of one photo."""

    theirs: Tensor
    ours: Tensor
    """PyTorch's, from the photo on."""
    alone: Tensor
    """PyTorch's, of what the artifact had before this place."""
    given: Tensor | None = None
    """What the artifact had at the place before, where it is of the same shape."""


def measured(row: Row, photos: Sequence[Photo], meaning: Meaning = "features") -> Row:
    """``row`` with its figures, NaN where one is."""
    return replace(
        row,
        snr_db=float(np.min([parity.snr_db(p.theirs, p.ours, meaning) for p in photos])),
        own_snr_db=float(np.min([parity.snr_db(p.theirs, p.alone, meaning) for p in photos])),
        branch_snr_db=float(np.min([_branch_snr_db(p, meaning) for p in photos])),
        drift=float(np.max([parity.drift(p.theirs, p.ours, meaning) for p in photos])),
        cosine=float(np.min([parity.cosine(p.theirs, p.ours) for p in photos])),
    )


def _branch_snr_db(photo: Photo, meaning: Meaning) -> float:
    if photo.given is None:
        return parity.snr_db(photo.theirs, photo.alone, meaning)
    given = photo.given.astype(np.float64)
    return min(
        parity.snr_db(photo.theirs, photo.alone),
        parity.snr_db(photo.theirs - given, photo.alone - given),
    )
