"""``vitexport inspect --placement``: what it predicts without a browser is what onnxruntime-web does in one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import web_bundles
from conftest import TINY, Command
from test_bad_input import expect
from vitexport import lint, models
from vitexport.contract import Finding, Lint, Size
from vitexport.errors import LoweringFailed
from vitexport.lint.table import render
from vitexport_targets.webgpu import ort_web
from vitexport_targets.webgpu.kernels import FILE, RUNTIME, Call, kernels
from vitexport_targets.webgpu.lint import examine
from vitexport_targets.webgpu.probing import Oracle, oracle

if TYPE_CHECKING:
    from collections.abc import Sequence

browser = pytest.mark.browser


@pytest.fixture(scope="module")
def page() -> Iterator[Oracle]:
    with oracle() as page:
        yield page


def agreed(page: Oracle, path: Path) -> Counter[str]:
    """What falls to the CPU, by operator: predicted, and the same in the browser, node by node unless the runtime gave
    a node a name of its own."""
    predicted = Counter(kind(found.operation) for found in examine(path).findings)
    whole = onnx.load(path).SerializeToString()  # with the weights that lie beside it
    answer = page.place(whole, optimised=True)
    # Shaders are made after nodes were placed, and this adapter has none in float16.
    assert answer.refusal == "" or "requires f16" in answer.refusal
    assert answer.placement is not None
    assert predicted == Counter(map(kind, answer.placement.fallback))
    return predicted


def kind(operation: str) -> str:
    return operation.partition(" (")[0]


# ----------------------------------------------------------------------------------------------------- the kernels


def test_the_kernels_were_read_from_the_runtime_that_is_pinned() -> None:
    """When this fails the pin has moved on: run `python -m vitexport_targets.webgpu.generate_kernels`."""
    assert json.loads(FILE.read_text())[RUNTIME] == ort_web.VERSION


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (Call("", "MatMul", 20, ("float", "float")), ""),
        (Call("", "MatMul", 20, ("float16", "float16")), ""),
        (Call("", "Gelu", 20, ("float",)), ""),
        (Call("", "Attention", 23, ("float",) * 3), "has no kernel"),
        (Call("com.microsoft", "FusedMatMul", 1, ("float",) * 2), "has no kernel"),
        (Call("", "Relu", 20, ("double",)), "takes no double (T: float, float16)"),
        (Call("", "Cast", 20, ("int64",), "float"), "takes no int64 (T1: float, float16, bool, uint8, int32, uint32)"),
        (Call("", "Cast", 20, ("float",), "string"), None),
        (Call("", "Concat", 20, ("float",) * 5), ""),
        (Call("", "Clip", 20, ("float", "", "float")), ""),
        (Call("", "NoSuchOperator", 20, ()), "has no kernel"),
    ],
)
def test_a_kernel_is_found_by_operator_version_and_types(call: Call, why: str | None) -> None:
    said = kernels().why_not(call)
    assert said if why is None else said == why


def test_the_newest_opset_with_a_kernel_is_known() -> None:
    """DequantizeLinear changed at 24, and the kernels are those of 23."""
    newest = Call("", "DequantizeLinear", 25, ("int8", "float", "int8"))
    assert kernels().why_not(newest) == "has no kernel at opset 25"
    assert kernels().newest_opset_taken(newest) == 23
    assert kernels().why_not(replace(newest, opset=23)) == ""


@browser
@pytest.mark.parametrize("name", ["Relu", "Attention", "Gather", "QuantizeLinear", "Where", "If"])
def test_what_is_stored_is_what_the_runtime_says(page: Oracle, name: str) -> None:
    from vitexport_targets.webgpu.generate_kernels import boxes, operators, taken_by

    stored = kernels().operators[""][name]
    for operator in operators():
        if operator.schema.name == name and not operator.schema.domain:
            taken, _ = taken_by(page, operator)
            assert boxes(operator.parameters, taken) == stored[str(operator.schema.since_version)]["takes"]


def test_combinations_become_few_products() -> None:
    from vitexport_targets.webgpu.generate_kernels import boxes

    taken = {("float", "int32"), ("float", "int64"), ("int32", "int32"), ("int32", "int64"), ("bool", "int32")}
    assert boxes(("T", "I"), taken) == [
        {"T": ["float", "int32"], "I": ["int32", "int64"]},
        {"T": ["bool"], "I": ["int32"]},
    ]
    assert boxes(("T",), ()) == []
    assert boxes((), [()]) == [{}]


# ------------------------------------------------------------------------------------------------------- the graphs


class Graph:
    """Quantised as ONNX Runtime's quantiser does it: each value in int8 and back, weights in int8."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: object) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def make(self, operator: str, *inputs: str, **attributes: object) -> str:
        made = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [made], name=f"{operator}_{made}", **attributes))
        return made

    def rounded(self, value: str) -> str:
        steps = self.constant(np.float32(0.1)), self.constant(np.int8(0))
        return self.make("DequantizeLinear", self.make("QuantizeLinear", value, *steps), *steps)

    def convolved(self, value: str) -> str:
        packed = self.constant(np.arange(-288, 288).clip(-100, 100).reshape(8, 8, 3, 3).astype(np.int8))
        steps = self.constant(np.float32(0.01)), self.constant(np.int8(0))
        return self.make("Conv", value, self.make("DequantizeLinear", packed, *steps), pads=[1] * 4)

    def reshaped(self, value: str, *shape: int) -> str:
        return self.make("Reshape", value, self.constant(np.array(shape)))

    def save(self, answer: str, folder: Path) -> Path:
        x = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 8, 16, 16])
        y = helper.make_tensor_value_info(answer, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "graph", [x], [y], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.save(model, folder / "graph.onnx")
        return folder / "graph.onnx"


def chain(g: Graph) -> str:
    return g.rounded(g.convolved(g.rounded(g.convolved(g.rounded("pixel_values")))))


def open_ended(g: Graph) -> str:
    return g.convolved(g.rounded("pixel_values"))


def branched(g: Graph) -> str:
    one = g.rounded(g.convolved(g.rounded("pixel_values")))
    return g.rounded(g.convolved(g.rounded(g.make("Add", one, g.rounded(g.convolved(one))))))


def pooled(g: Graph) -> str:
    return g.rounded(g.make("GlobalAveragePool", g.rounded(g.convolved(g.rounded("pixel_values")))))


def vit(g: Graph) -> str:
    tokens = g.rounded(g.reshaped(g.rounded(g.convolved(g.rounded("pixel_values"))), 1, 8, 256))
    return g.rounded(g.make("Transpose", tokens, perm=[0, 2, 1]))


def attention_between(g: Graph) -> str:
    weights = g.rounded(g.reshaped(g.rounded(g.convolved(g.rounded("pixel_values"))), 1, 8, 256))
    return g.rounded(g.convolved(g.rounded(g.reshaped(g.rounded(g.make("Softmax", weights)), 1, 8, 16, 16))))


def floats(g: Graph) -> str:
    return g.make("Relu", "pixel_values")


@browser
@pytest.mark.parametrize(
    ("network", "on_cpu"),
    [(chain, 5), (open_ended, 2), (branched, 7), (pooled, 5), (vit, 6), (attention_between, 10), (floats, 0)],
)
def test_quantised_graphs_gain_what_channels_last_brings(
    page: Oracle, tmp_path: Path, network: Callable[[Graph], str], on_cpu: int
) -> None:
    """More than the graph holds: the runtime quantises beside each Transpose that it adds and cannot move away."""
    graph = Graph()
    path = graph.save(network(graph), tmp_path)
    assert agreed(page, path) == Counter({"QuantizeLinear": on_cpu} if on_cpu else {})


@browser
@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="onnxruntime-web moves a Transpose into int8, where ONNX "
    "Runtime here finds that it does not pay: one node more on the CPU",
)
def test_a_sum_of_the_input_and_a_convolution_is_counted_to_the_node(page: Oracle, tmp_path: Path) -> None:
    graph = Graph()
    given = graph.rounded("pixel_values")
    agreed(page, graph.save(graph.rounded(graph.make("Add", given, graph.rounded(graph.convolved(given)))), tmp_path))


