"""Where models come from: one file per source family, each with a ``FAMILY``.

Importing this package, and listing the presets, imports no toolchain: families import theirs inside ``build``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vitexport.contract import ExportRequest
from vitexport.errors import BadRequest, did_you_mean
from vitexport.manifest import holds_bundles
from vitexport.models import video, weights

if TYPE_CHECKING:
    from vitexport.models.network import Network


class Family(Protocol):
    """A source of models. ``presets`` is data: preset -> one line for ``vitexport models``."""

    name: str
    presets: Mapping[str, str]
    honours: frozenset[str]
    """Those fields of a request that shape some models alone (:data:`OPTIONS`) which shape this family's."""

    def claims(self, model: str) -> bool:
        """Whether ``model`` is this family's to build. Cheap for every name that another family owns."""

    def build(self, request: ExportRequest) -> Network:
        """Eval mode, float32, weights loaded, size fixed. Raises ``BadRequest`` or ``WorldFailed``."""


#: In the order in which they are asked. timm is last: it alone must import its toolchain to know its names.
FAMILIES = ("module", "hub", "selfie", "segmentation", "lraspp", "digits", "timm")

#: What shapes some models and says nothing to others: fields of a request, with the flags that ask for them.
OPTIONS = {
    "pos_embed_rule": "--pos-embed-rule",
    "weights_size": "--weights-size",
    "patch_size": "--patch-size",
    "frames": "--frames",
    "frame_stride": "--frame-stride",
}

#: What a model is called.
_NAMES = "Name one of `vitexport models`, any timm model, hf:ORG/NAME, a checkpoint folder, or path/to/file.py:factory."


@cache
def _families() -> tuple[Family, ...]:
    return tuple(importlib.import_module(f"vitexport.models.{name}").FAMILY for name in FAMILIES)


def presets() -> dict[str, str]:
    """Preset -> summary, in the families' order. Imports no torch."""
    return {name: summary for family in _families() for name, summary in family.presets.items()}


def build(request: ExportRequest) -> Network:
    """The network that ``request.model`` names. Raises ``BadRequest`` with the nearest known name."""
    return family_of(request).build(request)


def family_of(request: ExportRequest) -> Family:
    """The family whose model is asked for. Raises ``BadRequest`` where there is none, or an option says nothing to
    it."""
    family = _family_of(request.model)
    if family.honours.isdisjoint(video.OPTIONS):
        video.refuse_frames(request)
    for option, flag in OPTIONS.items():
        if option not in family.honours and getattr(request, option) is not None:
            raise BadRequest(f"{flag} says nothing to '{request.model}'. Leave it out.")
    if request.weights_size is not None and request.weights in (weights.PRETRAINED, weights.RANDOM):
        raise BadRequest(
            "--weights-size tells what a weights file was trained at. Name one with --weights FILE, or leave it out."
        )
    return family


def _family_of(model: str) -> Family:
    # Presets first: a folder called vit_small (our own output, say) must not take the preset's place.
    for family in _families():
        if model in family.presets:
            return family
    for family in _families():
        if family.claims(model):
            return family
    if model and Path(model).is_dir():
        raise BadRequest(f"{_no_model_in(model)} {_NAMES}")
    from vitexport.models import timm  # its names are loaded by now: it was asked last

    known = [*presets(), *timm.names()]
    raise BadRequest(f"Unknown model '{model}'.{did_you_mean(model, known)} {_NAMES}")


def _no_model_in(folder: str) -> str:
    if holds_bundles(Path(folder)):
        return f"'{folder}' is an export, not a model: `vitexport check` and `vitexport inspect --placement` take it."
    return f"'{folder}' is a folder without a bundle (manifest.json) or a checkpoint (config.json)."
