"""Where models come from: one file per source family, each with a ``FAMILY``.

Importing this package, and listing the presets, imports no toolchain: families import theirs inside ``build``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Protocol

from vitexport.contract import ExportRequest
from vitexport.errors import BadRequest, did_you_mean
from vitexport.models import video

if TYPE_CHECKING:
    from vitexport.models.network import Network


class Family(Protocol):
    """A source of models. ``presets`` is data: preset -> one line for ``vitexport models``."""

    name: str
    presets: Mapping[str, str]

    def claims(self, model: str) -> bool:
        """Whether ``model`` is this family's to build. Cheap for every name that another family owns."""

    def build(self, request: ExportRequest) -> Network:
        """Eval mode, float32, weights loaded, size fixed. Raises ``BadRequest`` or ``WorldFailed``."""


#: In the order in which they are asked. timm is last: it alone must import its toolchain to know its names.
FAMILIES = ("module", "hub", "selfie", "segmentation", "lraspp", "digits", "timm")

#: Those of them that have video networks, and say themselves which.
TAKE_CLIPS = frozenset({"module", "hub"})


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
    """The family whose model is asked for. Raises ``BadRequest`` where there is none, or frames say nothing to it."""
    family = _family_of(request.model)
    if family.name not in TAKE_CLIPS:
        video.refuse_frames(request)
    return family


def _family_of(model: str) -> Family:
    # Presets first: a folder called vit_small (our own output, say) must not take the preset's place.
    for family in _families():
        if model in family.presets:
            return family
    for family in _families():
        if family.claims(model):
            return family
    from vitexport.models import timm  # its names are loaded by now: it was asked last

    known = [*presets(), *timm.names()]
    raise BadRequest(
        f"Unknown model '{model}'.{did_you_mean(model, known)} Name one of `vitexport models`, any timm model, "
        "hf:ORG/NAME, a checkpoint folder, or path/to/file.py:factory."
    )