@browser
@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8", "w4", "w4-fp16"])
def test_a_small_vit_is_taken_whole_in_floats(page: Oracle, precision: str) -> None:
    """Although this adapter has no float16: where nodes go is decided before anything is compiled."""
    bundle = web_bundles.whole("stacked", ("fp32", "fp16", "w8", "w4"))
    assert not agreed(page, bundle.path(bundle.variant(precision).files[0]))


@browser
@pytest.mark.parametrize("network", ["tiny", "tiny_mask", "tiny_segmenter"])
def test_small_networks_are_taken_whole(page: Oracle, network: str) -> None:
    bundle = web_bundles.whole(network)
    for variant in bundle.rung.variants:
        assert not agreed(page, bundle.path(variant.files[0]))


@browser
@pytest.mark.parametrize("precision", ["w8-dyn", "w8a8"])
def test_small_networks_in_integers_are_counted(page: Oracle, precision: str) -> None:
    bundle = web_bundles.whole("stacked", ("w8-dyn", "w8a8"))
    assert agreed(page, bundle.path(bundle.variant(precision).files[0])).total() > 0


@pytest.mark.slow
@browser
def test_the_selfie_preset_is_taken_whole(page: Oracle) -> None:
    bundle = web_bundles.preset("selfie", ("fp32",))
    assert not agreed(page, bundle.path(bundle.variant("fp32").files[0]))


