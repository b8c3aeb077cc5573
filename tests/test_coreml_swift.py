"""The Swift package of a Core ML bundle, as far as a machine without Apple's frameworks can check it.

Every source is parsed; what is written for one network is compared with a file; and where Swift is at hand (`make
swift`, or `swiftc` on the path), the sources that need no Apple framework are compiled, and compute what Python does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tree_sitter
import tree_sitter_swift

from conftest import TESTS, TINY
from vitexport import ExportRequest, Size, export, parity, photos
from vitexport.contract import Device as DeviceFacts
from vitexport.contract import (
    DeviceCell,
    DeviceReport,
    Measurement,
    OutputSpec,
    Parity,
    Placement,
    Preprocessing,
    Provenance,
    SourceModel,
)
from vitexport.devices.report import accept
from vitexport.manifest import read_bundle
from vitexport.preprocess import preprocess
from vitexport_targets.coreml import labels
from vitexport_targets.coreml.swift_package import SwiftPackage, identifier, literal, module_name

EXPECTED = TESTS / "swift" / "expected"
LOGITS = OutputSpec("logits", "logits", (1, 5), ("cat", "coffee", "person", "rocket", "other"), "logits")
MASK = OutputSpec("mask", "mask", (1, 1, 24, 40), (), "probabilities", 0)
IMAGENET = Preprocessing(Size(32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", "crop", Size(36, 36))

#: Every filter, fit and rounding, by size: the ladder that the arithmetic is compared on.
LADDER = (
    IMAGENET,
    replace(IMAGENET, size=Size(31, 45), resize=Size(40, 48), interpolation="bilinear"),
    replace(IMAGENET, size=Size(48, 33), resize=Size(49, 36), interpolation="lanczos", crop_rounding="floor"),
    replace(IMAGENET, size=Size(40, 40), resize=None, fit="squash", interpolation="nearest"),
    replace(IMAGENET, size=Size(64, 24), resize=Size(70, 31), fit="squash"),
)


def source(how: Preprocessing = IMAGENET, *outputs: OutputSpec, name: str = "models.py:tiny") -> SourceModel:
    task = "segment" if outputs and outputs[0].meaning == "mask" else "classify"
    # Nothing is computed with it: what computes, the program and the forward, is not there.
    return SourceModel(name, task, how, outputs or (LOGITS,), Provenance("o", "l", "s"), None, None, ())  # type: ignore[arg-type]


def written(into: Path, *sources: SourceModel, multifunction: bool = False, kind: Any = "image") -> Path:
    """The package of a network in fp16 and w8, beside the float32 package that every bundle has."""
    package = SwiftPackage.of(sources or (source(),), ("fp16", "w8"), "ios17", kind, multifunction)
    into.mkdir(parents=True)
    for name in (*package._packages(), "model_fp32.mlpackage"):
        (into / name).mkdir()
    package.write(into)
    return into


# ------------------------------------------------------------------------------------------------------ what is written


def faults(node: tree_sitter.Node) -> Iterator[str]:
    if node.type == "ERROR" or node.is_missing:
        yield f"{node.start_point}: {node.text!r}"
    for child in node.children:
        yield from faults(child)


@pytest.mark.parametrize(
    ("sources", "how"),
    [
        ((source(),), {}),
        ((source(IMAGENET, MASK),), {"kind": "tensor"}),
        (tuple(source(how) for how in LADDER), {}),
        (tuple(source(how) for how in LADDER), {"multifunction": True}),
        (
            (
                source(
                    IMAGENET,
                    replace(LOGITS, labels=('"; import Darwin //', "a\nb", "\\(0)")),
                    replace(MASK, name="init"),
                    replace(MASK, name="2nd-mask é"),
                    name='hf:o"rg/1x\n*/ "é',
                ),
            ),
            {},
        ),
    ],
    ids=["picture", "tensor", "ladder", "multifunction", "hostile names"],
)
def test_every_source_is_swift(tmp_path: Path, sources: tuple[SourceModel, ...], how: dict[str, Any]):
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    found = sorted(written(tmp_path / "bundle", *sources, **how).rglob("*.swift"))
    assert len(found) == 19
    for path in found:
        text = path.read_bytes()
        assert not list(faults(parser.parse(text).root_node)), path.name
        assert b"__" not in re.sub(rb"mach_task_self_", b"", text), path.name  # every placeholder is filled


def test_a_parser_that_takes_everything_would_prove_nothing():
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    for wrong in (b"struct A { let x: = 3 }", b"func f( { }", b"enum E { case a = }", b"let x = [1, 2"):
        assert list(faults(parser.parse(wrong).root_node)), wrong


def test_what_depends_on_the_network_is_as_it_was_read_over(tmp_path: Path):
    """After a change that is meant: VITEXPORT_EXPECT=1 writes the files anew, for you to read over."""
    bundle = written(tmp_path / "bundle", source(), source(replace(IMAGENET, size=Size(24, 40), resize=None)))
    for made in (bundle / "Package.swift", bundle / "swift" / "Sources" / "Tiny" / "Generated.swift"):
        expected = EXPECTED / f"{made.name}.txt"
        if "VITEXPORT_EXPECT" in os.environ:
            expected.write_bytes(made.read_bytes())
        assert made.read_text() == expected.read_text(), made.name


def test_an_app_gets_what_was_asked_for_and_the_float32_reference_stays_behind(tmp_path: Path):
    package = (written(tmp_path / "bundle") / "Package.swift").read_text()
    assert '.copy("model_w8.mlpackage")' in package
    assert '.copy("model_fp32.mlpackage")' not in package
    assert package.count('"model_fp32.mlpackage"') == 2  # kept out of both targets, in which Xcode would compile it


def test_what_a_package_of_several_sizes_is_opened_with(tmp_path: Path):
    two = (source(), source(replace(IMAGENET, size=Size(24, 40))))

    def stored(where: str, **how: Any) -> str:
        bundle = written(tmp_path / where, *two, **how)
        return (bundle / "swift" / "Sources" / "Tiny" / "Generated.swift").read_text()

    assert '"model_\\(precision.rawValue)_\\(size.rawValue)"' in stored("apart")
    together = stored("together", multifunction=True)
    assert '"model_\\(precision.rawValue)"' in together
    assert '"size_\\(size.rawValue)"' in together


def test_outputs_have_the_names_that_core_ml_gives_them(tmp_path: Path):
    text = (written(tmp_path / "bundle") / "swift" / "Sources" / "Tiny" / "Generated.swift").read_text()
    for name in (labels.LABEL, labels.PROBABILITIES, "logits"):
        assert f'("{name}")' in text


@pytest.mark.parametrize(
    ("model", "module"),
    [
        ("vit_small", "VitSmall"),
        ("models.py:tiny", "Tiny"),
        ("hf:apple/deeplabv3-mobilevit", "Deeplabv3Mobilevit"),
        ("384net", "Model384net"),
        ("é", "Model"),
        ("coreML", "CoreMLNetwork"),
        ("exam", "ExamNetwork"),
    ],
)
def test_a_module_is_named_as_its_network(model: str, module: str):
    assert module_name(model) == module


@pytest.mark.parametrize(
    ("name", "swift"),
    [
        ("logits", "logits"),
        ("last_hidden_state", "lastHiddenState"),
        ("init", "`init`"),
        ("2nd", "_2nd"),
        ("é", "value"),
    ],
)
def test_an_output_is_named_as_swift_names_things(name: str, swift: str):
    assert identifier(name) == swift


def test_a_text_cannot_end_its_own_literal():
    assert literal('a"b\\(c)\n') == '"a\\"b\\\\(c)\\u{a}"'


def test_the_report_that_swift_writes_has_the_contracts_fields():
    text = (TESTS.parent / "targets/vitexport_targets/coreml/swift/Exam/DeviceReport.swift").read_text()
    for name, kind in {
        "DeviceReport": DeviceReport,
        "Device": DeviceFacts,
        "Cell": DeviceCell,
        "Parity": Parity,
        "Measurement": Measurement,
        "Placement": Placement,
    }.items():
        body = text[text.index(f"public struct {name}:") :]
        stored = re.findall(
            r"^ {4,8}public var (\w+)",
            body[: body.index("\n    }" if name != "DeviceReport" else "\n    public enum")],
            re.MULTILINE,
        )
        spelt = dict(re.findall(r'case (\w+) = "(\w+)"', text))
        assert stored, name
        assert {spelt.get(each, each) for each in stored} <= {field.name for field in fields(kind)}, name


def test_the_exam_is_timed_as_ours_is():
    from vitexport import bench

    text = (TESTS.parent / "targets/vitexport_targets/coreml/swift/Exam/Exam.swift").read_text()
    assert f"var steadyRuns = {bench.STEADY_RUNS}\n" in text
    assert f"var budgetSeconds = {bench.BUDGET_S}\n" in text
    comparison = (TESTS.parent / "targets/vitexport_targets/coreml/swift/Exam/Comparison.swift").read_text()
    assert f"ceilingDb = {parity.SNR_CEILING_DB}\n" in comparison
    floors = parity.MASK_IOU_FLOOR
    assert f"metric == .loss ? {floors['loss']} : {floors['drift']}" in comparison
    assert floors["drift"] == floors["noise"]


# ------------------------------------------------------------------------------------------- what it computes, in Swift


def toolchain() -> list[str]:
    """What comes before a command for it to run where Swift is; skips where it is nowhere."""
    set_up = Path(os.environ.get("VITEXPORT_SWIFT", TESTS.parent / ".venv" / "swift" / "run"))
    if set_up.is_file():
        return [str(set_up)]
    if shutil.which("swiftc"):
        return []
    pytest.skip("not run: no Swift here (make swift)")


def run(*command: str | Path) -> str:
    """A command's output, where Swift is. Neither an error nor a warning may come."""
    made = [*toolchain(), *map(str, command)]
    done = subprocess.run(made, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "warning:" not in done.stderr, done.stderr[-4000:]
    return done.stdout


class Swift:
    """The sources of a ladder's package that need no Apple framework, compiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bundle = written(folder / "bundle", *(source(how) for how in LADDER))
        sources = [*(bundle / "swift" / "Sources").rglob("*.swift"), TESTS / "swift" / "main.swift"]
        (folder / "flat").mkdir()
        for path in sources:
            name = path.name if path.name == "main.swift" else f"{path.parent.name}_{path.name}"
            text = re.sub(r"^import Tiny$", "", path.read_text(), flags=re.MULTILINE)  # one module, for one compilation
            (folder / "flat" / name).write_text(text)
        accessor = "import Foundation\nextension Bundle { static var module: Bundle { .main } }\n"  # SwiftPM writes it
        (folder / "flat" / "accessor.swift").write_text(accessor)
        made = sorted(map(str, (folder / "flat").glob("*.swift")))
        run("swiftc", "-O", "-module-name", "asked", *made, "-o", folder / "asked")

    def ask(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        (self.folder / "requests.json").write_text(json.dumps(requests))
        answers: list[dict[str, Any]] = json.loads(run(self.folder / "asked", self.folder / "requests.json"))
        return answers


APPLE = ("CoreVideo", "CoreGraphics", "VideoToolbox", "ImageIO", "CryptoKit", "CoreML")


@pytest.mark.slow
def test_what_calls_apples_frameworks_has_the_types_that_they_are_documented_with(tmp_path: Path):
    """Against declarations of our own, in tests/swift/apple: it finds a slip, and proves nothing of the frameworks."""
    toolchain()
    bundle = written(tmp_path / "bundle")
    # A copy: Swift's root sees /tmp, and not the checkout.
    apple = shutil.copytree(TESTS / "swift" / "apple", tmp_path / "apple")
    modules = tmp_path / "modules"
    modules.mkdir()
    accessor = tmp_path / "accessor.swift"  # SwiftPM writes it
    accessor.write_text("import Foundation\nextension Bundle { static var module: Bundle { .main } }\n")

    def module(name: str, *files: Path) -> tuple[str | Path, ...]:
        return ("-module-name", name, "-I", modules, "-parse-as-library", *files)

    def emitted(name: str, *files: Path) -> None:
        run("swiftc", "-emit-module", "-emit-module-path", modules / f"{name}.swiftmodule", *module(name, *files))

    for name in APPLE:
        emitted(name, apple / f"{name}.swift")
    sources = bundle / "swift" / "Sources"
    for name, beside in (("Tiny", []), ("TinyExam", [apple / "beside" / "Darwin.swift"])):
        files = [*sorted((sources / name).glob("*.swift")), *beside, accessor]
        emitted(name, *files)
        run("swiftc", "-typecheck", *module(name, *files))
    tests = sorted((bundle / "swift" / "Tests").glob("*.swift"))
    run("swiftc", "-typecheck", *module("TinyTests", *tests, apple / "beside" / "XCTest.swift"))


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Swift:
    return Swift(tmp_path_factory.mktemp("swift"))


def pairs() -> Iterator[tuple[OutputSpec, np.ndarray, np.ndarray]]:
    """Outputs of each meaning beside ones that are near, far, equal, empty, infinite and no numbers."""
    generator = np.random.default_rng(0)
    specs = (
        replace(LOGITS, shape=(1, 1000)),
        replace(MASK, shape=(1, 1, 9, 7)),
        replace(LOGITS, shape=(1, 1)),
        OutputSpec("features", "features", (1, 16, 8)),
        OutputSpec("scores", "segmentation", (1, 4, 9, 7), (), "logits", 2),
        OutputSpec("lone", "segmentation", (1, 1, 9, 7), (), "logits", 0),
        OutputSpec("shares", "segmentation", (1, 4, 9, 7), (), "probabilities", 1),
    )
    for spec in specs:
        true = generator.normal(size=spec.shape).astype(np.float32)
        true = 1 / (1 + np.exp(-true)) if spec.scores == "probabilities" else true
        near = true + generator.normal(size=spec.shape).astype(np.float32) * np.float32(0.05)
        zeros = np.zeros_like(true)
        broken, endless = near.copy(), near.copy()
        broken.flat[-1], endless.flat[-1] = np.nan, np.inf
        for answer, reference in (
            (near, true), (true * 3, true), (true, true), (zeros, true), (near, zeros), (zeros, zeros),
            (broken, true), (endless, true),
        ):  # fmt: skip
            yield spec, answer.astype(np.float32), reference.astype(np.float32)


def number(value: Any) -> float:
    return float("nan") if value is None else float(value)


@pytest.mark.slow
def test_swift_compares_as_python_does(swift: Swift):
    asked, expected = [], []
    for i, (spec, a, b) in enumerate(pairs()):
        paths = [swift.folder / f"{i}.{side}.f32" for side in "ab"]
        for path, tensor in zip(paths, (a, b), strict=True):
            path.write_bytes(tensor.tobytes())
        about = msgspec.to_builtins(spec)
        asked.append({"verb": "compare", "a": str(paths[0]), "b": str(paths[1]), "shape": spec.shape, "spec": about})
        people = [parity.person_mask(tensor, spec) for tensor in (a, b)]
        iou = None if people[0] is None else parity.mask_iou(people[0] > 0.5, people[1] > 0.5)
        with np.errstate(all="ignore"):
            figures = (parity.drift(a, b, spec.meaning), parity.snr_db(a, b, spec.meaning), parity.cosine(a, b))
        finite = bool(np.isfinite(a).all())
        expected.append((*figures, parity.agreement(a, b, spec) if finite else None, iou if finite else None))
    for request, reply, figures in zip(asked, swift.ask(asked), expected, strict=True):
        found = [number(reply.get(name)) for name in ("drift", "snrDb", "cosine", "agreement", "people")]
        for name, mine, true in zip(("drift", "snr", "cosine", "agreement", "people"), found, figures, strict=True):
            if true is not None:  # of what is not finite, who wins is not told: drift fails it
                np.testing.assert_allclose(mine, true, rtol=1e-9, atol=1e-12, err_msg=f"{name} of {request['spec']}")


@pytest.mark.slow
def test_swift_preprocesses_as_python_does_to_the_last_bit_of_the_resize(swift: Swift):
    generator = np.random.default_rng(1)
    noise = [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in ((37, 61), (200, 91), (17, 16))]
    pictures = [probe.image for probe in photos.probes(None)[:2]] + noise
    asked, expected = [], []
    for i, picture in enumerate(pictures):
        (swift.folder / f"{i}.rgb").write_bytes(picture.tobytes())
        for how in LADDER:
            files = {"photo": str(swift.folder / f"{i}.rgb"), "out": str(swift.folder / f"{len(asked)}.out")}
            sizes = {"height": picture.shape[0], "width": picture.shape[1], "size": str(how.size)}
            asked.append({"verb": "preprocess", **files, **sizes})
            expected.append(preprocess(picture, how))
    swift.ask(asked)
    for request, true in zip(asked, expected, strict=True):
        made = np.frombuffer(Path(request["out"]).read_bytes(), np.float32).reshape(true.shape)
        np.testing.assert_array_equal(made, true, err_msg=str(request))


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "passed"), (1.9, "failed")])
def test_the_report_that_swift_writes_is_taken_back(swift: Swift, tmp_path: Path, scale: float, verdict: str):
    export(ExportRequest(model=TINY, targets=("reference",), out=str(tmp_path / "out")))
    bundle = read_bundle(tmp_path / "out" / "reference")
    digest = hashlib.sha256((bundle.directory / "manifest.json").read_bytes()).hexdigest()
    (reply,) = swift.ask([{"verb": "report", "bundle": str(bundle.directory), "a": digest, "scale": scale}])
    (result,) = accept(reply["report"].encode(), [bundle])
    assert (result.verdict, result.device_verdict) == (verdict, verdict), result.parity
    assert result.parity.drift == pytest.approx(scale - 1, abs=1e-6)
    assert (result.provider, result.placement) == (
        "cpu_and_ne",
        Placement({"Neural Engine": 7, "CPU": 1}, ("gather (x)",)),
    )
    assert result.latency.runs == (30 if verdict == "passed" else 0)


@pytest.mark.slow
def test_swiftpm_builds_a_bundle_as_it_is_and_its_exam_passes_where_core_ml_is_not_needed(tmp_path: Path):
    pytest.importorskip("coremltools")
    toolchain()
    out = str(tmp_path / "out")
    export(ExportRequest(model=TINY, targets=("coreml",), precisions=("fp16",), image_input=False, out=out))
    said = run("swift", "test", "--disable-sandbox", "--package-path", tmp_path / "out" / "coreml")
    assert "Executed 4 tests, with 0 failures" in said
