"""Models of timm (https://github.com/huggingface/pytorch-image-models): a few presets, and every name timm knows."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vitexport.contract import ExportRequest, Preprocessing, Size, Task
from vitexport.errors import BadRequest, did_you_mean
from vitexport.models import sizes, timm_weights, weights
from vitexport.models.network import Network
from vitexport.models.reparameterise import reparameterised
from vitexport.models.timm_weights import Architecture, Weighed, import_timm
from vitexport.posembed import Fitted, in_timm, named


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


class Timm:
    name = "timm"
    honours = frozenset({"pos_embed_rule", "weights_size", "patch_size"})
    presets: Mapping[str, str] = {name: preset.summary for name, preset in PRESETS.items()}

    def claims(self, model: str) -> bool:
        if model in PRESETS:
            return True
        if Path(model).is_dir() and model.partition(".")[0] not in spelled_in_sources():
            return False
        return bool(import_timm().is_model(model))

    def build(self, request: ExportRequest) -> Network:
        preset = PRESETS.get(request.model, Preset(request.model, ""))
        config = pretrained_config(preset.name)
        task = _task(request, config)
        native = Size(*config.input_size[1:])
        architecture = Architecture(preset.name, config, 0 if task == "features" else config.num_classes)
        size, notes = _settle(request, architecture, preset.size or native, native)
        # Weights first, at a size that does not depend on the one asked for: rungs of a ladder share all but positions.
        home = preset.size or native if request.weights == weights.RANDOM else native
        weighed = timm_weights.weigh(architecture, request, home, _preprocessing(request.model, config, home))
        module, fitted = _fit(weighed, architecture, request, size)
        if "size" in request.dynamic and config.fixed_input_size:
            module = _opened(module, architecture, request, size)
        module = reparameterised(module, (size.height, size.width))
        labels = _labels(config) if task == "classify" else ()
        from vitexport.models.hub_config import hub_config

        return Network(
            module=module.eval(),
            preprocessing=_preprocessing(request.model, config, size),
            task=task,
            output_name="features" if task == "features" else "logits",
            meaning="features" if task == "features" else "logits",
            labels=labels,
            origin=weighed.origin,
            licence=weighed.licence,
            hub_config=hub_config(module, config, size, labels),
            pos_embed_rule=fitted.rule,
            pos_embed_source=fitted.source,
            notes=notes,
            size_step=architecture.step(request.model)[0] if config.fixed_input_size else None,
        )


FAMILY = Timm()


def names() -> list[str]:
    """Every architecture of timm."""
    return list(import_timm().list_models())


@cache
def spelled_in_sources() -> frozenset[str]:
    """What timm's sources may name an architecture, without tags: the registry knows, and takes 5 s to import. Each is
    a function of its name, or the key of one that was renamed."""
    found = find_spec("timm")
    folders = (Path(folder) / "models" for folder in (found and found.submodule_search_locations) or ())
    sources = (file.read_text("utf-8") for folder in folders for file in folder.rglob("*.py"))
    return frozenset(name or key for source in sources for name, key in _SPELLED.findall(source))


_SPELLED = re.compile(r"^def (\w+)\(|['\"](\w+)['\"]\s*:", re.MULTILINE)


def _settle(
    request: ExportRequest, architecture: Architecture, default: Size, native: Size
) -> tuple[Size, tuple[str, ...]]:
    """The size to export, on the patch grid. Networks without a fixed one take any.

    What cannot be is refused here, before anything is downloaded or drawn.
    """
    size, patch, rule = request.size or default, request.patch_size, request.pos_embed_rule
    if rule is not None:
        named(rule)
    if not architecture.config.fixed_input_size:
        if rule or patch:
            raise BadRequest(
                f"'{request.model}' has no patch grid, so there is nothing for --pos-embed-rule or --patch-size to do. "
                "Leave them out."
            )
        return size, ()
    if size == native and patch is None:
        return size, ()
    step, what = architecture.step(request.model, patch)
    return sizes.settle(request, size, step, what)


def _fit(weighed: Weighed, architecture: Architecture, request: ExportRequest, size: Size) -> tuple[Any, Fitted]:
    """The weighed module at ``size``: (module, what was done to its positions)."""
    module, fitted = weighed.module, Fitted()
    patch, rule = request.patch_size, request.pos_embed_rule
    in_timm.check_rule(module, request.model, rule)
    if architecture.config.fixed_input_size and (size != weighed.size or patch):
        shape = in_timm.Shape(size, lambda: architecture.create(request.model, size), patch, rule)
        module, fitted = in_timm.fit(module, architecture.name, shape)
    return module, in_timm.bake(module) or fitted


#: Classes of timm whose ``dynamic_img_size`` is more than leaving a check out.
_RESAMPLING = frozenset({"VisionTransformer", "Eva"})


def _opened(module: Any, architecture: Architecture, request: ExportRequest, size: Size) -> Any:
    """The same weights in a module that resamples its positions in the graph, where timm has one: its plain ViTs. The
    others stay as they are, and capture names what ties them to a size."""
    if type(module).__name__ not in _RESAMPLING:
        return module
    opened = architecture.create(request.model, size, dynamic_img_size=True)
    opened.load_state_dict(module.state_dict())
    return opened


def pretrained_config(name: str) -> Any:
    timm = import_timm()
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


def _preprocessing(model: str, config: Any, size: Size) -> Preprocessing:
    """timm's evaluation transform (``timm.data.create_transform``), as data."""
    import_timm()
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
