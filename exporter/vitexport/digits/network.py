"""The network behind ``digits_vit_tiny``. Imports torch and timm: only what builds or trains it imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vitexport import torchvision_schemas
from vitexport.contract import Preprocessing, Size
from vitexport.digits.pictures import SIDE
from vitexport.models import weights

torchvision_schemas.declare()

import timm  # noqa: E402  after the schemas, without which its import can fail

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Grid = tuple[int, int]
    Resample = Callable[[torch.Tensor, Grid, Grid, int], torch.Tensor]

WEIGHTS = Path(__file__).with_name("weights.safetensors")

#: Of a pixel, about. The mean is left at black: a patch without ink then says nothing but where it is.
STD = 0.25

#: The size that it is trained at.
NATIVE = Size(SIDE, SIDE)

PATCH = 16

_ARCHITECTURE = "vit_tiny_patch16_224"


def blank(size: Size = NATIVE) -> Any:
    """timm's ViT-Ti/16 for ten classes, untrained: at 96 px 36 patches and a class token, 5.4 M parameters.

    The patches' average is what is classified: in a short training it learns sooner than a class token's answer (Beyer
    et al. 2022, "Better plain ViT baselines for ImageNet-1k", arXiv:2205.01580).
    """
    return timm.create_model(
        _ARCHITECTURE, img_size=(size.height, size.width), num_classes=10, global_pool="avg", weight_init="jax"
    )


def trained() -> Any:
    """:func:`blank` with the weights that are committed, in eval mode: stored as float16, float32 in memory."""
    module = blank()
    weights.load_file(module, WEIGHTS)
    return module.eval()


def preprocessing(size: Size = NATIVE) -> Preprocessing:
    """What a photo goes through. It is stretched to ``size``: a crop could cut a digit's end off."""
    return Preprocessing(size, std=(STD, STD, STD), interpolation="bicubic", fit="squash")


def resized(module: Any, size: Size, resample: Resample) -> Any:
    """``module`` for pictures of ``size``: the same weights, the position table resampled by a rule of
    :data:`vitexport.posembed.RULES`, or by a wrong one."""
    made = blank(size)
    state = module.state_dict()
    source, target = (each.patch_embed.grid_size for each in (module, made))
    state["pos_embed"] = resample(state["pos_embed"], source, target, module.num_prefix_tokens)
    made.load_state_dict(state, strict=True)
    return made.eval()


def normalised(images: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), as :func:`preprocessing` has it: black is 0, white 1 / ``STD``."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255 / STD
