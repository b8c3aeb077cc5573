"""From a model to a .tflite: what it takes and answers, what it holds, what it says of itself, and who refuses it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("litert_torch")

import torch

import unproven
from conftest import TESTS, TINY, TINY_MASK
from vitexport import (
    ExportRequest,
    Size,
    capture,
    export,
    models,
    parity,
    photos,
    registry,
    toolchain,
    torchvision_schemas,
)
from vitexport.bundle import read_golden
from vitexport.contract import Bundle, Report, Threaded
from vitexport.errors import BadRequest, LoweringFailed, RuntimeUnavailable
from vitexport.manifest import read_bundle
from vitexport.pipeline import binds
from vitexport.preprocess import pixels, preprocess
from vitexport.rewrites import PROGRAM_REWRITES
from vitexport_targets.tflite import lowering, quantisation, signature
from vitexport_targets.tflite.contiguous import make_contiguous
from vitexport_targets.tflite.layer_scale import fold_layer_scale
from vitexport_targets.tflite.litertjs import open_in_litertjs
from vitexport_targets.tflite.quiet import quietly
from vitexport_targets.tflite.sealing import facts, sealed
from vitexport_targets.tflite.weights import constants, interfaces

ROOMY = f"{TESTS / 'models.py'}:roomy"
ANY_SIZE = f"{TESTS / 'models.py'}:any_size"
TARGET = registry.target("tflite")
TODAY = set(TARGET.traits.providers) - set(TARGET.traits.older)


def exported(tmp_path: Path, model: str, **asked: Any) -> tuple[Report, Path]:
    report = export(ExportRequest(model=model, targets=("tflite",), out=str(tmp_path / "out"), **asked))
    return report, Path(report.out) / "tflite"


def lowered(folder: Path, model: str, **asked: Any) -> tuple[Bundle, ...]:
    """Not proven, which takes a browser and seconds."""
    return unproven.written(folder, ExportRequest(model=model, targets=("tflite",), precisions=("fp32",), **asked))


def source(model: str, **asked: Any) -> Any:
    return capture.capture(models.build(ExportRequest(model=model, **asked)), "made here", photos.probes(None))


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Bundle]:
    report, folder = exported(tmp_path_factory.mktemp("roomy"), ROOMY, precisions=("fp32", "fp16", "w8", "w8-dyn"))
    return report, read_bundle(folder)


# ------------------------------------------------------------------------------------------------- the whole product


def test_a_conversion_leaves_pythons_recursion_limit_as_it_was(tmp_path: Path):
    before = sys.getrecursionlimit()
    lowered(tmp_path / "out", TINY)
    assert sys.getrecursionlimit() == before


def test_every_runtime_agrees_with_pytorch_in_every_precision(roomy: tuple[Report, Bundle]):
    verdicts = {(r.precision, r.provider): r.verdict for r in roomy[0].results}
    for precision in ("fp32", "fp16"):
        assert {verdicts[precision, provider] for provider in TODAY} == {"passed"}
    for precision in ("w8", "w8-dyn"):
        native = {verdicts[precision, provider] for provider in ("interpreter", "compiled-model", "wasm")}
        assert native == {"passed"}
        assert verdicts[precision, "webgpu"] in ("passed", "not run")
    exact = [r.parity.drift for r in roomy[0].results if r.precision == "fp32"]
    assert max(exact) <= 1e-4


def test_xnnpack_takes_all_of_it_and_the_report_counts(roomy: tuple[Report, Bundle]):
    (result,) = (r for r in roomy[0].results if (r.precision, r.provider) == ("fp32", "interpreter"))
    assert result.placement.nodes.keys() == {"xnnpack"}
    assert result.placement.nodes["xnnpack"] > 10


@pytest.mark.parametrize("provider", ["interpreter", "compiled-model"])
def test_it_can_be_told_how_many_threads_to_use_and_says_so(roomy: tuple[Report, Bundle], provider: str):
    _, bundle = roomy
    (case, *_) = read_golden(bundle)
    assert isinstance(TARGET, Threaded)
    with TARGET.open_threaded(bundle, "fp32", provider, 2) as session:
        assert session.device.facts["threads"] == "2"
        answer = session.run(case.pixel_values).outputs["logits"]
    assert np.abs(answer - case.reference["logits"]).max() < 1e-4


def test_an_operation_that_xnnpack_leaves_is_named(tmp_path: Path):
    """uint8 becomes float in LiteRT's own kernel."""
    (bundle,) = lowered(tmp_path / "out", TINY, image_input=True)
    with TARGET.open(bundle, "fp32", "interpreter") as session:
        assert session.placement.nodes["cpu"] == 1
        assert session.placement.fallback[0].startswith("CAST (")