@browser
@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(models.presets()))
def test_every_preset_is_counted(page: Oracle, preset: str, tmp_path: Path) -> None:
    """Their structure is what counts: weights are random, so that nothing is downloaded."""
    from vitexport import capture, photos
    from vitexport.contract import ExportRequest

    request = ExportRequest(model=preset, precisions=("fp32",), weights="random", runtime="none")
    source = capture.capture(models.build(request), preset, photos.probes(None))
    (bundle,) = web_bundles.filled(tmp_path, request, source)
    agreed(page, bundle.path(bundle.variant("fp32").files[0]))


@pytest.fixture(scope="module")
def fallen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """ViT-Tiny as stock tools make it, in the ways that onnxruntime-web leaves to the CPU."""
    import onnxruntime
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    from vitexport import torchvision_schemas

    torchvision_schemas.declare()
    import timm

    folder = tmp_path_factory.mktemp("fallen")
    torch.manual_seed(0)
    network, photo = timm.create_model("vit_tiny_patch16_224").eval(), torch.randn(1, 3, 224, 224)

    def exported(opset: int) -> Path:
        path = folder / f"opset{opset}.onnx"
        if not path.is_file():
            program = torch.onnx.export(
                network,
                (photo,),
                dynamo=True,
                opset_version=opset,
                external_data=False,
                verbose=False,
                input_names=["pixel_values"],
            )
            assert program is not None
            model = program.model_proto
            del model.graph.value_info[:]  # quantize_dynamic stumbles over the stale ones
            onnx.save(model, path)
        return path

    class Photo(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = [{"pixel_values": photo.numpy()}]

        def get_next(self) -> dict[str, object] | None:
            return self._left.pop() if self._left else None

    def make(how: str) -> Path:
        path = folder / f"{how}.onnx"
        if how == "attention":
            return exported(23)
        if how == "dynamic":
            gemms = ["MatMul", "Gemm"]
            quantize_dynamic(exported(18), path, weight_type=QuantType.QInt8, op_types_to_quantize=gemms)
        elif how == "qdq":
            quantize_static(exported(18), path, Photo())
        else:
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(path)
            onnxruntime.InferenceSession(str(exported(18)), options, providers=["CPUExecutionProvider"])
        return path

    return make


@browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "on_cpu"),
    [
        ("attention", {"Attention": 12}),
        ("fused", {"FusedMatMul": 12}),
        ("dynamic", {"DynamicQuantizeLinear": 49, "MatMulInteger": 49}),
        ("qdq", {"QuantizeLinear": 419}),
    ],
)
def test_vit_tiny_falls_back_as_predicted(
    page: Oracle, fallen: Callable[[str], Path], how: str, on_cpu: dict[str, int]
) -> None:
    assert agreed(page, fallen(how)) == Counter(on_cpu)


# ------------------------------------------------------------------------------------------------------- what is said


