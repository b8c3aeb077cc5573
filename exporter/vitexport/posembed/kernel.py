"""Patch kernels at another patch size: FlexiViT's PI-resize."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vitexport.posembed.grid import Grid

if TYPE_CHECKING:
    import torch


def pi_resize(
    kernel: torch.Tensor, target: Grid, mode: Literal["bicubic", "bilinear"] = "bicubic", antialias: bool = True
) -> torch.Tensor:
    """A kernel that answers a resized patch as ``kernel`` (out, in, height, width) answers the patch itself.

    Beyer et al. 2023, "FlexiViT: One Model for All Patch Sizes" (arXiv:2212.08013), eq. 3: with B the matrix that
    resizes a flattened patch, the new weights are pinv(B)^T w. Exact where patches grow, least squares where they
    shrink, so never chain it (32 -> 8 -> 32 loses what 8 cannot hold). ``mode`` and ``antialias`` must be those of the
    image's own resize; the defaults are ``timm.layers.resample_patch_embed``'s. float32 inside, the kernel's dtype out.
    """
    import torch
    import torch.nn.functional as F

    source = (kernel.shape[2], kernel.shape[3])
    if source == target:
        return kernel
    pixels = source[0] * source[1]
    basis = torch.eye(pixels).reshape(pixels, 1, *source)
    resized = F.interpolate(basis, size=target, mode=mode, align_corners=False, antialias=antialias)
    pinv = torch.linalg.pinv(resized.flatten(1).T)  # (source pixels, target pixels)
    return (kernel.float().flatten(2) @ pinv).unflatten(2, target).to(kernel.dtype)