def test_fewer_bits_are_fewer_bytes_of_the_type_asked_for(roomy: tuple[Report, Bundle]):
    bundle = roomy[1]
    sizes = {name: bundle.path(f"model_{name}.tflite").stat().st_size for name in ("fp32", "fp16", "w8")}
    assert sizes["fp32"] > sizes["fp16"] > sizes["w8"]
    held = {name: {c.dtype for c in constants(bundle.path(f"model_{name}.tflite").read_bytes())} for name in sizes}
    assert held == {"fp32": {"float32"}, "fp16": {"float16"}, "w8": {"int8"}}


def test_identical_input_gives_an_identical_file(roomy: tuple[Report, Bundle], tmp_path: Path):
    folder = tmp_path / "out"
    unproven.written(folder, ExportRequest(model=ROOMY, targets=("tflite",), precisions=("fp32", "w8")))
    for name in ("fp32", "w8"):
        file = f"model_{name}.tflite"
        assert (folder / file).read_bytes() == roomy[1].path(file).read_bytes()
        assert str(TESTS).encode() not in (folder / file).read_bytes()


def test_a_file_carries_its_licence_origin_preprocessing_and_labels(roomy: tuple[Report, Bundle]):
    said = facts(roomy[1].path("model_fp32.tflite").read_bytes())
    assert said["vitexport.licence"] == "Apache-2.0"
    assert json.loads(said["vitexport.preprocessing"])["size"] == {"height": 32, "width": 32}
    assert json.loads(said["vitexport.outputs"])[0]["labels"][0] == "cat"
    assert said["min_runtime_version"] == "2.9.0"


# ------------------------------------------------------------------------------------------ signatures and layouts


def test_names_are_those_of_the_task_and_the_outputs(roomy: tuple[Report, Bundle]):
    ((name, takes),) = interfaces(roomy[1].path("model_fp32.tflite").read_bytes()).items()
    assert (name, takes) == ("classify", [("pixel_values", (1, 32, 32, 3), "float32")])


def test_segmentation_takes_and_answers_channels_last_and_a_tensor_is_kept_on_request(tmp_path: Path):
    for image_input, shape in ((None, (1, 24, 32, 3)), (False, (1, 3, 24, 32)), (True, (1, 24, 32, 3))):
        report, folder = exported(tmp_path / str(image_input), TINY_MASK, precisions=("fp32",), image_input=image_input)
        assert {r.verdict for r in report.results if binds(r)} == {"passed"}
        content = (folder / "model_fp32.tflite").read_bytes()
        ((_, got, dtype),) = interfaces(content)["segment"]
        assert (got, dtype) == (shape, "uint8" if image_input else "float32")
    assert (tmp_path / "True/out/tflite/manifest.json").read_text().count('"input_name": "image"') == 1


def test_a_vit_takes_what_pytorch_takes():
    vit = source("vit_tiny_patch16_224", weights="random", sizes=(Size(32, 32),))
    assert signature.chosen(vit, ExportRequest(model="x"), ladder=False).feed == "nchw"
    assert signature.chosen(vit, ExportRequest(model="x", image_input=True), ladder=False).feed == "image"


def test_a_photo_goes_in_as_uint8_and_comes_out_as_pytorchs_answer(tmp_path: Path):
    """To 1/255 of the range of what it answers, and far below."""
    (bundle,) = lowered(tmp_path / "out", TINY, image_input=True)
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(bundle.path("model_fp32.tflite"))).get_signature_runner("classify")
    for case in read_golden(bundle):
        photo = pixels(case.pixel_values, bundle.rung.preprocessing)
        assert photo.dtype == np.uint8
        answer, true = runner(image=photo[None])["logits"], case.reference["logits"]
        assert np.abs(answer - true).max() <= np.ptp(true) / 255
        assert parity.drift(answer, true) <= 1e-5


def test_a_ladder_is_one_file_whose_sizes_share_their_weights(tmp_path: Path):
    sizes = (Size(32, 32), Size(48, 64))
    ladder = lowered(tmp_path / "ladder", ANY_SIZE, sizes=sizes)
    content = ladder[0].path("model_fp32.tflite").read_bytes()
    assert interfaces(content).keys() == {"classify_32x32", "classify_48x64"}
    (alone,) = lowered(tmp_path / "alone", ANY_SIZE, sizes=sizes[:1])
    assert len(constants(content)) == len(constants(alone.path("model_fp32.tflite").read_bytes()))
    for bundle in ladder:
        with TARGET.open(bundle, "fp32", "interpreter") as session:
            case = read_golden(bundle)[0]
            assert parity.drift(session.run(case.pixel_values).outputs["logits"], case.reference["logits"]) < 1e-4


