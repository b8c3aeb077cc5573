"""A sentence for each kind of harm that can be done to an ``.mlpackage``."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

from coremltools.proto import Model_pb2  # noqa: E402

from coreml_packages import MODEL, WEIGHTS, message, net, save, write  # noqa: E402
from vitexport.errors import RuntimeUnavailable  # noqa: E402
from vitexport_targets.coreml.evaluator import Evaluator  # noqa: E402
from vitexport_targets.coreml.package import BadPackage, read  # noqa: E402

Harm = Callable[[Path], Any]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return save(net(), tmp_path / "net.mlpackage")


def spec(change: Callable[[Model_pb2.Model], Any]) -> Harm:
    """Harm done to the model's message."""

    def harm(package: Path) -> None:
        model = message(package)
        change(model)
        write(model, package)

    return harm


def block(model: Model_pb2.Model) -> Any:
    return model.mlProgram.functions["main"].block_specializations["CoreML7"]


def operation(model: Model_pb2.Model, kind: str) -> Any:
    return next(o for o in block(model).operations if o.type == kind)


def side(model: Model_pb2.Model, kind: str, dimension: int) -> Any:
    return operation(model, kind).outputs[0].type.tensorType.dimensions[dimension].constant


def stored(model: Model_pb2.Model) -> Any:
    values = (o.attributes["val"] for o in block(model).operations if o.type == "const")
    return next(v for v in values if v.HasField("blobFileValue")).blobFileValue


def constant(model: Model_pb2.Model, user: str, parameter: str) -> Any:
    name = operation(model, user).inputs[parameter].arguments[0].name
    return next(o for o in block(model).operations if o.outputs[0].name == name).attributes["val"].immediateValue


def manifest(change: Callable[[dict[str, Any]], Any]) -> Harm:
    def harm(package: Path) -> None:
        content = json.loads((package / "Manifest.json").read_text())
        change(content)
        (package / "Manifest.json").write_text(json.dumps(content))

    return harm


def outside(path: str) -> Harm:
    return manifest(lambda m: m["itemInfoEntries"]["one"].update(path=path))


def truncated(which: Path, keep: float) -> Harm:
    return lambda package: os.truncate(package / which, int((package / which).stat().st_size * keep))


def blob_header(position: int, value: int, format: str = "<I") -> Harm:
    """One field of the first blob's header, which is behind the file's own 64 bytes."""

    def harm(package: Path) -> None:
        content = bytearray((package / WEIGHTS).read_bytes())
        struct.pack_into(format, content, 64 + position, value)
        (package / WEIGHTS).write_bytes(content)

    return harm


def linked_outside(package: Path) -> None:
    secret = package.parent / "secret.bin"
    secret.write_bytes((package / WEIGHTS).read_bytes())
    (package / WEIGHTS).unlink()
    (package / WEIGHTS).symlink_to(secret)


def linked_to_itself(package: Path) -> None:
    (package / WEIGHTS).unlink()
    (package / WEIGHTS).symlink_to("weight.bin")


def a_pipe(package: Path) -> None:
    (package / WEIGHTS).unlink()
    os.mkfifo(package / WEIGHTS)


def nested(package: Path) -> None:
    """Blocks in operations in blocks, 10,000 deep; by hand, since protobuf's own writer stops at a hundred."""
    content = b""
    for _ in range(10_000):
        content = field(3, field(4, content))  # Block.operations, Operation.blocks
    function = field(2, b"CoreML7") + field(3, named("CoreML7", content))
    program = b"\x08\x01" + field(2, named("main", function))
    (package / MODEL).write_bytes(b"\x08\x08" + field(502, program))


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def named(key: str, content: bytes) -> bytes:
    """A map's entry."""
    return field(1, key.encode()) + field(2, content)


def neural_network(package: Path) -> None:
    model = Model_pb2.Model(specificationVersion=4)
    model.neuralNetwork.layers.add(name="one")
    write(model, package)


