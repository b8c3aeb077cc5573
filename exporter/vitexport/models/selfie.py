"""MediaPipe Selfie Segmentation, the real trained networks, read from the ``.tflite`` files of Google's npm package.

https://developers.google.com/ml-kit/vision/selfie-segmentation (model card linked there): a MobileNetV3-like encoder
and a small decoder, 106,401 weights, RGB in 0..1 -> probability that a pixel shows a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from vitexport import toolchain
from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.models import licences, weights
from vitexport.models.network import Network

if TYPE_CHECKING:
    from vitexport.models.tflite_reader import TFLiteModule

_PACKAGE = "@mediapipe/selfie_segmentation"
_INSTALL = f"Run: npm install {_PACKAGE}, or name a copy of its .tflite file with --weights."
_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class _Variant:
    file: str
    size: Size
    summary: str


_VARIANTS = {
    "selfie": _Variant(
        "selfie_segmentation.tflite", Size(256, 256), "MediaPipe Selfie Segmentation: a person's mask, 256x256"
    ),
    "selfie_landscape": _Variant(
        "selfie_segmentation_landscape.tflite",
        Size(144, 256),
        "MediaPipe Selfie Segmentation for wide video: a person's mask, 144x256",
    ),
}


class _Selfie:
    """The ``selfie`` family."""

    name = "selfie"
    honours: frozenset[str] = frozenset()
    presets: Mapping[str, str] = MappingProxyType({name: v.summary for name, v in _VARIANTS.items()})

    def claims(self, model: str) -> bool:
        return model in _VARIANTS

    def build(self, request: ExportRequest) -> Network:
        """The network with its trained weights, with random ones, or with those of a ``.tflite`` of the same shapes.

        The architecture itself is in the npm package: ``random`` needs it too. Raises ``BadRequest``, or
        ``MissingToolchain`` where the package is not there.
        """
        variant = _VARIANTS[request.model]
        _check(request, variant)
        preprocessing = Preprocessing(variant.size, interpolation="bilinear", fit="squash")
        if request.weights in (weights.PRETRAINED, weights.RANDOM):
            folder, version = toolchain.npm_package(_PACKAGE, _INSTALL)
            file, origin, licence = folder / variant.file, f"npm {_PACKAGE} {version}", _LICENCE
        else:
            file = Path(request.weights)
            origin, licence = file.name, licences.UNKNOWN
        module = _read(file, variant.size, request.model)
        if request.weights == weights.RANDOM:
            from vitexport.models import lively  # it brings numpy and Pillow, which `vitexport models` does without

            lively.enliven_on_photos(module, preprocessing, request.seed)
            origin, licence = f"random (seed {request.seed})", licences.RANDOM
        return Network(
            module=module,
            preprocessing=preprocessing,
            task="segment",
            output_name="mask",
            meaning="mask",
            labels=("person",),
            origin=origin,
            licence=licence,
        )


FAMILY = _Selfie()


def _check(request: ExportRequest, variant: _Variant) -> None:
    if request.task not in (None, "segment"):
        raise BadRequest(
            f"{request.model} segments people and cannot {request.task}. Leave --task out, or name a classifier "
            "such as vit_small."
        )
    if request.size not in (None, variant.size):
        others = ", ".join(f"{name} is {v.size}" for name, v in _VARIANTS.items())
        raise BadRequest(
            f"{request.model} takes {variant.size} pixels, not {request.size}: its graph and its training are bound to "
            f"that size ({others}). Leave --size out; photos of any shape are resized to it."
        )
    own = request.weights not in (weights.PRETRAINED, weights.RANDOM)
    if own and Path(request.weights).suffix != ".tflite":
        raise BadRequest(
            f"'{request.weights}' is not a .tflite file, the only form in which {request.model} takes weights. "
            "Leave --weights out to use the trained ones."
        )


def _read(file: Path, size: Size, model: str) -> TFLiteModule:
    from vitexport.models.tflite_reader import read

    module = read(file)
    wanted = ((1, 3, size.height, size.width), (1, 1, size.height, size.width))
    if (module.input_shape, module.output_shape) != wanted:
        raise BadRequest(
            f"'{file.name}' computes {module.output_shape} from {module.input_shape} (NCHW), and {model} is "
            f"{wanted[1]} from {wanted[0]}. Name the file of that network."
        )
    return module
