"""A ViT with a light convolutional decoder, for dense prediction: person against background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.models import licences, lively, sizes, weights
from vitexport.models.network import Network
from vitexport.posembed import Rule, check_asked, rule_for

_PRESET = "vit_tiny_seg"
BACKBONE = "vit_tiny_patch16_224"
PATCH = 16
_TABLE = "backbone.pos_embed"

#: The backbone's own, so that its pretrained position table can be used as it is.
NATIVE = Size(224, 224)

LABELS = ("background", "person")


class Segmentation:
    name = "segmentation"
    honours = frozenset({"pos_embed_rule"})
    presets: Mapping[str, str] = {
        _PRESET: "ViT-Ti/16 and a conv decoder, 2 classes at full size; random weights for now"
    }

    def claims(self, model: str) -> bool:
        return model in self.presets

    def build(self, request: ExportRequest) -> Network:
        """Scores (N, 2, H, W) at the input's size. Raises ``BadRequest`` for ``pretrained``: there are none."""
        if request.task not in (None, "segment"):
            raise BadRequest(f"'{_PRESET}' segments, and cannot {request.task}. Leave --task out, or use vit_tiny.")
        if request.weights == weights.PRETRAINED:
            raise BadRequest(
                f"'{_PRESET}' has no pretrained weights yet. Use --weights random to prove an export, --weights FILE "
                "for your own, or --model selfie for a trained person mask."
            )
        size, notes = sizes.settle(request, request.size or NATIVE, PATCH, "patch size")
        asked = request.pos_embed_rule
        check_asked({"absolute"}, asked)
        rule = rule_for("absolute", asked, "timm")
        from vitexport import torchvision_schemas

        torchvision_schemas.declare()
        from vitexport.models.vit_decoder import VitDecoder

        module = VitDecoder(BACKBONE, NATIVE, classes=len(LABELS)).eval()
        origin, licence = f"random (seed {request.seed})", licences.RANDOM
        if request.weights == weights.RANDOM:
            lively.enliven_on_photos(module, _preprocessing(NATIVE), request.seed)
        else:
            weights.load_file(module, request.weights)
            origin, licence = request.weights.replace("\\", "/").rpartition("/")[2], licences.UNKNOWN
        if size != NATIVE:
            fitted = VitDecoder(BACKBONE, size, classes=len(LABELS)).eval()
            module = _carried_over(module, fitted, rule)
        return Network(
            module=module,
            preprocessing=_preprocessing(size),
            task="segment",
            output_name="segmentation",
            meaning="segmentation",
            labels=LABELS,
            origin=origin,
            licence=licence,
            pos_embed_rule=rule.name if size != NATIVE else "",
            pos_embed_source=rule.source if size != NATIVE else "",
            notes=notes,
        )


def _preprocessing(size: Size) -> Preprocessing:
    return Preprocessing(size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", fit="squash")


def _carried_over(module: Any, fitted: Any, rule: Rule) -> Any:
    """The weights of ``module`` in ``fitted``, which was built for another size: all but positions are the same."""
    state = module.state_dict()
    source, target = (each.backbone.patch_embed.grid_size for each in (module, fitted))
    state[_TABLE] = rule.resample(state[_TABLE], source, target, module.backbone.num_prefix_tokens)
    fitted.load_state_dict(state, strict=True)
    return fitted


FAMILY = Segmentation()
