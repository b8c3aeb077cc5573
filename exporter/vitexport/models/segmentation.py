"""A ViT with a light convolutional decoder, for dense prediction: person against background."""

from __future__ import annotations

from collections.abc import Mapping

from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.models import licences, lively, sizes, weights
from vitexport.models.network import Network

_PRESET = "vit_tiny_seg"
_BACKBONE = "vit_tiny_patch16_224"
_PATCH = 16

#: The backbone's own, so that its pretrained position table can be used as it is.
_NATIVE = Size(224, 224)

LABELS = ("background", "person")


class Segmentation:
    name = "segmentation"
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
        size = request.size or _NATIVE
        sizes.check_multiple(size, _PATCH, _PRESET, "patch size")
        preprocessing = Preprocessing(
            size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", fit="squash"
        )
        from vitexport import torchvision_schemas

        torchvision_schemas.declare()
        from vitexport.models.vit_decoder import VitDecoder

        module = VitDecoder(_BACKBONE, size, classes=len(LABELS)).eval()
        origin, licence = f"random (seed {request.seed})", licences.RANDOM
        if request.weights == weights.RANDOM:
            lively.enliven_on_photos(module, preprocessing, request.seed)
        else:
            weights.load_file(module, request.weights)
            origin, licence = request.weights.replace("\\", "/").rpartition("/")[2], licences.UNKNOWN
        return Network(
            module=module,
            preprocessing=preprocessing,
            task="segment",
            output_name="segmentation",
            meaning="segmentation",
            labels=LABELS,
            origin=origin,
            licence=licence,
        )


FAMILY = Segmentation()
