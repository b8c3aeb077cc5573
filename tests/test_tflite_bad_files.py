"""A sentence for each kind of harm that can be done to a ``.tflite``, and the exit code of ``vitexport check``."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("litert_torch")

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from conftest import TINY, Command
from vitexport import ExportRequest, export, registry
from vitexport.bundle import entries
from vitexport.contract import Bundle
from vitexport.errors import BadRequest, LoweringFailed
from vitexport.manifest import encode, read_bundle
from vitexport_targets.tflite import trial
from vitexport_targets.tflite.flatbuffer import MOST_TABLES, BadFile
from vitexport_targets.tflite.structure import read

TARGET = registry.target("tflite")
FILE = "model_fp32.tflite"

Harm = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("sound") / "out"
    export(ExportRequest(model=TINY, targets=("tflite",), precisions=("fp32",), out=str(out)))
    return read_bundle(out / "tflite")


@pytest.fixture
def harmed(sound: Bundle, tmp_path: Path) -> Callable[[Harm], Bundle]:
    """The bundle again with another file, and a manifest that vouches for it."""

    def make(harm: Harm) -> Bundle:
        for entry in sound.manifest.files:
            path = tmp_path / "harmed" / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sound.path(entry.path).read_bytes())
        folder = tmp_path / "harmed"
        (folder / FILE).write_bytes(harm((folder / FILE).read_bytes()))
        (folder / "manifest.json").write_bytes(encode(replace(sound.manifest, files=entries(folder))))
        return read_bundle(folder)

    return make


def objects(change: Callable[[Any], Any]) -> Harm:
    """The file written anew after a change to the schema's objects."""

    def harm(content: bytes) -> bytes:
        model = schema.ModelT.InitFromPackedBuf(content)
        change(model)
        builder = flatbuffers.Builder(len(content))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return harm


def word(at: Callable[[bytes], int], value: int) -> Harm:
    def harm(content: bytes) -> bytes:
        place = at(content)
        return content[:place] + struct.pack("<I", value) + content[place + 4 :]

    return harm


def field(content: bytes, number: int) -> int:
    """Where the model's own field is, an offset to a vector."""
    (root,) = struct.unpack_from("<I", content)
    (back,) = struct.unpack_from("<i", content, root)
    (offset,) = struct.unpack_from("<H", content, root - back + 4 + 2 * number)
    return root + int(offset)


def vector(content: bytes, number: int) -> int:
    at = field(content, number)
    return at + int(struct.unpack_from("<I", content, at)[0])


def operation(model: Any, kind: str) -> Any:
    number = getattr(schema.BuiltinOperator, kind)
    graph = model.subgraphs[0]
    return next(o for o in graph.operators if model.operatorCodes[o.opcodeIndex].builtinCode == number)


def output(model: Any, kind: str) -> Any:
    return model.subgraphs[0].tensors[operation(model, kind).outputs[0]]


def weight(model: Any) -> Any:
    return model.subgraphs[0].tensors[operation(model, "CONV_2D").inputs[1]]