def open_ended(model: Model_pb2.Model) -> None:
    """A constant whose shape asks for more than there is on earth."""
    value = operation(model, "const").attributes["val"]
    for _ in range(4):
        value.type.tensorType.dimensions.add().constant.size = 2**62
    value.type.tensorType.rank = len(value.type.tensorType.dimensions)


BAD = {
    "no such folder": (lambda p: p.rename(p.with_name("gone")), "does not exist. Name an .mlpackage folder."),
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), "lacks Manifest.json"),
    "a manifest that is no JSON": (lambda p: (p / "Manifest.json").write_text("{"), "does not say which file"),
    "a manifest nested without end": (
        lambda p: (p / "Manifest.json").write_text("[" * 100_000), "which file is the model (RecursionError)"
    ),
    "a manifest of a gigabyte": (
        lambda p: os.truncate(p / "Manifest.json", 1 << 30), "Manifest.json of 'net.mlpackage' has 1073741824 bytes"
    ),
    "a manifest that names no model": (manifest(lambda m: m.pop("rootModelIdentifier")), "is the model (KeyError)"),
    "a manifest with a number for a path": (
        manifest(lambda m: m["itemInfoEntries"]["one"].update(path=7)), "gives no path for its model"
    ),
    "a manifest pointing outside": (outside("../../../secret"), "points outside itself, to 'secret'"),
    "a manifest with an absolute path": (outside("/etc/passwd"), "points outside itself, to 'passwd'"),
    "a manifest with a path that cannot be": (outside("a\0b"), "points to a path that cannot be followed"),
    "no model": (lambda p: (p / MODEL).unlink(), "lacks model.mlmodel"),
    "an empty model": (lambda p: (p / MODEL).write_bytes(b""), "is an empty model, not an ML Program"),
    "a truncated model": (truncated(MODEL, 0.5), "cut short"),
    "a model of another kind": (neural_network, "is a neural network, not an ML Program"),
    "text for a model": (lambda p: (p / MODEL).write_text("hello, hello"), "The model is"),
    "blocks nested 10,000 deep": (nested, "nests deeper than 100 levels"),
    "another program version": (spec(lambda m: setattr(m.mlProgram, "version", 2)), "has version 2"),
    "no function": (spec(lambda m: m.mlProgram.functions.clear()), "has no function"),
    "a block for another opset": (
        spec(lambda m: setattr(m.mlProgram.functions["main"], "opset", "CoreML8")), "and has no block for it"
    ),
    "a truncated weight file": (truncated(WEIGHTS, 0.5), "the file is cut short. Copy the package again."),
    "an empty weight file": (truncated(WEIGHTS, 0), "points to byte 64 of a weight file of 0 bytes"),
    "no weight file": (lambda p: (p / WEIGHTS).unlink(), "lacks weight.bin"),
    "a weight file elsewhere": (linked_outside, "points outside itself, to 'weight.bin'"),
    "a weight file that links to itself": (linked_to_itself, "a path that cannot be followed"),
    "a pipe for a weight file": (a_pipe, "lacks weight.bin"),
    "no blob where one should be": (blob_header(0, 1), "where no blob begins"),
    "a blob of another type": (blob_header(4, 1), "is declared float32, and its weights are stored as float16"),
    "a blob of another length": (blob_header(8, 8, "<Q"), "has 8 bytes, and its shape [8, 3, 3, 3] of"),
    "a blob beyond the file": (blob_header(16, 2**63, "<Q"), "the file is cut short"),
    "a weight file with a path out": (
        spec(lambda m: setattr(stored(m), "fileName", "@model_path/../../../x")),
        "points outside itself, to 'x'",
    ),
    "a weight file by absolute path": (
        spec(lambda m: setattr(stored(m), "fileName", "/etc/passwd")),
        "has its weights in '/etc/passwd', which is not inside 'net.mlpackage'",
    ),
    "a constant without end": (spec(open_ended), "takes"),
    "a constant of no type": (
        spec(lambda m: operation(m, "const").attributes["val"].type.Clear()), "has no type that MIL knows"
    ),
    "an element type of the future": (
        spec(lambda m: setattr(operation(m, "gelu").outputs[0].type.tensorType, "dataType", 41)),
        "has element type 41, which this reader does not know",
    ),
    "a constant without a value": (
        spec(lambda m: operation(m, "const").attributes["val"].ClearField("immediateValue")
             or operation(m, "const").attributes["val"].ClearField("blobFileValue")), "has no value"
    ),
    "a negative dimension": (
        spec(lambda m: setattr(side(m, "gelu", 0), "size", 2**64 - 1)),
        "has a dimension of -1",
    ),
    "a value made twice": (
        spec(lambda m: setattr(operation(m, "gelu").outputs[0], "name", "moved")), "gelu (moved) makes 'moved' again"
    ),
    "a value used before it is made": (
        spec(lambda m: setattr(operation(m, "conv").inputs["x"].arguments[0], "name", "pooled")),
        "conv (stem) uses 'pooled' before it is made",
    ),
    "an output that is never made": (spec(lambda m: block(m).outputs.append("dreams")), "'dreams' is never made"),
    "an op that lacks an operand": (
        spec(lambda m: operation(m, "conv").inputs.pop("weight")), "conv (stem) lacks its 'weight'"
    ),
    "an op whose name breaks the line": (
        spec(lambda m: setattr(operation(m, "gelu"), "type", "gelu\nhello")), "has a name with control characters"
    ),
    "an attribute whose name breaks the line": (
        spec(lambda m: operation(m, "gelu").inputs["\x0emode"].CopyFrom(operation(m, "gelu").inputs["mode"])),
        "has a name with control characters",
    ),
    "a shape that is not what the op makes": (
        spec(lambda m: setattr(side(m, "transpose", 1), "size", 9)),
        "transpose (moved) declares float16[1, 9, 8, 8] and makes [1, 8, 8, 8]",
    ),
    "a type that is not what the op makes": (
        spec(lambda m: setattr(operation(m, "gelu").outputs[0].type.tensorType, "dataType", 23)),
        "'active' is declared int32[1, 8, 8, 8], and is of torch.float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("harm", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(harm: Harm, sentence: str, package: Path):
    harm(package)
    with pytest.raises(BadPackage) as caught:
        Evaluator(read(package)).run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    said = str(caught.value)
    assert sentence in said
    assert said.rstrip().endswith(".")
    assert "\n" not in said


def test_a_file_instead_of_a_folder_is_explained(tmp_path: Path):
    old = tmp_path / "old.mlmodel"
    model = Model_pb2.Model(specificationVersion=4)
    model.neuralNetwork.layers.add(name="one")
    old.write_bytes(model.SerializeToString())
    with pytest.raises(BadPackage, match=r"'old.mlmodel' is a file. An ML Program is a folder that ends in .mlpackage"):
        read(old)


UNKNOWN = {
    "an op": (spec(lambda m: setattr(operation(m, "gelu"), "type", "quantum_gelu")), "the op quantum_gelu (active)"),
    "an attribute": (
        spec(lambda m: operation(m, "gelu").inputs["spin"].CopyFrom(operation(m, "gelu").inputs["mode"])),
        "the attribute 'spin' of gelu (active)",
    ),
    "an attribute's value": (
        spec(lambda m: constant(m, "gelu", "mode").tensor.strings.values.__setitem__(0, "ROUGHLY")),
        "gelu (active) with mode 'ROUGHLY'",
    ),
    "an opset": (
        spec(lambda m: (m.mlProgram.functions["main"].block_specializations["CoreML42"].CopyFrom(block(m)),
                        setattr(m.mlProgram.functions["main"], "opset", "CoreML42"))), "'main' is written in 'CoreML42'"
    ),
    "control flow": (spec(lambda m: operation(m, "gelu").blocks.add()), "the op gelu (active)"),
}  # fmt: skip


@pytest.mark.parametrize(("harm", "named"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_is_not_run_and_named(harm: Harm, named: str, package: Path):
    harm(package)
    with pytest.raises(RuntimeUnavailable) as caught:
        Evaluator(read(package)).run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    assert named in str(caught.value)
