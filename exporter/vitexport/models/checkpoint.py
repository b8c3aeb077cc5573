"""The parts of a transformers checkpoint: its files, config and image processor."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitexport.contract import Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.models import download, licences

_CONFIG = "config.json"
_PROCESSOR = "preprocessor_config.json"
_CARD = "README.md"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

_LICENCE = re.compile(r"\A---\n.*?^license:\s*['\"]?([\w.-]+)", re.DOTALL | re.MULTILINE)

#: Image processors whose steps are resize, centre crop, rescale, normalise, in this order and nothing else; BGR for RGB
#: is the network's affair, see :mod:`.channel_order`.
_PROCESSORS = frozenset(
    {
        "BeitImageProcessor",
        "BitImageProcessor",
        "CLIPImageProcessor",
        "DeiTImageProcessor",
        "MobileViTImageProcessor",
        "PvtImageProcessor",
        "SegformerImageProcessor",
        "SiglipImageProcessor",
        "ViTImageProcessor",
        "VideoMAEImageProcessor",
        "VivitImageProcessor",
    }
)
_INTERPOLATIONS: dict[int, Any] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling


@dataclass(frozen=True)
class Files:
    """A checkpoint on this machine."""

    name: str
    folder: Path
    origin: str
    licence: str


def locate(name: str, with_weights: bool) -> Files:
    """A local folder as it is; a hub id (``ORG/NAME``, ``ORG/NAME@revision``) through the cache.

    Without ``with_weights`` only the description is fetched. Raises ``BadRequest`` or ``WorldFailed``.
    """
    folder = Path(name)
    if (folder / _CONFIG).is_file():
        return Files(name, folder, folder.resolve().name, _licence(folder / _CARD))
    if folder.is_dir() or name.startswith((".", "/", "~")):
        raise BadRequest(f"There is no '{_CONFIG}' in '{name}'. Name a folder that save_pretrained wrote.")
    repository, _, revision = name.partition("@")
    try:
        config = download.fetch(repository, _CONFIG, revision or None)
        # From here on by commit, so that all files are of one version.
        fixed = download.commit(config) or revision or None
        for optional in (_PROCESSOR, _CARD):
            _fetch_if_there(repository, optional, fixed)
        if with_weights:
            _fetch_weights(repository, fixed)
    except download.NotOnHub as error:
        raise BadRequest(f"'hf:{name}' cannot be used: {error}. Check its spelling on the hub.") from error
    origin = f"{repository}@{fixed[:12]}" if fixed else repository
    return Files(name, config.parent, origin, _licence(config.parent / _CARD, repository))


def read_config(files: Files) -> Any:
    """``transformers.PretrainedConfig``. Raises ``BadRequest`` for one that needs code of its own."""
    from transformers import AutoConfig

    raw = _json(files.folder / _CONFIG)
    if raw.get("auto_map"):
        raise BadRequest(
            f"'{files.name}' brings Python code of its own (auto_map in its config), which vitexport does not run. "
            "Where you trust it, build it in a factory of yours (path/to/file.py:factory)."
        )
    if "architecture" in raw and "model_type" not in raw:
        raise BadRequest(
            f"'{files.name}' is a timm checkpoint. Name the timm model itself: --model {raw['architecture']}."
        )
    try:
        return AutoConfig.from_pretrained(files.folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError, KeyError) as error:
        raise BadRequest(
            f"transformers does not know '{files.name}' (model_type '{raw.get('model_type')}'). "
            "Write a factory for it (path/to/file.py:factory)."
        ) from error


def read_preprocessing(files: Files, size: Size | None) -> Preprocessing:
    """What its image processor does, as data. ``size`` scales the resize before a crop along with the crop."""
    return _as_data(read_processor(files), files.name, size)


def takes_bgr(processor: Any) -> bool:
    """Whether a transformers image processor turns RGB around before its network sees it."""
    return bool(getattr(processor, "do_flip_channel_order", False))


def read_processor(files: Files) -> Any:
    """The transformers image processor, the slow one, which others are measured by. Raises ``BadRequest``."""
    from transformers import AutoImageProcessor

    if not (files.folder / _PROCESSOR).is_file():
        raise BadRequest(
            f"'{files.name}' has no {_PROCESSOR}, so its mean, std and resize are not known. "
            "Copy it from the checkpoint that this one was made from."
        )
    raw = _json(files.folder / _PROCESSOR)
    if raw.get("auto_map"):
        raise BadRequest(
            f"The image processor of '{files.name}' is Python code of its own, which vitexport does not run."
        )
    try:
        return AutoImageProcessor.from_pretrained(
            files.folder, use_fast=False, trust_remote_code=False, local_files_only=True
        )
    except (ValueError, OSError, KeyError) as error:
        raise BadRequest(f"transformers does not know the image processor of '{files.name}' ({error}).") from error


def native_size(config: Any) -> Size | None:
    """The size that its positions were learned at. None: it says none, and takes any."""
    native = getattr(_vision(config), "image_size", None)
    return Size(*_pair(native)) if native else None


def size_step(config: Any) -> tuple[int, str]:
    """What both sides of an image must be multiples of, and what that is called."""
    vision = _vision(config)
    patch = getattr(vision, "patch_size", 1)
    if hasattr(vision, "tubelet_size") and not isinstance(vision.tubelet_size, int):  # ViViT's: frames, rows, columns
        patch = vision.tubelet_size[1]
    if config.model_type == "segformer":
        return math.prod(config.strides), "total stride"
    if config.model_type == "mobilevit":  # its patches lie on the smallest grid; on another it resamples back and forth
        return config.output_stride * config.patch_size, "total stride"
    if hasattr(vision, "window_size") and hasattr(vision, "depths"):  # Swin halves its grid between stages
        return max(_pair(patch)) * 2 ** (len(vision.depths) - 1), "total stride"
    # A list is one patch size per stage: those architectures pad, or check for themselves.
    return (patch if isinstance(patch, int) else 1), "patch size"


def _vision(config: Any) -> Any:
    """Of CLIP and SigLIP, which describe a text tower too."""
    return getattr(config, "vision_config", config)


def _as_data(processor: Any, name: str, size: Size | None) -> Preprocessing:
    kind = type(processor).__name__
    resize, crop = _size(processor, "size"), _size(processor, "crop_size")
    crops = getattr(processor, "do_center_crop", False)
    expressible = (
        kind in _PROCESSORS
        and processor.do_resize
        and processor.do_rescale
        and (hasattr(processor, "offset") or abs(processor.rescale_factor * 255 - 1) < 1e-9)
        and int(processor.resample) in _INTERPOLATIONS
        and not (takes_bgr(processor) and getattr(processor, "do_normalize", False))
    )
    if not expressible or resize is None:
        raise BadRequest(
            f"'{name}' prepares its pictures with {kind} in a way that vitexport cannot describe. "
            "Wrap it in a factory with a Preprocessing of your own (path/to/file.py:factory)."
        )
    shortest_edge = "shortest_edge" in processor.size
    if (shortest_edge and not crops) or (crops and (crop is None or crop.height > resize.height)):
        raise BadRequest(
            f"'{name}' resizes to {dict(processor.size)} and {'crops' if crops else 'does not crop'}, which gives "
            "pictures of no fixed size or pads them. Use a factory (path/to/file.py:factory)."
        )
    own = crop if crops and crop is not None else resize
    wanted = size or own
    cover = Size(round(resize.height * wanted.height / own.height), round(resize.width * wanted.width / own.width))
    mean, std = _normalisation(processor)
    return Preprocessing(
        size=wanted,
        mean=mean,
        std=std,
        interpolation=_INTERPOLATIONS[int(processor.resample)],
        fit="crop" if shortest_edge else "squash",
        resize=cover if crops else None,
        crop_rounding="floor",
    )


def _normalisation(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and std of pixels in 0..1."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", False):  # MobileViT's has no such step
        mean, std = _triple(processor.image_mean), _triple(processor.image_std)
    if not hasattr(processor, "offset"):
        return mean, std
    # ViViT's: pixels times the factor, less 1, and only then less the mean and over the std.
    unit = processor.rescale_factor * 255
    shifted = [(m + bool(processor.offset)) / unit for m in mean]
    return _triple(shifted), _triple([s / unit for s in std])


def _size(processor: Any, attribute: str) -> Size | None:
    given = getattr(processor, attribute, None) or {}
    if "shortest_edge" in given and "longest_edge" not in given:
        return Size(given["shortest_edge"], given["shortest_edge"])
    return Size(given["height"], given["width"]) if "height" in given else None


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (values, values, values) if isinstance(values, float | int) else values
    return float(red), float(green), float(blue)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadRequest(f"'{path}' is not valid JSON ({error}). Copy or download it again.") from error
    return found if isinstance(found, dict) else {}


def _licence(card: Path, repository: str = "") -> str:
    found = _LICENCE.match(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    return licences.of_repository(repository, found[1] if found else None)


def _fetch_if_there(repository: str, filename: str, revision: str | None) -> Path | None:
    try:
        return download.fetch(repository, filename, revision)
    except download.NotOnHub:
        return None


def _fetch_weights(repository: str, revision: str | None) -> None:
    for filename in _WEIGHTS:
        found = _fetch_if_there(repository, filename, revision)
        if found is None:
            continue
        if filename.endswith(".index.json"):
            for shard in sorted(set(_json(found).get("weight_map", {}).values())):
                download.fetch(repository, shard, revision)
        return
    raise download.NotOnHub(f"it has none of {', '.join(_WEIGHTS)}")