def test_intermediate_values_are_shown_by_the_interpreter_alone(roomy: tuple[Report, Bundle]):
    bundle = roomy[1]
    case = read_golden(bundle)[0]
    from ai_edge_litert.interpreter import Interpreter

    name = Interpreter(str(bundle.path("model_fp32.tflite"))).get_tensor_details()[-1]["name"]
    with TARGET.open(bundle, "fp32", "interpreter", (name,)) as session:
        assert name in session.run(case.pixel_values).outputs
    for provider in ("compiled-model", "wasm"):
        with pytest.raises(BadRequest, match="nterpreter"):
            TARGET.open(bundle, "fp32", provider, (name,))


# --------------------------------------------------------------------------------------------- quantiser and its traps


def test_what_the_quantiser_passes_over_without_a_word_is_refused():
    """4-bit blocks of convolutions: it hands back the float file."""
    convolutional = source(TINY_MASK.replace("tiny_mask", "any_size"), sizes=(Size(32, 32),))
    asked = ExportRequest(model="x")
    interface = [signature.chosen(convolutional, asked, ladder=False)]
    whole = lowering.convert([convolutional], interface)
    with pytest.raises(LoweringFailed, match="w4 is refused: ai-edge-quantizer has no such form"):
        quantisation.quantised(whole, "w4", [convolutional], interface)
    with pytest.raises(LoweringFailed, match="w8 is refused"):
        quantisation.check(whole, "w8")


@pytest.mark.parametrize("name", quantisation.RECIPES)
def test_every_form_of_fewer_bits_is_what_it_says(name: str):
    made_here = source(ROOMY)
    interface = [signature.chosen(made_here, ExportRequest(model="x"), ladder=False)]
    whole = lowering.convert([made_here], interface)
    made = quantisation.quantised(whole, name, [made_here], interface)
    assert len(made) < 0.6 * len(whole)
    assert interfaces(made) == interfaces(whole), "inputs and outputs stay float"
    assert constants(made)


def test_blocks_of_32_need_rows_that_they_divide():
    made_here = source(ROOMY)
    interface = [signature.chosen(made_here, ExportRequest(model="x"), ladder=False)]
    made = quantisation.quantised(lowering.convert([made_here], interface), "w4", [made_here], interface)
    assert {c.dtype for c in constants(made)} == {"int4", "int8"}


@pytest.mark.parametrize("name", ["fp16", "w8-dyn"])
def test_weights_that_the_quantiser_puts_behind_the_flatbuffer_are_sealed_in(name: str):
    """From 256 KiB on: ``_serialize_model`` of ai_edge_quantizer/model_modifier.py."""
    from ai_edge_litert.interpreter import Interpreter

    large = source(f"{TESTS / 'models.py'}:roomy_and_large")
    interface = [signature.chosen(large, ExportRequest(model="x"), ladder=False)]
    made = quantisation.quantised(lowering.convert([large], interface), name, [large], interface)
    x = np.random.default_rng(0).standard_normal((1, 32, 32, 3), np.float32)
    answers = [
        Interpreter(model_content=content).get_signature_runner("classify")(pixel_values=x)["logits"]
        for content in (made, sealed(made, {"vitexport.model": "large"}))
    ]
    assert np.array_equal(*answers)


# ------------------------------------------------------------------------------------------- litert-torch's own traps


def test_litert_torch_still_confuses_constants_that_it_copies():
    """See tflite/contiguous.py: a copy that is dropped at once leaves its address to the next."""
    from litert_torch.backend.inline_consts import _ConstantFingerprint

    def fingerprints() -> list[Any]:
        transposed = [torch.full((64, 96), float(i)).t() for i in range(8)]
        return [_ConstantFingerprint.from_tensor(each.contiguous()) for each in transposed]

    assert any(len(set(fingerprints())) < 8 for _ in range(20))


def test_transposed_weights_come_out_as_they_are():
    class Transposed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.layers = torch.nn.ModuleList(torch.nn.Linear(64, 64, bias=False) for _ in range(6))
            for layer in self.layers:
                layer.weight.data = torch.randn(64, 64, generator=generator).t() / 8

        def forward(self, pixel_values: Any) -> Any:
            x = pixel_values.mean(1).flatten(1)[:, :64]
            for layer in self.layers:
                x = torch.nn.functional.gelu(layer(x)) + x
            return x

    module = Transposed()
    assert not any(p.is_contiguous() for p in module.parameters())
    before = [p.clone() for p in module.parameters()]
    make_contiguous(module)
    assert all(p.is_contiguous() for p in module.parameters())
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


