"""A model's module on PyTorch's meta device: every shape, no weights, nothing downloaded.

What ``vitexport --model`` would build, at the same size and refused with the same words, family by family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vitexport import models
from vitexport.contract import Clip, ExportRequest, Size
from vitexport.models import sizes, video


@dataclass(frozen=True, eq=False)
class Skeleton:
    """``module`` takes float32 (1, 3, height, width) of ``size``, or one clip, on the meta device; eval mode."""

    module: Any
    size: Size
    trained_at: Size | None
    """None where nobody says."""
    clip: Clip | None = None


def skeleton(model: str, size: Size | None, frames: int | None = None) -> Skeleton:
    """``model`` at ``size`` and ``frames`` (None: as it is exported by default). Raises ``BadRequest``."""
    request = ExportRequest(model=model, sizes=(size,) if size else (), frames=frames)
    family = models.family_of(request)
    build = _BUILDERS.get(family.name, _stripped)
    found = build(request)
    found.module.eval().requires_grad_(False)
    return found


def _timm(request: ExportRequest) -> Skeleton:
    from vitexport.models import timm as family
    from vitexport.models.timm_weights import Architecture

    preset = family.PRESETS.get(request.model, family.Preset(request.model, ""))
    config = family.pretrained_config(preset.name)
    native = Size(*config.input_size[1:])
    size = request.size or preset.size or native
    architecture = Architecture(preset.name, config, config.num_classes)
    if size != native and config.fixed_input_size:
        step, what = architecture.step(request.model)
        sizes.check_multiple(size, step, request.model, what)
    with torch.device("meta"):
        module = architecture.create(request.model, size)
    return Skeleton(module, size, native)


def _hub(request: ExportRequest) -> Skeleton:
    from vitexport.models import hub

    hub.needs_optimum()
    import transformers

    from vitexport.models import checkpoint

    files = hub.locate(request, with_weights=False)
    config = checkpoint.read_config(files)
    clip = video.clip(config, request)
    size = request.size or checkpoint.read_preprocessing(files, None).size
    step, what = checkpoint.size_step(config)
    sizes.check_multiple(size, step, request.model, what)
    trained_at = checkpoint.native_size(config)
    kind = getattr(transformers, (config.architectures or [""])[0], None)
    with torch.device("meta"):
        module = kind(config) if kind else transformers.AutoModel.from_config(config)
        hub.fit(module, size, clip, request)
    return Skeleton(module, size, trained_at, clip)


def _segmentation(request: ExportRequest) -> Skeleton:
    from vitexport.models import segmentation as family

    size = request.size or family.NATIVE
    sizes.check_multiple(size, family.PATCH, request.model, "patch size")
    from vitexport import torchvision_schemas

    torchvision_schemas.declare()
    from vitexport.models.vit_decoder import VitDecoder

    with torch.device("meta"):
        module = VitDecoder(family.BACKBONE, size, classes=len(family.LABELS))
    return Skeleton(module, size, family.NATIVE)


def _lraspp(request: ExportRequest) -> Skeleton:
    from vitexport import torchvision_schemas
    from vitexport.models import lraspp as family

    torchvision_schemas.declare()
    from vitexport.models.lraspp_network import Lraspp

    with torch.device("meta"):
        module = Lraspp(classes=len(family.LABELS))
    return Skeleton(module, request.size or family.NATIVE, family.NATIVE)


def _digits(request: ExportRequest) -> Skeleton:
    from vitexport.digits import network

    size = request.size or network.NATIVE
    sizes.check_multiple(size, network.PATCH, request.model, "patch size")
    with torch.device("meta"):
        module = network.blank(size)
    return Skeleton(module, size, network.NATIVE)


def _stripped(request: ExportRequest) -> Skeleton:
    """For networks that bring their weights along (your own factory, a .tflite): built as they are, then stripped."""
    network = models.build(request)
    how = network.preprocessing
    return Skeleton(network.module.to("meta"), how.size, None, how.clip)


_BUILDERS: dict[str, Callable[[ExportRequest], Skeleton]] = {
    "timm": _timm,
    "hub": _hub,
    "segmentation": _segmentation,
    "lraspp": _lraspp,
    "digits": _digits,
}
