"""``digits_vit_tiny``, the network that this project trains itself: see ``digits/README.md``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from vitexport.contract import ExportRequest, Size
from vitexport.errors import BadRequest
from vitexport.models import licences, sizes, weights
from vitexport.models.network import Network
from vitexport.posembed import check_asked, rule_for

_PRESET = "digits_vit_tiny"

LABELS = tuple("0123456789")

#: The weights are this project's own work and licensed as it is. What they were trained on is another's, and CC BY asks
#: that whoever passes it on names them.
_LICENCE = "Apache-2.0"
_ORIGIN = (
    "trained by vitexport on UCI's Optical Recognition of Handwritten Digits "
    "(E. Alpaydin, C. Kaynak, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0)"
)


class Digits:
    """The ``digits`` family."""

    name = "digits"
    honours = frozenset({"pos_embed_rule", "weights_size"})
    presets: Mapping[str, str] = MappingProxyType(
        {_PRESET: "ViT-Ti/16 96, 10 digits, 5.4 M parameters; trained here, its weights come with the package"}
    )

    def claims(self, model: str) -> bool:
        return model in self.presets

    def build(self, request: ExportRequest) -> Network:
        """Logits (N, 10). Raises ``BadRequest``; downloads nothing."""
        _check(request)
        size, notes = _settle(request)
        rule = rule_for("absolute", request.pos_embed_rule, "timm")
        from vitexport.digits import network

        module, origin, licence = _weighed(request)
        moved = size != network.NATIVE
        if moved:
            module = network.resized(module, size, rule.resample)
        return Network(
            module=module.eval(),
            preprocessing=network.preprocessing(size),
            task="classify",
            output_name="logits",
            meaning="logits",
            labels=LABELS,
            origin=origin,
            licence=licence,
            size_step=network.PATCH,
            pos_embed_rule=rule.name if moved else "",
            pos_embed_source=rule.source if moved else "",
            notes=notes,
        )


FAMILY = Digits()


def _check(request: ExportRequest) -> None:
    if request.task not in (None, "classify"):
        raise BadRequest(f"'{_PRESET}' classifies and has no task '{request.task}'. Leave --task out.")
    check_asked({"absolute"}, request.pos_embed_rule)


def _settle(request: ExportRequest) -> tuple[Size, tuple[str, ...]]:
    """The size to export, and what to tell the user."""
    from vitexport.digits import network

    if request.weights_size not in (None, network.NATIVE):
        raise BadRequest(
            f"'{_PRESET}' takes weights of {network.NATIVE} alone, not of {request.weights_size}. Leave --weights-size "
            "out, or use vit_tiny."
        )
    return sizes.settle(request, request.size or network.NATIVE, network.PATCH, "patch size")


def _weighed(request: ExportRequest) -> tuple[Any, str, str]:
    """At the native size: (module, origin, licence)."""
    from vitexport.digits import network
    from vitexport.models import lively

    if request.weights == weights.PRETRAINED:
        return network.trained(), _ORIGIN, _LICENCE
    module = network.blank()
    if request.weights == weights.RANDOM:
        lively.enliven_on_photos(module, network.preprocessing(network.NATIVE), request.seed)
        return module, f"random (seed {request.seed})", licences.RANDOM
    weights.load_file(module, request.weights)
    return module, request.weights.replace("\\", "/").rpartition("/")[2], licences.UNKNOWN
