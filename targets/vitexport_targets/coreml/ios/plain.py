"""A package as coremltools' model runner can drive it: arrays in, arrays out, the same program between them.

Its protocol knows arrays alone: no pictures, and it refuses a model that answers a label. What an app sees as a picture
reaches the program as an array all the same (NCHW, 0..255), so the input is declared as that array; a label and its
probabilities are computed last, from scores that are an output as well, so they are left out.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from vitexport_targets.coreml import labels, sealing


def write_plain(package: Path, path: Path) -> Path:
    """Copy ``package`` to ``path``, with no pictures and no labels. Its weights are byte for byte the same."""
    shutil.copytree(package, path)
    spec = sealing.read_spec(package)
    for description in spec.description.functions or [spec.description]:
        for feature in description.input:
            if feature.type.WhichOneof("Type") == "imageType":
                _declare_array(feature.type)
        _leave_out_labels(description)
    for function in spec.mlProgram.functions.values():
        labels.detach(function.block_specializations[function.opset])
    sealing.write_spec(path, spec)
    return path


def _declare_array(kind: Any) -> None:
    """Channels first, as the program takes it; a batch of one."""
    picture = kind.imageType
    shape = (1, 3, picture.height, picture.width)
    kind.multiArrayType.shape.extend(shape)  # which unsets the other kind
    kind.multiArrayType.dataType = kind.multiArrayType.FLOAT32


def _leave_out_labels(description: Any) -> None:
    kept = [feature for feature in description.output if feature.name not in (labels.LABEL, labels.PROBABILITIES)]
    del description.output[:]
    description.output.extend(kept)
    description.ClearField("predictedFeatureName")
    description.ClearField("predictedProbabilitiesName")
