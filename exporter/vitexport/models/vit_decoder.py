"""The network behind ``vit_tiny_seg``. Imports torch and timm: only ``segmentation.build`` imports this."""

from __future__ import annotations

import timm
import torch
from torch import nn

from vitexport.contract import Size

#: Decoder width and stages: two doublings take the 1/16 grid to 1/4, where SegFormer too stops (Xie et al. 2021,
#: arXiv:2105.15203); the last step is bilinear. 0.15 GMAC beside the backbone's 1.25 at 224 pixels.
_WIDTH = 64
_STAGES = 2


class VitDecoder(nn.Module):  # type: ignore[misc]  # torch ships no types for it
    """ViT tokens -> 1x1 reduction -> (bilinear x2, 3x3 convolution) stages -> scores at the input's size.

    float32 (N, 3, H, W), H and W multiples of the patch -> float32 (N, classes, H, W).
    """

    def __init__(self, backbone: str, size: Size, classes: int) -> None:
        super().__init__()
        self.size = (size.height, size.width)
        self.backbone = timm.create_model(backbone, num_classes=0, img_size=self.size)
        self.reduce = nn.Conv2d(self.backbone.embed_dim, _WIDTH, 1)
        height, width = self.backbone.patch_embed.grid_size
        self.stages = nn.ModuleList(_stage((height << n, width << n)) for n in range(1, _STAGES + 1))
        self.classify = nn.Conv2d(_WIDTH, classes, 1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        tokens = self.backbone.forward_features(pixel_values)[:, self.backbone.num_prefix_tokens :]
        grid = tokens.transpose(1, 2).unflatten(2, self.backbone.patch_embed.grid_size)
        features = self.reduce(grid)
        for stage in self.stages:
            features = stage(features)
        return nn.functional.interpolate(self.classify(features), self.size, mode="bilinear", align_corners=False)


def _stage(size: tuple[int, int]) -> nn.Module:
    # By size and not by factor: ONNX Runtime's float16 converter makes an invalid graph of two resizes that share their
    # scales ("two nodes with same node name", onnxruntime 1.31).
    return nn.Sequential(
        nn.Upsample(size, mode="bilinear", align_corners=False),
        nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        nn.ReLU(),
    )