def planted(tmp_path: Path) -> Path:
    """A bundle with an opset-23 ``Attention``."""
    bundle = web_bundles.changed(
        web_bundles.whole("tiny", runtime="none"), tmp_path, web_bundles.with_attention, rehash=True
    )
    return bundle.directory


def test_the_command_names_operation_layer_and_rewrite(vitexport: Command, tmp_path: Path) -> None:
    done = vitexport("inspect", planted(tmp_path), "--placement", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert ", webgpu fp32: 1 of 4 operations is not taken by WebGPU " in words
    assert "1 Attention has no kernel" in words
    assert "Export at opset 20" in words
    assert f"by kernels that onnxruntime-web {ort_web.VERSION} says it has" in words
    assert "of the nodes that it places; some it fuses later into fewer" in words


def test_the_commands_json_holds_every_finding(vitexport: Command, tmp_path: Path) -> None:
    done = vitexport("inspect", planted(tmp_path), "--placement", "--precision", "fp32", "--json")
    (found,) = json.loads(done.stdout)
    assert (found["target"], found["precision"]) == ("webgpu", "fp32")
    (finding,) = found["lint"]["findings"]
    assert finding["operation"] == "Attention (planted)"
    assert finding["why"] == "has no kernel"
    assert finding["rewrite"].startswith("Export at opset 20")


@pytest.mark.parametrize("target", ["webgpu", "tflite"])
def test_a_models_name_is_lowered_first(vitexport: Command, tmp_path: Path, target: str) -> None:
    done = vitexport("inspect", TINY, "--placement", "--target", target, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert "takes all " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_command_refuses_with_a_sentence(vitexport: Command, tmp_path: Path) -> None:
    bundle = planted(tmp_path)
    expect(vitexport("inspect", "vit_tiny", "--target", "webgpu"), 2, "mean something with --placement alone.")
    expect(vitexport("inspect", bundle, "--placement", "--precision", "fp64"), 2, "There is no precision 'fp64' here.")
    expect(vitexport("inspect", bundle, "--placement", "--target", "webgp"), 2, "Did you mean 'webgpu'?")
    expect(vitexport("inspect", bundle, "--placement", "--size", "32"), 2, "is a bundle, which has its size.")
    expect(vitexport("inspect", TINY, "--placement", "--target", "onnx"), 2, "'onnx' has no accelerated path")
    (bundle / "model_fp32.onnx").write_bytes(b"no graph")
    expect(vitexport("inspect", bundle, "--placement"), 5, "model_fp32.onnx")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(LoweringFailed, match=r"^model\.onnx is no ONNX file "):
        examine(tmp_path / "model.onnx")


def test_alike_findings_share_a_row() -> None:
    def finding(block: int) -> Finding:
        return Finding(f"Attention (node_{block})", f"blocks.{block}.attn", "has no kernel", "Export at opset 20.")

    shown = rendered([finding(block) for block in range(12)])
    assert "12 of 368 operations are not taken by WebGPU" in shown
    assert "blocks.0.attn, blocks.1.attn, blocks.2.attn and 9 more" in shown
    assert shown.count("Export at opset 20.") == 1


def test_a_headline_tells_one_from_many() -> None:
    shown = rendered([Finding("Cast (a)", "", "takes no int64", "Compute it in int32.")])
    assert shown.startswith("vit_tiny 224x224, webgpu fp32: 1 of 368 operations is not taken by WebGPU ")
    assert rendered([]).startswith("vit_tiny 224x224, webgpu fp32: WebGPU takes all 368 operations ")


def test_a_file_that_is_refused_as_a_whole_is_not_said_to_be_taken_in_part() -> None:
    shown = rendered([Finding("Cast (a)", "", "takes no int64", "Compute it in int32.")], "refuses the file (a reason)")
    assert "WebGPU refuses the file (a reason), because of 1 of 368 operations " in shown
    assert "taken" not in shown


def rendered(findings: Sequence[Finding], unfit: str = "") -> str:
    from io import StringIO

    out = StringIO()
    found = Lint("WebGPU", "kernels", 368, tuple(findings), unfit=unfit)
    render([lint.Linted("vit_tiny", "webgpu", "fp32", Size(224, 224), found)], out)
    return " ".join(out.getvalue().split())
