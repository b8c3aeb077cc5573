"""Checkpoints of the hub that have a name here, with a description that travels along (``descriptions/NAME/``).

The description, a ``config.json`` and a ``preprocessor_config.json``, says what differs from transformers' defaults:
with ``--weights random`` or a file of weights nothing is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_DESCRIPTIONS = Path(__file__).with_name("descriptions")


@dataclass(frozen=True)
class HubPreset:
    repository: str
    summary: str
    description: Path


def _preset(name: str, repository: str, summary: str) -> tuple[str, HubPreset]:
    return name, HubPreset(repository, summary, _DESCRIPTIONS / name)


PRESETS = dict(
    (
        _preset(
            "videomae_small",
            "MCG-NJU/videomae-small-finetuned-kinetics",
            "VideoMAE, ViT-S on clips of 16 frames, 400 actions; CC-BY-NC-4.0",
        ),
        _preset(
            "timesformer_base",
            "facebook/timesformer-base-finetuned-k400",
            "TimeSformer, divided attention, 8 frames, 400 actions; CC-BY-NC-4.0",
        ),
        _preset(
            "vivit_base",
            "google/vivit-b-16x2-kinetics400",
            "ViViT-B/16x2, 32 frames, 400 actions; MIT; 3,137 tokens",
        ),
        _preset(
            "segformer_b0",
            "nvidia/segformer-b0-finetuned-ade-512-512",
            "SegFormer-B0 512, 150 classes of ADE20K, logits at a quarter; NVIDIA's licence: non-commercial",
        ),
        _preset(
            "mobilevit_deeplab_xxs",
            "apple/deeplabv3-mobilevit-xx-small",
            "MobileViT-XXS and DeepLabV3 512, 21 classes of VOC, logits at a sixteenth; Apple's sample code licence",
        ),
    )
)
