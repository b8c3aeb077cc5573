"""Does the network still read at other sizes than its own? ``python -m vitexport.digits.evaluate`` prints the table.

The exam is drawn at 96x96 and brought to each size as any photo is, by the network's preprocessing. The position table
is taken there by timm's rule, which is the network's own, by another library's, and by three mistakes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from vitexport.contract import Size
from vitexport.digits import network, pictures
from vitexport.posembed import RULES, Grid, absolute
from vitexport.preprocess import preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Resample = Callable[[torch.Tensor, Grid, Grid, int], torch.Tensor]

#: 4x4, 6x6, 9x9 and 6x8 patches.
SIZES = (Size(64, 64), network.NATIVE, Size(144, 144), Size(96, 128))

#: Pictures that are run at once: enough to keep the cores busy, and small beside the weights.
_BATCH = 100


def in_order(table: torch.Tensor, source: Grid, target: Grid, kept: int) -> torch.Tensor:
    """A mistake: the table's entries go to the new patches one after another, whichever row those are in.

    What copying the part of a state dict that fits does; entries that are missing are zero.
    """
    patches = target[0] * target[1]
    given = table[:, kept : kept + patches]
    missing = table.new_zeros(table.shape[0], patches - given.shape[1], table.shape[2])
    return torch.cat([table[:, :kept], given, missing], dim=1)


def along_a_line(table: torch.Tensor, source: Grid, target: Grid, kept: int) -> torch.Tensor:
    """A mistake: linear interpolation of the flat sequence of entries, as if the picture were one row of patches."""
    line = table[:, kept:].transpose(1, 2)
    stretched = F.interpolate(line, size=target[0] * target[1], mode="linear", align_corners=False)
    return torch.cat([table[:, :kept], stretched.transpose(1, 2)], dim=1)


RIGHT: dict[str, Resample] = {"timm": RULES["timm"].resample, "hf": RULES["hf"].resample}

#: ``nearest``: neighbours share an entry, or an entry is left out.
WRONG: dict[str, Resample] = {
    "nearest": partial(absolute.to_size, mode="nearest"),
    "along a line": along_a_line,
    "in order": in_order,
}


def top1(module: Any, size: Size, images: NDArray[np.uint8], digits: NDArray[np.int64]) -> float:
    """Share of ``images``, uint8 (N, height, width, 3), that ``module``, which takes ``size``, reads as ``digits``."""
    return float(np.mean(read(module, size, images) == digits))


def read(module: Any, size: Size, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The digit that ``module`` sees in each of ``images``."""
    how, answers = network.preprocessing(size), []
    for start in range(0, len(images), _BATCH):
        batch = np.concatenate([preprocess(image, how) for image in images[start : start + _BATCH]])
        with torch.inference_mode():
            answers.append(module(torch.from_numpy(batch)).argmax(1).numpy())
    return np.concatenate(answers)


def main() -> None:
    """Print top-1 on the exam by size and rule, as Markdown."""
    module, (images, digits) = network.trained(), pictures.held_out()
    ways = {**RIGHT, **WRONG}
    print(f"| size | {' | '.join(ways)} |\n|{'---|' * (1 + len(ways))}", flush=True)
    for size in SIZES:
        if size == network.NATIVE:
            own = f"{top1(module, size, images, digits):.1%}"
            shown = [own] * len(ways)  # every rule returns a table that is on its grid already as it is
        else:
            made = (network.resized(module, size, resample) for resample in ways.values())
            shown = [f"{top1(each, size, images, digits):.1%}" for each in made]
        print(f"| {size} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
