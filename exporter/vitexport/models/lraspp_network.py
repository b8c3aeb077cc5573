"""The network behind ``lraspp_mobilenet_v3``. Imports torch and torchvision: only ``lraspp.build`` imports this."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large


class Lraspp(nn.Module):  # type: ignore[misc]  # torch ships no types for it
    """torchvision's ``lraspp_mobilenet_v3_large`` without its last step: scores at an eighth of the input's size.

    float32 (N, 3, H, W) -> float32 (N, classes, H / 8, W / 8), sides rounded up. torchvision then enlarges all classes
    to (H, W): at 520 pixels, 22.7 MB instead of 0.35 MB. That is left to whoever draws them, as SegFormer leaves it.
    Parameters are named as torchvision's are.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        whole = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
        self.backbone, self.classifier = whole.backbone, whole.classifier

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.backbone(pixel_values))
