"""The networks that a target's matrix is made of, with weights that mean something.

Random weights have three sources. ``random`` is the product's own, which enlivens every layer: for transformers, whose
branches are small, float16 stays within 45 dB; deep convolutional ones become chaotic under it (an EfficientFormerV2
keeps 72 dB in *float32*), as no trained network is. Those take timm's initialisation, ``calibrated`` with BatchNorm
statistics of the photos, or ``initial``, as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Below it a channel is dead on these five pictures, and its BatchNorm would magnify rounding ten times.
LEAST_VARIANCE = 0.01


@dataclass(frozen=True)
class Family:
    """One export, whose gates must all hold."""

    model: str
    weights: str = "random"
    target: str = "coreml"
    precision: str = "fp16"

    def __str__(self) -> str:
        return self.model


FAST = [Family("vit_tiny"), Family("selfie", "pretrained")]
SLOW = [
    Family("convnext_atto"),
    Family("vit_small"),
    Family("deit_tiny"),
    Family("dinov2_small"),
    Family("vit_small_patch16_dinov3"),
    Family("swin_tiny"),
    Family("swinv2_tiny_window8_256"),
    Family("hiera_tiny_224"),
    Family("eva02_tiny_patch14_224"),
    Family("vit_base_patch16_siglip_224"),
    Family("vit_tiny_seg"),
    Family("efficientformer_l1", "calibrated"),
    Family("efficientformerv2_s0", "calibrated"),
    Family("fastvit_t8", "calibrated"),
    Family("mobilevit_xs", "calibrated"),
    Family("mobilenetv4_conv_small", "initial"),
    Family("efficientvit_b0", "calibrated"),
    Family("repvit_m0_9", "calibrated"),
    Family("tiny_vit_5m_224", "calibrated"),
]


def weights_of(family: Family, folder: Path) -> str:
    """What ``--weights`` is given."""
    if family.weights in ("calibrated", "initial"):
        return str(_initialised(family, folder / "weights.safetensors"))
    return family.weights


def _initialised(family: Family, path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    from vitexport.models.timm_weights import import_timm

    torch.manual_seed(0)
    module = import_timm().create_model(family.model, pretrained=False).eval()
    if family.weights == "calibrated":
        _calibrate(module)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


def _calibrate(module) -> None:
    """BatchNorm's statistics as they are on the photos that parity is judged on."""
    import numpy as np
    import torch

    from vitexport import Preprocessing, Size, photos
    from vitexport.preprocess import preprocess

    how = Preprocessing(Size(*module.pretrained_cfg["input_size"][1:]), (0.5,) * 3, (0.5,) * 3)
    batch = torch.from_numpy(np.concatenate([preprocess(probe.image, how) for probe in photos.probes(None)]))
    norms = [part for part in module.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # the mean over all batches, of which there is one
            norm.reset_running_stats()
            norm.train()
        module(batch)
        for norm in norms:
            norm.eval()
            norm.running_var.clamp_(min=LEAST_VARIANCE)
