"""The metrics see what they must see, and the verdict cannot pass what it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vitexport import parity
from vitexport.contract import Metric, OutputSpec, Parity, Variant

LOGITS = OutputSpec("logits", "logits", (1, 10))
MASK = OutputSpec("mask", "mask", (1, 1, 8, 8))
RNG = np.random.default_rng(0)


FP32 = Variant("fp32", ("model",), 1e-4)


def judge(
    output: OutputSpec,
    reference: np.ndarray,
    answer: np.ndarray,
    tolerance: float = 1e-4,
    spread: float = 1.0,
    metric: Metric = "drift",
) -> Parity:
    variant = Variant("fp32", ("model",), tolerance, metric=metric)
    return parity.verify((output,), [{output.name: reference}], [{output.name: answer}], variant, ["photo"], spread)


def logits() -> np.ndarray:
    return RNG.normal(size=(1, 10)).astype(np.float32)


def test_identical_outputs_pass_with_the_highest_snr():
    reference = logits()
    verdict = judge(LOGITS, reference, reference.copy())
    assert (verdict.verdict, verdict.drift, verdict.snr_db, verdict.agreement) == ("passed", 0.0, 200.0, 1.0)


def test_a_lost_scale_factor_fails_although_its_cosine_is_one():
    reference = logits()
    verdict = judge(LOGITS, reference, reference * np.float32(1.9))
    assert verdict.cosine == pytest.approx(1.0, abs=1e-6)
    assert verdict.agreement == 1.0
    assert verdict.verdict == "failed"
    assert verdict.drift == pytest.approx(0.9, rel=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_fails(poison: float):
    answer = (reference := logits()).copy()
    answer[0, 3] = poison
    assert judge(LOGITS, reference, answer).verdict == "failed"


def test_nan_in_the_first_image_is_not_forgotten_by_the_second():
    reference = logits()
    poisoned = np.full_like(reference, np.nan)
    verdict = parity.verify(
        (LOGITS,), [{"logits": reference}] * 2, [{"logits": poisoned}, {"logits": reference}], FP32, ["a", "b"], 1.0
    )
    assert verdict.verdict == "failed"
    assert np.isnan(verdict.drift)
    assert np.isnan(verdict.snr_db)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({}, "output 'logits' is missing; the artifact has none."),
        ({"logits": np.zeros((1, 9), np.float32)}, "output 'logits' has shape (1, 9), PyTorch's has (1, 10)."),
        ({"logits": np.zeros((1, 10), np.float64)}, "output 'logits' is float64, PyTorch's is float32."),
    ],
)
def test_wrong_name_shape_or_dtype_is_said(answer: dict[str, np.ndarray], sentence: str):
    verdict = parity.verify((LOGITS,), [{"logits": logits()}], [answer], FP32, ["photo"], 1.0)
    assert (verdict.verdict, verdict.reason) == ("failed", f"photo: {sentence}")


def test_drift_at_the_tolerance_passes_and_above_it_fails():
    reference = np.array([[1.0, -1.0]], np.float32)
    output = OutputSpec("logits", "logits", (1, 2))
    within, beyond = reference.copy(), reference.copy()
    within[0, 0] -= np.float32(2**-14)
    beyond[0, 0] -= np.float32(2**-13)
    assert judge(output, reference, within, tolerance=2**-14).verdict == "passed"
    assert judge(output, reference, beyond, tolerance=2**-14).verdict == "failed"


def test_agreement_of_photos_that_do_not_differ_is_ill_posed():
    reference = logits()
    verdict = judge(LOGITS, reference, reference, tolerance=1e-4, spread=0.0099)
    assert verdict.verdict == "failed"
    assert verdict.reason.startswith("ill-posed: ")
    assert judge(LOGITS, reference, reference, tolerance=1e-4, spread=0.01).verdict == "passed"


def test_contrast_is_between_photos_and_zero_for_one():
    a, b = np.array([[1.0, 0.0]]), np.array([[0.5, 0.0]])
    output = (OutputSpec("logits", "logits", (1, 2)),)
    assert parity.contrast(output, [{"logits": a}, {"logits": b}]) == 0.5
    assert parity.contrast(output, [{"logits": a}]) == 0.0


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_answer_that_is_no_number_has_no_contrast(place: int):
    answers = [np.array([[1.0, 0.0]]), np.array([[0.5, 0.0]]), np.array([[1.0, 0.0]])]
    answers[place] = np.array([[np.nan, 0.0]])
    output = (OutputSpec("logits", "logits", (1, 2)),)
    assert np.isnan(parity.contrast(output, [{"logits": answer} for answer in answers]))


def test_masks_must_overlap_even_where_the_drift_is_small():
    reference = np.full((1, 1, 8, 8), 0.49999, np.float32)
    reference[..., :4] = 0.50001
    answer = reference.copy()
    answer[..., :2] = 0.49999  # a drift of 4e-5, and half of the mask gone
    verdict = judge(MASK, reference, answer, tolerance=1e-4)
    assert verdict.drift < 1e-4
    assert verdict.agreement == 0.5
    assert verdict.verdict == "failed"


@pytest.mark.parametrize(("doubt", "verdict"), [(0.02, "passed"), (0.03, "failed")])
def test_on_one_picture_float16_may_decide_otherwise_where_pytorch_is_in_doubt(doubt: float, verdict: str):
    sure = np.zeros((1, 1, 64, 64), np.float32)
    sure[..., :32] = 1
    doubtful = np.zeros((1, 1, 64, 64), np.float32)
    doubtful[:, :, 0, :8], doubtful[:, :, 0, 8] = 1, 0.5 + doubt
    answer = doubtful.copy()
    answer[:, :, 0, 8] = 0.49  # one of nine pixels
    variant = Variant("fp16", ("model",), 0.5, metric="noise")
    references = [{"mask": sure}, {"mask": doubtful}]
    found = parity.verify((MASK,), references, [{"mask": sure}, {"mask": answer}], variant, ["a", "b"], 100.0)
    assert found.verdict == verdict, found.reason
    exact = replace(variant, metric="drift", tolerance=0.1)
    found = parity.verify((MASK,), references, [{"mask": sure}, {"mask": answer}], exact, ["a", "b"], 100.0)
    assert found.reason == "mask IoU with PyTorch is 0.8889; more than 0.99 passes."


def test_a_masks_scale_is_its_range_on_a_photo_without_a_person_too():
    reference = np.full((1, 1, 8, 8), 1e-3, np.float32)
    assert judge(MASK, reference, reference + np.float32(1e-5)).drift == pytest.approx(1e-5, rel=1e-2)


def test_two_empty_masks_agree_and_drift_decides():
    reference = np.full((1, 1, 8, 8), 0.01, np.float32)
    near, far = reference + np.float32(1e-7), reference + np.float32(2e-4)
    assert judge(MASK, reference, near).verdict == "passed"
    assert judge(MASK, reference, far).verdict == "failed"


def test_segmentation_agreement_is_the_mean_iou_of_the_classes_present():
    output = OutputSpec("logits", "segmentation", (1, 3, 2, 2))
    reference = np.zeros((1, 3, 2, 2), np.float32)
    reference[0, 0, 0], reference[0, 1, 1] = 1.0, 1.0
    answer = reference.copy()
    answer[0, :, 1, 1] = (1.0, 0.0, 0.0)
    assert parity.agreement(answer, reference, output) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_drift_against_a_zero_reference_is_the_largest_answer():
    assert parity.drift(np.array([0.0, 3.0]), np.zeros(2)) == 3.0


def test_noise_forgives_one_pixel_on_a_masks_edge_and_drift_does_not():
    reference = np.zeros((1, 1, 64, 64), np.float32)
    reference[..., :32] = 1.0
    answer = reference.copy()
    answer[0, 0, 0, 31] = 0.75
    assert judge(MASK, reference, answer, tolerance=5e-3, metric="noise").verdict == "passed"
    assert judge(MASK, reference, answer, tolerance=5e-3).verdict == "failed"
    assert parity.noise(judge(MASK, reference, answer).snr_db) == pytest.approx(0.25 / 64)


def test_noise_fails_on_nan_and_on_a_lost_scale_factor():
    reference = logits()
    for answer in (reference * np.float32(1.01), np.full_like(reference, np.nan)):
        assert judge(LOGITS, reference, answer, tolerance=5e-3, metric="noise").verdict == "failed"


@pytest.mark.parametrize(
    ("rounding", "tolerance"),
    [(0.0, 1e-4), (1e-6, 1e-4), (2.5e-5, 1e-4), (5e-5, 2e-4), (1.0, 1e-3)],
)
def test_a_float32_artifact_is_allowed_four_of_pytorchs_own_roundings_up_to_a_limit(rounding: float, tolerance: float):
    assert parity.held_to(FP32, rounding, spread=1.0).tolerance == pytest.approx(tolerance)


def test_a_precision_that_loses_bits_is_allowed_nothing_more():
    half = Variant("fp16", ("model",), 5e-3, metric="noise")
    assert parity.held_to(half, rounding=1.0, spread=0.8) == half


@pytest.mark.parametrize(
    ("half_rounding", "spread", "tolerance"),
    [
        (4e-3, 9.0, 8e-3),
        (5e-3, 9.0, 1e-2),
        (1e-2, 9.0, 2e-2),
        (1.0, 9.0, 8e-2),
        (1e-2, 1.5, 1.5e-2),
        (float("nan"), 9.0, 8e-3),
    ],
)
def test_what_pytorch_itself_loses_to_float16_is_allowed_twice_up_to_a_limit(
    half_rounding: float, spread: float, tolerance: float
):
    half = Variant("fp16", ("model",), 8e-3, metric="noise")
    assert parity.held_to(half, 1e-6, spread, half_rounding).tolerance == pytest.approx(tolerance)


@pytest.mark.parametrize(("spread", "tolerance"), [(2.0, 8e-3), (0.8, 8e-3), (0.5, 5e-3), (0.08, 8e-4), (0.01, 8e-4)])
def test_photos_that_differ_less_tighten_fp16_until_agreement_proves_something(spread: float, tolerance: float):
    half = parity.held_to(Variant("fp16", ("model",), 8e-3, metric="noise"), rounding=1e-6, spread=spread)
    assert half.tolerance == pytest.approx(tolerance)
    reference = logits()
    verdict = parity.verify((LOGITS,), [{"logits": reference}], [{"logits": reference}], half, ["photo"], spread)
    assert verdict.verdict == ("failed" if spread < 0.08 else "passed")
