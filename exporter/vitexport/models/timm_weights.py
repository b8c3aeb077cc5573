"""A timm architecture and the ways to its weights: from the hub, from a file, or drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest, WorldFailed
from vitexport.models import download, licences, lively, weights
from vitexport.posembed import in_timm, source_grid

_HUB_FILE = "model.safetensors"

_DECLARE = "Say which size it was trained at: --weights-size HEIGHTxWIDTH."


def import_timm() -> Any:
    from vitexport import torchvision_schemas

    torchvision_schemas.declare()
    import timm

    return timm


@dataclass(frozen=True)
class Architecture:
    """A timm name with its pretrained config. ``classes`` 0: no head."""

    name: str
    config: Any
    classes: int

    def create(self, asked: str, size: Size | None = None, **more: Any) -> Any:
        """The module without weights, at ``size`` (None: its own). ``asked`` is what the user calls it."""
        arguments: dict[str, Any] = {"num_classes": self.classes, **more}
        if size is not None and self.config.fixed_input_size:
            arguments["img_size"] = (size.height, size.width)
        try:
            return import_timm().create_model(self.name, **arguments)
        except (TypeError, AssertionError, ValueError) as error:
            raise BadRequest(
                f"timm cannot build '{asked}' at {size or 'its own size'} ({error}). Leave --size out to use its own "
                "size."
            ) from error

    def step(self, asked: str, patch: int | None = None) -> tuple[int, str]:
        """What both sides of an image must be multiples of, and its name. Only for a fixed patch grid."""
        import torch

        with torch.device("meta"):
            module = self.create(asked)
        own = max(module.patch_embed.patch_size) if hasattr(getattr(module, "patch_embed", None), "patch_size") else 1
        if patch is not None:
            return patch, "patch size"
        # Hierarchical networks halve the grid at each stage. timm scales their windows with the grid, so that at a
        # multiple of the total stride every stage is cut into whole windows too.
        stride = max([own, *(int(info["reduction"]) for info in getattr(module, "feature_info", ()))])
        return stride, "patch size" if stride == own else "total stride"


@dataclass(frozen=True, eq=False)
class Weighed:
    """A module with its weights, at ``size``, the one they belong to."""

    module: Any
    size: Size
    origin: str
    licence: str


def weigh(architecture: Architecture, request: ExportRequest, home: Size, preprocessing: Preprocessing) -> Weighed:
    """``architecture`` with the weights of ``request``, at ``home`` or at the size that a file of weights was trained
    at. ``preprocessing`` is that of ``home``. Raises ``BadRequest`` or ``WorldFailed``."""
    if request.weights == weights.RANDOM:
        module = architecture.create(request.model, home)
        lively.enliven_on_photos(module, preprocessing, request.seed)
        return Weighed(module, home, f"random (seed {request.seed})", licences.RANDOM)
    if request.weights == weights.PRETRAINED:
        return _pretrained(architecture, request.model, home)
    return _from_file(architecture, request, home)


def _pretrained(architecture: Architecture, asked: str, home: Size) -> Weighed:
    config = architecture.config
    if not config.hf_hub_id:
        raise BadRequest(f"timm has no pretrained weights for '{asked}'. Use --weights random or --weights FILE.")
    try:
        path = download.fetch(config.hf_hub_id, config.hf_hub_filename or _HUB_FILE)
    except download.NotOnHub as error:
        raise WorldFailed(f"'{asked}' cannot be downloaded: {error}. {download.WAYS_OUT}") from error
    overlay = {"file": str(path), "custom_load": False}
    module = architecture.create(asked, pretrained=True, pretrained_cfg_overlay=overlay)
    origin = f"{config.hf_hub_id}@{download.commit(path)[:12]}"
    return Weighed(module, home, origin, licences.spdx(config.license))


def _from_file(architecture: Architecture, request: ExportRequest, home: Size) -> Weighed:
    module = architecture.create(request.model)
    state = weights.read(request.weights)
    if not architecture.classes:
        state = {name: tensor for name, tensor in state.items() if not _is_head(name, architecture.config)}
    size = _trained_at(module, state, request, home)
    if size != home:
        shape = in_timm.Shape(size, lambda: architecture.create(request.model, size))
        module, _ = in_timm.fit(module, architecture.name, shape)
    weights.assign(module, _converted(state, module), f"'{request.weights}'")
    return Weighed(module, size, request.weights.replace("\\", "/").rpartition("/")[2], licences.UNKNOWN)


def _trained_at(module: Any, state: dict[str, Any], request: ExportRequest, home: Size) -> Size:
    """The size that a file's positions belong to: as declared, or told by a square table, else the model's own."""
    declared = request.weights_size
    grid, table = in_timm.grid_of(module), getattr(module, "pos_embed", None)
    held = next((tensor for name, tensor in state.items() if name.rpartition(".")[2] == "pos_embed"), None)
    if grid is None or table is None or held is None or held.ndim != 3 or table.ndim != 3:
        return declared or home
    if declared is None and held.shape == table.shape:
        return home
    patch = Size(home.height // grid[0], home.width // grid[1])
    kept = table.shape[1] - grid[0] * grid[1]
    stated = (declared.height // patch.height, declared.width // patch.width) if declared else None
    rows, columns = source_grid(held.shape[1], kept, stated, f"'{request.weights}'", _DECLARE)
    return declared or Size(rows * patch.height, columns * patch.width)


def _converted(state: dict[str, Any], module: Any) -> dict[str, Any]:
    """timm's own conversion of a checkpoint's older names.

    It would also resample position tables, from a grid that it guesses: those that fit the module are kept as they are,
    and one that does not is refused.
    """
    import sys

    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    tables = {name: state[name] for name in in_timm.tables(module) if name in state}
    for name, wanted in in_timm.tables(module).items():
        if name in tables and tables[name].shape != wanted.shape:
            raise BadRequest(
                f"'{name}' has shape {tuple(tables[name].shape)} in the file, and {tuple(wanted.shape)} in the model: "
                f"the weights were trained at another size. {_DECLARE}"
            )
    return {**(dict(convert(state, module)) if convert else state), **tables}


def _is_head(name: str, config: Any) -> bool:
    heads = (config.classifier,) if isinstance(config.classifier, str) else config.classifier or ()
    return any(name.startswith(f"{head}.") for head in heads)
