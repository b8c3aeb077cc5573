"""Train ``digits_vit_tiny``: ``make digits``, or ``python -m vitexport.digits.train``.

Took 7 minutes (5:25 and 1:27) on two idle cores of an Intel Xeon, 2 threads, torch 2.13. Seeded: a second run there
printed the same losses for the 33 epochs that it was given; another machine sums in another order and ends elsewhere.

Needs scikit-learn for its pictures. Writes the held-out originals first, then the weights, float16, over the committed
ones: ``python -m vitexport.digits.evaluate`` says what they are worth.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from vitexport.digits import pictures
from vitexport.digits.network import WEIGHTS, blank, normalised

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 0


@dataclass(frozen=True)
class Phase:
    """``blocks`` of the network, trained for ``epochs`` with a rate that rises to ``rate`` and falls to nothing."""

    blocks: int
    epochs: int
    rate: float
    easy: float = 0.0
    """Share of the epochs in which the pictures go from mild to wide."""


#: The first blocks learn alone, at a quarter of the cost and without the long plateau of a deep network on few
#: pictures; then the others join, as identities at first (Gong et al. 2019, "Efficient Training of BERT by
#: Progressively Stacking"; Zhang et al. 2019, "Fixup", arXiv:1901.09321).
PHASES = (Phase(blocks=3, epochs=80, rate=2.5e-4, easy=0.4), Phase(blocks=12, epochs=8, rate=1e-4))

_BATCH = 32

#: As DeiT's (Touvron et al. 2021, arXiv:2012.12877), with half of its label smoothing.
_WEIGHT_DECAY = 0.05
SMOOTHING = 0.05
_WARM_UP = 0.05
_LARGEST_GRADIENT = 1.0

#: Amplitude of the sines that the position table starts from, beside patch embeddings of about 0.5.
_POSITION_AMPLITUDE = 0.5


def main() -> None:
    originals, digits, sheet = pictures.split(SEED)
    Image.fromarray(sheet).save(pictures.HELD_OUT)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    module = blank()
    _start_positions(module)
    for phase in PHASES:
        fit(module, originals, digits, rng, phase)
        for block in module.blocks[phase.blocks :]:
            _pass_through(block)
    save(module, WEIGHTS)


def fit(
    module: Any, originals: NDArray[np.uint8], digits: NDArray[np.int64], rng: np.random.Generator, phase: Phase
) -> list[float]:
    """Train the first blocks in place, on a fresh copy of every original each epoch; leave ``module`` in eval mode.

    Returns the mean loss of each epoch.
    """
    blocks, module.blocks = module.blocks, module.blocks[: phase.blocks]
    optimiser = torch.optim.AdamW(module.parameters(), weight_decay=_WEIGHT_DECAY, fused=True)
    steps, losses, began = len(originals) // _BATCH, [], time.perf_counter()
    total_steps = phase.epochs * steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, phase.rate, total_steps=total_steps, pct_start=_WARM_UP)
    module.train()
    for epoch in range(phase.epochs):
        variety = pictures.MILD.towards(pictures.WIDE, _ramp(epoch, phase))
        total, right = 0.0, 0
        for chosen in rng.permutation(len(originals))[: steps * _BATCH].reshape(steps, _BATCH):
            batch = normalised(np.stack([pictures.draw(originals[i], variety, rng) for i in chosen]))
            labels = torch.from_numpy(digits[chosen])
            logits = module(batch)
            loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), _LARGEST_GRADIENT)
            optimiser.step()
            schedule.step()
            total += loss.item() / steps
            right += int((logits.argmax(1) == labels).sum())
        losses.append(total)
        said = f"{phase.blocks:2} blocks  epoch {epoch + 1:2}/{phase.epochs}  loss {total:.3f}"
        print(f"{said}  top-1 {right / steps / _BATCH:.3f}  {time.perf_counter() - began:5.0f} s", flush=True)
    module.blocks = blocks
    module.eval()
    return losses


def _ramp(epoch: int, phase: Phase) -> float:
    """From 0 to 1 over the easy share of a phase."""
    easy = phase.easy * phase.epochs
    return min(1.0, epoch / easy) if easy else 1.0


def save(module: torch.nn.Module, path: Path) -> None:
    """float16 safetensors: half the bytes, and a step of 5e-4 beside a weight's spread of 2e-2."""
    from safetensors.torch import save_file

    save_file({name: tensor.half().contiguous() for name, tensor in module.state_dict().items()}, path)


def _start_positions(module: Any) -> None:
    """The 2-D sine table of He et al. 2021 (arXiv:2111.06377): a short training leaves what it starts from, and a table
    of noise has nothing between its entries for a resampling to find."""
    from timm.layers import build_sincos2d_pos_embed

    table = build_sincos2d_pos_embed(list(module.patch_embed.grid_size), dim=module.embed_dim)
    with torch.no_grad():
        module.pos_embed[:, module.num_prefix_tokens :] = _POSITION_AMPLITUDE * table


def _pass_through(block: Any) -> None:
    """Both branches of ``block`` begin at zero, so that its input leaves it as it came."""
    for last in (block.attn.proj, block.mlp.fc2):
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)


if __name__ == "__main__":
    main()
