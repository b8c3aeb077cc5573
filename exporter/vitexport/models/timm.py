"""Models of timm (https://github.com/huggingface/pytorch-image-models): a few presets, and every name timm knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitexport.contract import ExportRequest, Preprocessing, Size, Task
from vitexport.errors import BadRequest, WorldFailed, did_you_mean
from vitexport.models import download, licences, lively, sizes, weights
from vitexport.models.network import Network


@dataclass(frozen=True)
class Preset:
    """A short name for an architecture with its pretrained tag. ``size`` None: the checkpoint's own."""

    name: str
    summary: str
    size: Size | None = None


#: The checkpoints that timm serves by default for these architectures, and that most people mean by these names.
PRESETS = {
    "vit_tiny": Preset("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "ViT-Ti/16 224, 1000 classes, 5.7 M parameters"),
    "vit_small": Preset("vit_small_patch16_224.augreg_in21k_ft_in1k", "ViT-S/16 224, 1000 classes, 22 M parameters"),
    "vit_base": Preset("vit_base_patch16_224.augreg2_in21k_ft_in1k", "ViT-B/16 224, 1000 classes, 87 M parameters"),
    "vit_base_patch32": Preset(
        "vit_base_patch32_224.augreg_in21k_ft_in1k", "ViT-B/32 224, 1000 classes, 88 M parameters"
    ),
    "deit_tiny": Preset("deit_tiny_patch16_224.fb_in1k", "DeiT-Ti/16 224, 1000 classes, 5.7 M parameters"),
    "deit_small": Preset("deit_small_patch16_224.fb_in1k", "DeiT-S/16 224, 1000 classes, 22 M parameters"),
    # 224 and not its own 518: 256 tokens against 1369, about six times the work, which is what a browser can carry.
    "dinov2_small": Preset(
        "vit_small_patch14_dinov2.lvd142m", "DINOv2 ViT-S/14 at 224, features, 22 M parameters", Size(224, 224)
    ),
    "swin_tiny": Preset("swin_tiny_patch4_window7_224.ms_in1k", "Swin-T 224, 1000 classes, 28 M parameters"),
}

_FITS = frozenset({"center", "squash"})
_INTERPOLATIONS = frozenset({"bilinear", "bicubic", "nearest", "lanczos"})
_HUB_FILE = "model.safetensors"


class Timm:
    name = "timm"
    presets: Mapping[str, str] = {name: preset.summary for name, preset in PRESETS.items()}

    def claims(self, model: str) -> bool:
        return model in PRESETS or _timm().is_model(model)

    def build(self, request: ExportRequest) -> Network:
        preset = PRESETS.get(request.model, Preset(request.model, ""))
        config = _pretrained_config(preset.name)
        task = _task(request, config)
        native = Size(*config.input_size[1:])
        size = request.size or preset.size or native
        blank = _Blank(request.model, preset.name, config, size, 0 if task == "features" else config.num_classes)
        if size != native:
            blank.check_size()
        preprocessing = _preprocessing(request.model, config, size)
        module, origin, licence = _weigh(blank, request, preprocessing)
        labels = _labels(config) if task == "classify" else ()
        from vitexport.models.hub_config import hub_config

        return Network(
            module=module.eval(),
            preprocessing=preprocessing,
            task=task,
            output_name="features" if task == "features" else "logits",
            meaning="features" if task == "features" else "logits",
            labels=labels,
            origin=origin,
            licence=licence,
            hub_config=hub_config(module, config, size, labels),
        )


FAMILY = Timm()


def names() -> list[str]:
    """Every architecture of timm."""
    return list(_timm().list_models())


@dataclass(frozen=True)
class _Blank:
    """An architecture at a size, without its weights. ``asked`` is what the user calls it."""

    asked: str
    name: str
    config: Any
    size: Size
    classes: int

    def create(self, **more: Any) -> Any:
        arguments: dict[str, Any] = {"num_classes": self.classes, **more}
        if self.config.fixed_input_size:
            arguments["img_size"] = (self.size.height, self.size.width)
        try:
            return _timm().create_model(self.name, **arguments)
        except (TypeError, AssertionError, ValueError) as error:
            raise BadRequest(
                f"timm cannot build '{self.asked}' at {self.size} ({error}). Leave --size out to use its own size."
            ) from error

    def check_size(self) -> None:
        """A fixed patch grid must divide the image. Networks without one take any size."""
        if not self.config.fixed_input_size:
            return
        import torch

        with torch.device("meta"):
            native = _timm().create_model(self.name, num_classes=self.classes)
        patch = max(native.patch_embed.patch_size) if hasattr(native, "patch_embed") else 1
        # Hierarchical networks halve the grid at each stage, and fit their windows to it.
        step = max([patch, *(int(info["reduction"]) for info in getattr(native, "feature_info", ()))])
        sizes.check_multiple(self.size, step, self.asked, "patch size" if step == patch else "total stride")


def _timm() -> Any:
    from vitexport import torchvision_schemas

    torchvision_schemas.declare()
    import timm

    return timm


def _pretrained_config(name: str) -> Any:
    timm = _timm()
    try:
        return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError as error:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise BadRequest(
            f"timm has no pretrained weights '{name}'.{did_you_mean(name, tags)} It has: {', '.join(tags) or 'none'}."
        ) from error


def _task(request: ExportRequest, config: Any) -> Task:
    task: Task = request.task or ("classify" if config.num_classes else "features")
    if task == "segment":
        raise BadRequest(f"'{request.model}' cannot segment. Use --task classify or features, or --model vit_tiny_seg.")
    if task == "classify" and not config.num_classes:
        raise BadRequest(f"'{request.model}' has no classifier: it was trained for features. Use --task features.")
    return task


def _weigh(blank: _Blank, request: ExportRequest, preprocessing: Preprocessing) -> tuple[Any, str, str]:
    """(module, origin, licence)."""
    if request.weights == weights.RANDOM:
        module = blank.create()
        lively.enliven_on_photos(module, preprocessing, request.seed)
        return module, f"random (seed {request.seed})", licences.RANDOM
    if request.weights == weights.PRETRAINED:
        return _pretrained(blank)
    module = blank.create()
    state = weights.read(request.weights)
    if not blank.classes:
        state = {name: tensor for name, tensor in state.items() if not _is_head(name, blank.config)}
    weights.assign(module, _adapted(state, module), f"'{request.weights}'")
    return module, request.weights.replace("\\", "/").rpartition("/")[2], licences.UNKNOWN


def _pretrained(blank: _Blank) -> tuple[Any, str, str]:
    repository = blank.config.hf_hub_id
    if not repository:
        raise BadRequest(f"timm has no pretrained weights for '{blank.asked}'. Use --weights random or --weights FILE.")
    try:
        path = download.fetch(repository, blank.config.hf_hub_filename or _HUB_FILE)
    except download.NotOnHub as error:
        raise WorldFailed(f"'{blank.asked}' cannot be downloaded: {error}. {download.WAYS_OUT}") from error
    module = blank.create(pretrained=True, pretrained_cfg_overlay={"file": str(path), "custom_load": False})
    return module, f"{repository}@{download.commit(path)[:12]}", licences.spdx(blank.config.license)


def _adapted(state: dict[str, Any], module: Any) -> dict[str, Any]:
    """timm's own conversion of a checkpoint: older names, position embeddings of another size."""
    import sys

    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    return dict(convert(state, module)) if convert else state


def _is_head(name: str, config: Any) -> bool:
    heads = (config.classifier,) if isinstance(config.classifier, str) else config.classifier or ()
    return any(name.startswith(f"{head}.") for head in heads)


def _preprocessing(model: str, config: Any, size: Size) -> Preprocessing:
    """timm's evaluation transform (``timm.data.create_transform``), as data."""
    _timm()
    from timm.data import resolve_data_config

    data = resolve_data_config(pretrained_cfg=config.to_dict())
    mode, crop = data["crop_mode"], data["crop_pct"]
    if mode not in _FITS or (mode == "squash" and crop != 1.0) or data["interpolation"] not in _INTERPOLATIONS:
        raise BadRequest(
            f"'{model}' wants its pictures fitted by '{mode}' at {crop:.0%} with '{data['interpolation']}', which "
            "vitexport cannot do yet. Wrap the model in a factory with a Preprocessing of your own (file.py:factory)."
        )
    return Preprocessing(
        size=size,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        fit="crop" if mode == "center" else "squash",
        resize=Size(math.floor(size.height / crop), math.floor(size.width / crop)) if mode == "center" else None,
    )


def _labels(config: Any) -> tuple[str, ...]:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if config.label_names:
        return tuple(config.label_names)
    subset = infer_imagenet_subset(config.to_dict())
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()
