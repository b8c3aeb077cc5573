"""Where in an output people are: said by the manifest, read by one rule in Python and in browsers, held to a floor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

import headless
import models
from vitexport import capture, parity, photos
from vitexport.capture import person_channel
from vitexport.contract import Metric, OutputSpec, Parity, Site, Variant
from vitexport.serving import serve
from vitexport_targets.webgpu.generate_types import RUNTIME

if TYPE_CHECKING:
    from playwright.sync_api import Page

CLASSES = OutputSpec("logits", "segmentation", (1, 4, 3, 5), ("a", "b", "c", "person"), "logits", 3)
LONE = OutputSpec("logits", "segmentation", (1, 1, 3, 5), ("person",), "logits", 0)
SHARES = replace(CLASSES, scores="probabilities")
MASK = OutputSpec("mask", "mask", (1, 1, 3, 5), ("person",), "probabilities", 0)


def scores(output: OutputSpec) -> np.ndarray:
    """Of any size that a float32 network may answer with; 90 is where e^x leaves float32."""
    drawn = np.random.default_rng(0).uniform(-120, 120, output.shape).astype(np.float32)
    return drawn if output.scores == "logits" else np.abs(drawn) / 120


@pytest.mark.parametrize(
    ("labels", "channel"),
    [
        (("background", "person"), 1),
        (("wall", "person, individual, someone, somebody, mortal, soul"), 1),
        (("Person",), 0),
        (("personal computer", "salesperson"), None),
        ((), None),
    ],
)
def test_the_channel_of_people_is_the_class_that_is_called_person(labels: tuple[str, ...], channel: int | None):
    assert person_channel(labels) == channel


def test_a_captured_network_says_where_people_are_and_what_its_scores_are():
    (mask,) = capture.capture(models.tiny_mask(), "tiny_mask", photos.probes(None)).outputs
    assert (mask.scores, mask.person) == ("probabilities", 0)
    # Its third class is called person too: but to tell that there is one is not to show where.
    (classes,) = capture.capture(models.tiny(), "tiny", photos.probes(None)).outputs
    assert (classes.scores, classes.person) == ("logits", None)


def test_the_rule_is_softmax_sigmoid_or_nothing():
    given = scores(CLASSES).astype(np.float64)
    wanted = np.exp(given[:, 3]) / np.exp(given).sum(1)
    np.testing.assert_allclose(parity.person_mask(scores(CLASSES), CLASSES), wanted, rtol=1e-5, atol=1e-30)
    wanted = 1 / (1 + np.exp(-scores(LONE)[:, 0].astype(np.float64)))
    np.testing.assert_allclose(parity.person_mask(scores(LONE), LONE), wanted, rtol=1e-5, atol=1e-30)
    for output in (SHARES, MASK):
        assert np.array_equal(parity.person_mask(scores(output), output), scores(output)[:, output.person])
    assert parity.person_mask(scores(CLASSES), replace(CLASSES, person=None)) is None


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with serve(Site(RUNTIME, pages={"/blank.html": b"<!doctype html>"})) as url, headless.page() as page:
        page.goto(f"{url}blank.html")
        yield page


@pytest.mark.browser
@pytest.mark.parametrize("output", [CLASSES, LONE, SHARES, MASK], ids=["softmax", "sigmoid", "shares", "mask"])
def test_a_browser_reads_the_mask_that_python_reads(output: OutputSpec, page: Page):
    given = scores(output)
    read = page.evaluate(
        """async ([spec, values, dims]) => {
            const { personMask } = await import('/vitexport.js');
            const { height, width, mask } = personMask(spec, { data: new Float32Array(values), dims });
            return [height, width, ...mask];
        }""",
        [msgspec.to_builtins(output), given.ravel().tolist(), given.shape],
    )
    assert read[:2] == [3, 5]
    np.testing.assert_allclose(read[2:], parity.person_mask(given, output).ravel(), rtol=2e-6, atol=1e-30)


@pytest.mark.browser
def test_a_browser_reads_no_mask_where_there_is_no_channel(page: Page):
    spec = msgspec.to_builtins(replace(CLASSES, person=None))
    read = """async (spec) => (await import('/vitexport.js')).personMask(
        spec, { data: new Float32Array(4), dims: [1, 4, 1, 1] })"""
    assert page.evaluate(read, spec) is None


def judged(answer: np.ndarray, reference: np.ndarray, output: OutputSpec, metric: Metric = "noise") -> Parity:
    variant = Variant("p", ("model",), 0.5, metric=metric)
    return parity.verify((output,), [{output.name: reference}], [{output.name: answer}], variant, ["photo"], 100.0)


def test_masks_of_people_must_overlap_in_floats_however_small_the_noise_is():
    output = OutputSpec("logits", "segmentation", (1, 2, 8, 8), ("background", "person"), "logits", 1)
    reference = np.full((1, 2, 8, 8), 100.0, np.float32)
    reference[:, 1, :, :4] += 0.1
    reference[:, 1, :, 4:] -= 0.1
    answer = reference.copy()
    answer[:, 1, 0, 0] -= 0.2  # one of 32 pixels
    verdict = judged(answer, reference, output)
    assert verdict.person_iou == pytest.approx(31 / 32)
    assert verdict.snr_db > 70
    assert (verdict.verdict, verdict.reason) == (
        "failed",
        "IoU with PyTorch's masks of people is 0.9688; more than 0.99 passes.",
    )
    assert judged(answer, reference, output, "loss").verdict == "passed"  # fewer bits: said, and for the user to weigh
    assert judged(reference, reference, output).person_iou == 1.0
    assert judged(answer, reference, replace(output, person=None)).person_iou is None


def test_a_masks_agreement_is_that_of_its_people():
    reference = np.zeros((1, 1, 4, 4), np.float32)
    reference[..., :2] = 1
    verdict = judged(reference, reference, replace(MASK, shape=reference.shape))
    assert (verdict.agreement, verdict.person_iou) == (1.0, 1.0)
