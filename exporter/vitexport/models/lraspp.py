"""Lite R-ASPP on MobileNetV3-Large (Howard et al. 2019, arXiv:1905.02244), as torchvision built and trained it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.models import licences, lively, torch_download, weights
from vitexport.models.network import Network

_PRESET = "lraspp_mobilenet_v3"

#: torchvision's; the digits are those of its SHA-256. Trained on COCO's pictures with PASCAL VOC's classes.
URL = "https://download.pytorch.org/models/lraspp_mobilenet_v3_large-d234d4ea.pth"
_LICENCE = "BSD-3-Clause"  # torchvision's, which says nothing else of its weights

#: What torchvision's own evaluation scales the shorter side to.
NATIVE = Size(520, 520)

LABELS = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class Lraspp:
    name = "lraspp"
    honours: frozenset[str] = frozenset()
    presets: Mapping[str, str] = MappingProxyType(
        {_PRESET: "LR-ASPP on MobileNetV3-Large 520, 21 classes of PASCAL VOC, logits at an eighth; BSD-3-Clause"}
    )

    def claims(self, model: str) -> bool:
        return model in self.presets

    def build(self, request: ExportRequest) -> Network:
        """Scores (N, 21, H / 8, W / 8) of pictures of any size. Raises ``BadRequest``, or ``WorldFailed`` where the
        trained weights cannot be had."""
        if request.task not in (None, "segment"):
            raise BadRequest(f"'{_PRESET}' segments, and cannot {request.task}. Leave --task out.")
        from vitexport import torchvision_schemas

        torchvision_schemas.declare()
        from vitexport.models import lraspp_network

        module = lraspp_network.Lraspp(len(LABELS)).eval()
        if request.weights == weights.RANDOM:
            lively.enliven_on_photos(module, _preprocessing(NATIVE), request.seed)
            lively.show_people(module, _preprocessing(NATIVE), LABELS)
            origin, licence = f"random (seed {request.seed})", licences.RANDOM
        elif request.weights == weights.PRETRAINED:
            path = torch_download.fetch(URL)
            weights.load_file(module, path)
            origin, licence = f"torchvision {path.name}", _LICENCE
        else:
            weights.load_file(module, request.weights)
            origin, licence = Path(request.weights).name, licences.UNKNOWN
        return Network(
            module=module,
            preprocessing=_preprocessing(request.size or NATIVE),
            task="segment",
            output_name="logits",
            meaning="segmentation",
            labels=LABELS,
            origin=origin,
            licence=licence,
        )


def _preprocessing(size: Size) -> Preprocessing:
    """As torchvision normalises. The picture is squashed: an artifact has one size, and a mask has to cover it all."""
    return Preprocessing(size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), fit="squash")


FAMILY = Lraspp()
