"""The ranges that an ONNX graph's activations take on real pictures, as onnxruntime.quantization reads them.

``quantize_static`` has min-max, percentile and entropy of its own, keeps all values of all pictures for the latter two,
and knows no others. It takes ranges that were found before from a file, which is written here.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexport.contract import INPUT_NAME
from vitexport.quantize import calibration
from vitexport.quantize.observers import Grid, Histogram, observed

if TYPE_CHECKING:
    import onnx

    from vitexport.contract import SourceModel

#: ``QuantType.QUInt8``.
_GRID = Grid(8, symmetric=False)


def write(model: onnx.ModelProto, layers: Collection[str], source: SourceModel, path: Path) -> None:
    """What the nodes named ``layers`` read, and what convolutions among them make, measured on the source's pictures;
    a file for ``quantize_static(calibration_cache_path=...)``."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    nodes = [node for node in model.graph.node if node.name in layers]
    read = [node.input[0] for node in nodes]
    made = [node.output[0] for node in nodes if node.op_type == "Conv"]
    seen = _seen(model, dict.fromkeys([*read, *made]), source)
    ranges = observed(seen, source.observer, _GRID)
    data = {name: (np.float32(found.least), np.float32(found.largest)) for name, found in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), path)


def _seen(model: onnx.ModelProto, names: Collection[str], source: SourceModel) -> dict[str, Histogram]:
    import onnx
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    already = {value.name for value in (*shown.graph.input, *shown.graph.output)}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in already)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen = {name: Histogram() for name in names}
    for picture in calibration.of(source).pictures:
        asked = [name for name in names if name != INPUT_NAME]
        values = dict(zip(asked, session.run(asked, {INPUT_NAME: picture}), strict=True))
        for name, histogram in seen.items():
            histogram.add(values.get(name, picture))
    return seen