def set_code(name: str | None, number: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        code = model.operatorCodes[operation(model, "GELU").opcodeIndex]
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = number, min(number, 127), name

    return change


def _cycle(model: Any) -> None:
    first, last = model.subgraphs[0].operators[0], model.subgraphs[0].operators[-1]
    first.inputs = np.array([last.outputs[0], *first.inputs[1:]], np.int32)


def _computes_a_constant(model: Any) -> None:
    operation(model, "CONV_2D").outputs = operation(model, "CONV_2D").inputs[1:2]


def _constant_input(model: Any) -> None:
    model.subgraphs[0].inputs = operation(model, "CONV_2D").inputs[1:2]


def _split_without_options(model: Any) -> None:
    """LiteRT 2.3.0 looks them up without looking whether they are there."""
    split = operation(model, "GELU")
    set_code(None, schema.BuiltinOperator.SPLIT)(model)
    split.builtinOptions, split.builtinOptionsType = None, 0


def _ends_in_a_broadcast(model: Any) -> None:
    """To 32 GiB, which the file does not say of any tensor: LiteRT computes it."""
    graph, end = model.subgraphs[0], operation(model, "GELU")
    set_code(None, schema.BuiltinOperator.BROADCAST_TO)(model)
    model.operatorCodes[end.opcodeIndex].version = 2
    buffer, shape = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(np.array([2**25, 16, 16], np.int32).tobytes(), np.uint8)
    shape.name, shape.type, shape.shape = "shape", schema.TensorType.INT32, np.array([3], np.int32)
    shape.buffer = len(model.buffers)
    model.buffers.append(buffer)
    graph.tensors.append(shape)
    end.inputs = np.array([end.inputs[0], len(graph.tensors) - 1], np.int32)
    end.builtinOptions, end.builtinOptionsType = None, 0
    graph.operators = graph.operators[: graph.operators.index(end) + 1]
    graph.outputs = end.outputs
    model.signatureDefs[0].outputs[0].tensorIndex = int(end.outputs[0])


def _two_inputs(model: Any) -> None:
    (entry,) = model.signatureDefs[0].inputs
    other = schema.TensorMapT()
    other.name, other.tensorIndex = "other", entry.tensorIndex
    model.signatureDefs[0].inputs.append(other)


def _another_input(model: Any) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shape = np.array([1, 3, 16, 16], np.int32)


def _in_other_files(model: Any) -> None:
    group = schema.ExternalBufferGroupT()
    group.name = "/etc/passwd"
    model.externalBufferGroups = [group]


#: What is told without LiteRT: harm, and what the sentence says.
PLAIN: dict[str, tuple[Harm, str]] = {
    "empty": (lambda content: b"", "is empty."),
    "four bytes": (lambda content: content[:4], "is no TensorFlow Lite model: it does not bear the mark TFL3."),
    "another identifier": (lambda content: content[:4] + b"TFL9" + content[8:], "does not bear the mark TFL3."),
    "cut short": (lambda content: content[: len(content) // 2], "is damaged or cut short: "),
    "root out of range": (word(lambda _: 0, 2**31 - 1), "TensorFlow Lite model points outside the file."),
    "vtable out of range": (
        word(lambda content: struct.unpack_from("<I", content)[0], 2**31 - 1),
        "TensorFlow Lite model points outside the file.",
    ),
    "vector out of range": (word(lambda c: field(c, 4), 2**32 - 1), "TensorFlow Lite model points outside the file."),
    "vector too long": (word(lambda c: vector(c, 4), 2**32 - 1), "TensorFlow Lite model points outside the file."),
    "buffer out of range": (word(lambda c: vector(c, 4) + 8, 2**30), "buffer 1 points outside the file."),
    "no signature": (objects(lambda m: setattr(m, "signatureDefs", [])), "has no signature 'classify'; it has none."),
    "another's signature": (
        objects(lambda m: setattr(m.signatureDefs[0], "signatureKey", "serving\n")),
        "no signature 'classify'; it has serving\N{REPLACEMENT CHARACTER}.",
    ),
    "a name of a thousand letters": (
        objects(lambda m: setattr(m.signatureDefs[0], "signatureKey", "x" * 1000)),
        "no signature 'classify'; it has xxx",
    ),
    "a signature of no graph": (
        objects(lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 7)),
        "the signature 'classify' names graph 7, and there are 1.",
    ),
    "a signature of no tensor": (
        objects(lambda m: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 99)),
        "the signature 'classify' has an input 'pixel_values' that is none of its graph's",
    ),
    "two inputs": (objects(_two_inputs), "takes 2 inputs, and vitexport's files take one."),
    "a name with a zero": (
        objects(lambda m: setattr(m.signatureDefs[0].inputs[0], "name", "pixel_values\0")),
        "has an input 'pixel_values\N{REPLACEMENT CHARACTER}', and that is no name.",
    ),
    "another input": (objects(_another_input), "'pixel_values' is float32 (1, 3, 16, 16), and the manifest describes"),
    "no such buffer": (objects(lambda m: setattr(weight(m), "buffer", 999)), "names buffer 999, and there are "),
    "no such type": (
        objects(lambda m: setattr(weight(m), "type", 77)),
        "has the element type 77, and LiteRT knows 23.",
    ),
    "a type of another size": (
        objects(lambda m: setattr(weight(m), "type", schema.TensorType.INT8)),
        "is int8 (16, 8, 8, 3), which is 3,072 bytes, and has 12,288.",
    ),
    "a negative side": (
        objects(lambda m: setattr(output(m, "GELU"), "shape", np.array([1, -16, 16], np.int32))),
        "has the shape (1, -16, 16).",
    ),
    "a huge shape": (
        objects(lambda m: setattr(output(m, "GELU"), "shape", np.array([1, 2**30, 2**30], np.int32))),
        "which is 4,294,967,296 GiB, and vitexport tries what needs up to 16.",
    ),
    "no such tensor": (
        objects(lambda m: setattr(operation(m, "GELU"), "inputs", np.array([999], np.int32))),
        "(GELU) names tensor 999, and there are ",
    ),
    "no such operator code": (
        objects(lambda m: setattr(operation(m, "GELU"), "opcodeIndex", 55)),
        " names operator code 55, and there are ",
    ),
    "a cycle": (objects(_cycle), "(CONV_2D) takes 'classify_logits_output', which nothing before it computes."),
    "a constant that is computed": (objects(_computes_a_constant), "(CONV_2D) computes the constant "),
    "a constant as the input": (objects(_constant_input), "as an input."),
    "an output of nothing": (
        objects(lambda m: m.subgraphs[0].operators.pop()),
        "answers 'classify_logits_output', which nothing in it computes.",
    ),
    "constants elsewhere": (objects(_in_other_files), "keeps constants in other files"),
}

#: What LiteRT tells, in a process of its own.
REFUSED: dict[str, tuple[Harm, str]] = {
    "a custom operation": (
        objects(set_code("Mystery", schema.BuiltinOperator.CUSTOM)),
        f"{FILE} needs 'Mystery', which LiteRT does not have: an app would have to bring it. Export it again.",
    ),
    "a custom operation of two lines": (
        objects(set_code("Two\nlines", schema.BuiltinOperator.CUSTOM)),
        f"{FILE} needs 'Two\N{REPLACEMENT CHARACTER}lines', which LiteRT does not have: an app would have to bring it. "
        "Export it again.",
    ),
    "an operation from the future": (
        objects(set_code(None, 100_000)),
        f"LiteRT refuses {FILE} (Op builtin_code out of range: 100000). Export it again.",
    ),
    "an allocation of 32 GiB": (
        objects(_ends_in_a_broadcast),
        f"LiteRT refuses {FILE} (it gives no reason, as where 16 GiB of memory do not suffice). Export it again.",
    ),
    "what LiteRT crashes on": (
        objects(_split_without_options),
        f"LiteRT crashes on {FILE} (SIGSEGV): it is damaged, or LiteRT has a bug. Export it again.",
    ),
    "another number of operands": (
        objects(lambda m: setattr(operation(m, "GELU"), "inputs", np.repeat(operation(m, "GELU").inputs, 2))),
        f"LiteRT refuses {FILE} (operation 18, GELU: NumInputs(node) != 1 (2 != 1)). Export it again.",
    ),
}


@pytest.mark.parametrize(("harm", "said"), PLAIN.values(), ids=PLAIN)
def test_what_is_plainly_wrong_is_said_by_every_provider_before_litert_sees_it(
    harm: Harm, said: str, harmed: Callable[[Harm], Bundle], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(trial, "first_run")
    bundle = harmed(harm)
    for provider in TARGET.traits.providers:
        with pytest.raises(BadFile) as refused:
            TARGET.open(bundle, "fp32", provider)
        assert said in str(refused.value)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 300
        assert str(refused.value).endswith(". Export it again.")


@pytest.mark.parametrize(("harm", "said"), REFUSED.values(), ids=REFUSED)
def test_what_litert_refuses_or_dies_of_is_a_sentence(harm: Harm, said: str, harmed: Callable[[Harm], Bundle]):
    bundle = harmed(harm)
    for provider in TARGET.traits.providers:
        with pytest.raises(LoweringFailed) as refused:
            TARGET.open(bundle, "fp32", provider)
        assert str(refused.value) == said


def test_a_file_cut_short_anywhere_is_refused(sound: Bundle):
    content = sound.path(FILE).read_bytes()
    assert read(content).signatures
    for length in range(0, len(content) - 4, 61):
        with pytest.raises(BadFile):
            read(content[:length])


def test_a_small_file_that_refers_to_itself_a_million_times_is_refused():
    """A vector of as many references to one graph, which has as many to one tensor."""
    builder = flatbuffers.Builder(1024)
    tensor = schema.TensorT().Pack(builder)
    schema.SubGraphStartTensorsVector(builder, 2000)
    for _ in range(2000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 2000)
    for _ in range(2000):
        builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    buffer = schema.BufferT().Pack(builder)
    schema.ModelStartBuffersVector(builder, 1)
    builder.PrependUOffsetTRelative(buffer)
    buffers = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, graphs)
    schema.ModelAddBuffers(builder, buffers)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    with pytest.raises(BadFile, match=f"refers to more than {MOST_TABLES:,} parts"):
        read(bytes(builder.Output()))


# ------------------------------------------------------------------------------------------------- as a user meets it


@pytest.mark.parametrize(
    ("harm", "code", "said"),
    [
        (PLAIN["cut short"][0], BadRequest.exit_code, PLAIN["cut short"][1]),
        (REFUSED["a custom operation"][0], LoweringFailed.exit_code, REFUSED["a custom operation"][1]),
        (REFUSED["what LiteRT crashes on"][0], LoweringFailed.exit_code, REFUSED["what LiteRT crashes on"][1]),
    ],
    ids=["cut short", "a custom operation", "what LiteRT crashes on"],
)
def test_check_says_one_sentence_and_exits_with_its_code(
    harm: Harm, code: int, said: str, harmed: Callable[[Harm], Bundle], vitexport: Command
):
    bundle = harmed(harm)
    before = sorted(bundle.directory.rglob("*"))
    done = vitexport("check", bundle.directory)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("  ")]
    assert (done.returncode, len(lines), done.stdout) == (code, 1, ""), done.stderr
    assert said in lines[0]
    assert sorted(bundle.directory.rglob("*")) == before
