"""Small ``.mlpackage`` folders for the tests, written by coremltools: what the reader must make sense of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb  # noqa: N813
from coremltools.converters.mil.backend.mil.load import MILProtoExporter
from coremltools.proto import Model_pb2

#: Specification version of each opset that is tested: iOS 16, 17, 18.
VERSIONS = {"CoreML6": 7, "CoreML7": 8, "CoreML8": 9}

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")


def save(program: Any, into: Path, version: int = 8) -> Path:
    """A program of coremltools' builder as a package, with no passes run over it."""
    weights = into / WEIGHTS.parent
    weights.mkdir(parents=True)
    exporter = MILProtoExporter(program, weights_dir=str(weights), specification_version=version)
    model = Model_pb2.Model(specificationVersion=version)
    model.mlProgram.CopyFrom(exporter.export())
    del exporter  # the blob writer closes its file when it goes
    return write(model, into)


def write(model: Model_pb2.Model, into: Path) -> Path:
    """A model's message into its package, with a manifest that names it."""
    path = into / MODEL
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    item = {"author": "com.apple.CoreML", "path": "com.apple.CoreML/model.mlmodel", "name": "model.mlmodel"}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"one": item}, "rootModelIdentifier": "one"}
    (into / "Manifest.json").write_text(json.dumps(manifest))
    return into


def message(package: Path) -> Model_pb2.Model:
    """What coremltools' own classes make of a package's model."""
    model = Model_pb2.Model()
    model.ParseFromString((package / MODEL).read_bytes())
    return model


def net() -> Any:
    """A convolution whose weights are in the weight file, a little of everything else in the program."""
    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec((1, 3, 8, 8))], opset_version=ct.target.iOS17)
    def program(image: Any) -> Any:
        x = mb.conv(x=image, weight=weight, pad_type="same", name="stem")
        x = mb.cast(x=x, dtype="fp16", name="half")
        x = mb.add(x=x, y=np.float16(0.1), name="shifted")
        x = mb.transpose(x=x, perm=[0, 2, 3, 1], name="moved")
        x = mb.gelu(x=x, mode="EXACT", name="active")
        x = mb.reduce_mean(x=x, axes=[1, 2], keep_dims=False, name="pooled")
        return mb.cast(x=x, dtype="fp32", name="scores")

    return program