class Scaled(torch.nn.Module):
    """Blocks of ``x + gamma * linear(y)``, as DINOv2's."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 64, 16, 16)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(64) for _ in range(blocks))
        self.layers = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(blocks))
        self.gammas = torch.nn.ParameterList(torch.rand(64, generator=generator) + 0.2 for _ in range(blocks))

    def forward(self, pixel_values: Any) -> Any:
        x = self.stem(pixel_values).flatten(2).transpose(1, 2)
        for norm, layer, gamma in zip(self.norms, self.layers, self.gammas, strict=True):
            made = torch.nn.functional.dropout(layer(torch.nn.functional.gelu(norm(x))), 0.1, self.training)
            x = x + (made * gamma if layer is self.layers[0] else gamma * made)
        return x


def test_layer_scale_goes_into_the_layer_before_it_and_the_source_stays():
    torch.manual_seed(0)
    module, x = Scaled().eval(), torch.rand(1, 3, 64, 64)
    program = torch.export.export(module, (x,))
    true = module(x)
    folded = program.module()
    assert fold_layer_scale(folded) == 3
    assert not any(node.target is torch.ops.aten.mul.Tensor for node in folded.graph.nodes)
    torch.testing.assert_close(folded(x), true, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(program.module()(x), true, rtol=0, atol=0)


@pytest.mark.browser
@pytest.mark.parametrize(("folded", "right"), [(False, False), (True, True)], ids=["as it is", "folded"])
def test_litert_js_still_computes_layer_scale_wrongly_on_the_gpu(folded: bool, right: bool, tmp_path: Path):
    """See tflite/layer_scale.py; two blocks of a ViT are enough."""
    torchvision_schemas.declare()
    import timm

    torch.manual_seed(0)
    sizes = {"img_size": 64, "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 10}
    network = timm.models.VisionTransformer(**sizes, init_values=1.0).eval()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape) * (0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    x = torch.randn(1, 3, 64, 64)
    program = torch.export.export(network, (x,))
    assert all(rewrite(program) >= 0 for rewrite in PROGRAM_REWRITES)
    module = program.module()
    if folded:
        assert fold_layer_scale(module) == 4

    class Named(torch.nn.Module):
        def forward(self, pixel_values: Any) -> dict[str, Any]:
            return {"logits": module(pixel_values)}

    with quietly():
        import litert_torch

        converter = litert_torch.signature("classify", Named(), sample_kwargs={"pixel_values": x})
        converter.convert(runtime_constant_folding=True).export(str(tmp_path / "m.tflite"))
    true = network(x).detach().numpy()
    with open_in_litertjs(
        tmp_path / "m.tflite", "classify", "webgpu", lambda value: {"pixel_values": value}, dict
    ) as session:
        drift = parity.drift(session.run(x.numpy()).outputs["logits"], true)
        assert session.placement.nodes.keys() == {"webgpu"}
    assert (drift <= 1e-5) is right, drift


# ------------------------------------------------------------------------------------------------- without a browser


def test_without_the_npm_package_the_web_is_not_run_and_says_how(
    roomy: tuple[Report, Bundle], monkeypatch: pytest.MonkeyPatch
):
    from vitexport.errors import MissingToolchain
    from vitexport_targets.tflite import web

    def absent(*_: object) -> None:
        raise MissingToolchain("'@litertjs/core' is not installed. Run: npm install @litertjs/core")

    monkeypatch.setattr(web, "open_in_litertjs", absent)
    with pytest.raises(RuntimeUnavailable, match="npm install"):
        TARGET.open(roomy[1], "fp32", "wasm")


# ---------------------------------------------------------------------------------------------------- there and back


def test_selfie_goes_to_pytorch_and_back_and_answers_as_mediapipes_own_file(tmp_path: Path):
    from ai_edge_litert.interpreter import Interpreter

    package, _ = toolchain.npm_package("@mediapipe/selfie_segmentation", "")
    selfie = source("selfie")
    interface = signature.chosen(selfie, ExportRequest(model="selfie"), ladder=False)
    made = lowering.convert([selfie], [interface])
    own = Interpreter(str(package / "selfie_segmentation.tflite"))
    own.allocate_tensors()
    ours = Interpreter(model_content=made).get_signature_runner("segment")
    (given,), (answer,) = own.get_input_details(), own.get_output_details()
    for probe in selfie.probes:
        pixel_values = np.ascontiguousarray(preprocess(probe.image, selfie.preprocessing).transpose(0, 2, 3, 1))
        own.set_tensor(given["index"], pixel_values)
        own.invoke()
        mask = ours(pixel_values=pixel_values)["mask"]
        assert np.abs(mask - own.get_tensor(answer["index"])).max() <= 1e-3
