"""How likely each class is: said by the manifest, and read by one rule in Python, in browsers and in Core ML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

import headless
from conftest import TESTS
from vitexport import ExportRequest, export, parity, photos
from vitexport.bundle import read_golden
from vitexport.contract import OutputSpec, Preprocessing, Scores, Site, Size
from vitexport.manifest import read_bundle
from vitexport.picture import proof as picture
from vitexport.serving import serve
from vitexport_targets.coreml import gates, inputs, labels
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.package import read
from vitexport_targets.webgpu.generate_types import RUNTIME

if TYPE_CHECKING:
    from playwright.sync_api import Page

CLASSES = OutputSpec("logits", "logits", (1, 3), ("a", "b", "c"), "logits")
LONE = OutputSpec("logits", "logits", (1, 1), ("cat",), "logits")
SHARES = replace(CLASSES, scores="probabilities")

#: Of one picture, and what it says: of the last, that two classes may be there at once.
SCORES = {
    "softmax": (CLASSES, [[2.0, -90.0, 1.0]], [[1 / (1 + np.exp(-1)), 0, 1 / (1 + np.exp(1))]]),
    "sigmoid": (LONE, [[-5.0]], [[1 / (1 + np.exp(5))]]),
    "shares": (SHARES, [[0.75, 0.125, 0.875]], [[0.75, 0.125, 0.875]]),
}


@pytest.mark.parametrize(("output", "scores", "wanted"), SCORES.values(), ids=SCORES)
def test_probabilities_are_taken_as_they_are_and_logits_by_softmax_or_sigmoid(
    output: OutputSpec, scores: list[list[float]], wanted: list[list[float]]
):
    read = parity.probabilities(np.array(scores, np.float32), output)
    np.testing.assert_allclose(read, wanted, rtol=1e-6, atol=1e-30)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    site = Site(RUNTIME, {"/device/": RUNTIME.parent / "device"}, {"/blank.html": b"<!doctype html>"})
    with serve(site) as url, headless.page() as page:
        page.goto(f"{url}blank.html")
        yield page


@pytest.mark.browser
@pytest.mark.parametrize(("output", "scores"), [case[:2] for case in SCORES.values()], ids=SCORES)
def test_a_browser_reads_the_probabilities_that_python_reads(output: OutputSpec, scores: list[list[float]], page: Page):
    reading = page.evaluate(
        """async ([spec, values]) => {
            const { read } = await import('/vitexport/readout.js');
            return read(spec, { data: new Float32Array(values), dims: spec.shape });
        }""",
        [msgspec.to_builtins(output), scores[0]],
    )
    true = parity.probabilities(np.array(scores, np.float32), output)[0]
    order = np.argsort(-true)
    assert [guess["label"] for guess in reading["top"]] == [output.labels[i] for i in order]
    np.testing.assert_allclose([guess["probability"] for guess in reading["top"]], true[order], rtol=2e-6, atol=1e-30)


@pytest.mark.parametrize("output", [LONE, SHARES], ids=["sigmoid", "shares"])
def test_the_picture_of_an_export_shows_probabilities_that_do_not_add_up_to_one(output: OutputSpec):
    unlikely, likely = np.full(output.shape, 0.1, np.float32), np.full(output.shape, 0.9, np.float32)
    how = Preprocessing(Size(64, 64))
    photo = photos.probes(None)[0].image
    sheets = [picture([photo], [{"logits": x}], [{"logits": x}], (output,), how) for x in (unlikely, likely)]
    assert sheets[0].tobytes() != sheets[1].tobytes()


@pytest.mark.parametrize("scores", ["logits", "probabilities"])
def test_of_one_class_agreement_is_on_which_side_of_a_half_it_is(scores: Scores):
    """It has no other class to lose to: the best of one would always be the same."""
    output = replace(LONE, scores=scores)
    there, barely, absent = (np.array([[x]], np.float32) + (0.5 if scores != "logits" else 0) for x in (0.4, 0.1, -0.1))
    assert parity.agreement(there, barely, output) == 1
    assert parity.agreement(absent, barely, output) == 0


@pytest.mark.browser
@pytest.mark.parametrize("scores", ["logits", "probabilities"])
def test_a_devices_page_counts_it_alike(scores: Scores, page: Page):
    output = replace(LONE, scores=scores)
    script = """async ([spec, a, b]) => {
        const { compare } = await import('/device/parity.js');
        const actual = { data: new Float32Array([a]), dims: [1, 1] };
        return compare(actual, new Float32Array([b]), spec, () => null).agreement;
    }"""
    for a, b in [(0.4, 0.1), (0.6, 0.9), (-0.1, 0.1), (0.4, 0.6)]:
        wanted = parity.agreement(np.array([[a]], np.float32), np.array([[b]], np.float32), output)
        assert page.evaluate(script, [msgspec.to_builtins(output), a, b]) == wanted


# ------------------------------------------------------------------------------------------------------------- Core ML


@pytest.mark.parametrize("name", ["lone", "shares"])
def test_a_package_gives_the_probabilities_that_python_reads(name: str, tmp_path: Path):
    asked = ExportRequest(model=f"{TESTS / 'models.py'}:{name}", targets=("coreml",), precisions=("fp16",))
    report = export(replace(asked, out=str(tmp_path / "out")))
    (result,) = report.results
    judged = {gate.name: gate.verdict for gate in result.parity.gates}
    assert (judged["labels"], "C" in judged) == ("passed", True)
    bundle = read_bundle(Path(report.out) / "coreml")
    output, case = bundle.rung.outputs[0], read_golden(bundle)[0]
    package = read(bundle.directory / "model_fp16.mlpackage")
    answer = Evaluator(package).run(inputs.feed(package, "main", case.pixel_values, bundle.rung.preprocessing))
    wanted = parity.probabilities(answer["logits"], output)
    np.testing.assert_allclose(np.ravel(answer[labels.PROBABILITIES]), wanted[0], atol=1e-6)
    assert str(answer[labels.LABEL]) == output.labels[int(case.reference["logits"].argmax())]
    assert labels.about_probabilities(output) == "every class's probability"


def test_a_package_that_takes_a_softmax_of_probabilities_shuts_its_gate():
    scores = np.array([[0.75, 0.125, 0.875]], np.float32)
    answer = {
        "logits": scores,
        labels.LABEL: np.array("c"),
        labels.PROBABILITIES: parity.probabilities(scores, CLASSES),
    }
    assert gates.labelled(answer, SHARES).verdict == "failed"
    assert gates.labelled(answer, CLASSES).verdict == "passed"
