"""The picture of an export: what it shows, and that the composite keeps the person and blurs the rest."""

from __future__ import annotations

import numpy as np
import pytest

import models
from vitexport import capture, photos
from vitexport import proof as proving
from vitexport.contract import Meaning, OutputSpec, Preprocessing, Size
from vitexport.picture import TILE, background_blurred, of_exam, proof

PERSON, CUP = (probe.image for probe in photos.probes(None)[:2])
SQUASH = Preprocessing(Size(64, 64))
CROP = Preprocessing(Size(64, 64), fit="crop")

#: An answer of each meaning, for a network of 64x64 pixels, and the tiles of its row.
ANSWERS: dict[Meaning, tuple[tuple[int, ...], int]] = {
    "mask": ((1, 1, 64, 64), 5),
    "segmentation": ((1, 5, 16, 16), 4),
    "logits": ((1, 10), 3),
    "features": ((1, 384), 3),
}


def drawn(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(dtype)


def spec(meaning: Meaning, labels: tuple[str, ...] = ()) -> tuple[OutputSpec, ...]:
    return (OutputSpec("answer", meaning, ANSWERS[meaning][0], labels),)


def framed(mask: np.ndarray) -> np.ndarray:
    mask[16:48, 16:48] = 1
    return mask


@pytest.mark.parametrize("preprocessing", [SQUASH, CROP], ids=["squash", "crop"])
@pytest.mark.parametrize("meaning", ANSWERS)
def test_each_photo_is_a_row_of_tiles(meaning: Meaning, preprocessing: Preprocessing) -> None:
    shape, tiles = ANSWERS[meaning]
    answers = [{"answer": drawn(shape)}] * 2
    one = proof([PERSON], answers[:1], answers[:1], spec(meaning), preprocessing)
    two = proof([PERSON, PERSON], answers, answers, spec(meaning), preprocessing)
    assert (one.mode, one.width) == ("RGB", 12 + tiles * (TILE + 12))
    assert two.height - one.height == one.height - 12
    assert proof([PERSON], answers[:1], answers[:1], spec(meaning), preprocessing, "a title").height > one.height


def test_a_landscape_photo_makes_a_lower_row() -> None:
    mask = {"answer": drawn((1, 1, 64, 64))}
    upright, wide = (proof([photo], [mask], [mask], spec("mask"), SQUASH) for photo in (PERSON, CUP))
    assert wide.height == upright.height - TILE + round(TILE * CUP.shape[0] / CUP.shape[1])


def test_the_photo_is_shown_as_the_network_saw_it() -> None:
    answer = {"answer": drawn((1, 10))}
    sheet = np.asarray(proof([CUP], [answer], [answer], spec("logits"), CROP))
    first = sheet[12 : 12 + TILE, 12 : 12 + TILE].astype(np.float32)
    # A square cut out of the middle fills its square tile: no bar of one colour is left above it.
    assert first[:4].std() > 5


@pytest.mark.parametrize("meaning", ANSWERS)
def test_a_difference_in_the_artifact_is_visible(meaning: Meaning) -> None:
    answer = drawn(ANSWERS[meaning][0])
    same, other = (
        proof([PERSON], [{"answer": answer}], [{"answer": theirs}], spec(meaning), SQUASH)
        for theirs in (answer, answer[..., ::-1])
    )
    theirs = (12 + 2 * (TILE + 12), 12, 12 + 3 * (TILE + 12), 12 + TILE)
    assert np.abs(np.asarray(same.crop(theirs), int) - np.asarray(other.crop(theirs), int)).max() > 50


@pytest.mark.parametrize("meaning", ["mask", "segmentation"])
def test_where_an_artifact_differs_is_drawn_however_little_it_is(meaning: Meaning) -> None:
    shape = ANSWERS[meaning][0]
    ours = np.zeros(shape, np.float32)
    if meaning == "segmentation":
        ours[:, 0] = 1e-6
    theirs = ours.copy()
    theirs[:, -1, : shape[2] // 2, : shape[3] // 2] = 1e-5  # the upper left quarter
    sheet = proof([PERSON], [{"answer": ours}], [{"answer": theirs}], spec(meaning), SQUASH)
    left = 12 + 3 * (TILE + 12)
    tile = np.asarray(sheet.convert("L"), float)[12 : 12 + TILE, left : left + TILE]
    half = TILE // 2
    assert tile[: half - 8, : half - 8].min() > 200
    assert tile[half + 8 :].max() < 50
    assert tile[:, half + 8 :].max() < 50


@pytest.mark.parametrize("meaning", ANSWERS)
def test_an_artifact_that_answers_nan_still_gets_its_picture(meaning: Meaning) -> None:
    answer = drawn(ANSWERS[meaning][0])
    proof([PERSON], [{"answer": answer}], [{"answer": np.full_like(answer, np.nan)}], spec(meaning), SQUASH)


def test_half_precision_answers_and_long_labels_are_drawn() -> None:
    labels = ("a label that is much too long to fit in the width of one tile", "cup")
    answer = {"answer": np.eye(1, 10, dtype=np.float16) * 20}
    proof([PERSON], [answer], [answer], spec("logits", labels), CROP, "a title " * 40)


def test_composite_keeps_the_person_and_blurs_the_background() -> None:
    person = framed(np.zeros((64, 64), np.float32))
    mask = person.repeat(4, 0).repeat(4, 1)
    photo = PERSON[:256, :256]
    made = background_blurred(photo, mask)
    assert made.dtype == np.uint8
    assert np.array_equal(made[mask == 1], photo[mask == 1])

    def roughness(image: np.ndarray) -> float:
        """Mean square of the steps between neighbours, in a corner that is all background."""
        return float(np.square(np.diff(image[:60, :60].astype(float), axis=1)).mean())

    assert roughness(made) < roughness(photo) / 10  # 23 times less was measured; the flag's slow gradient stays


def test_blurred_background_takes_no_colour_from_the_person() -> None:
    photo = np.zeros((128, 128, 3), np.uint8)
    photo[32:96, 32:96] = (255, 0, 0)
    mask = np.zeros((128, 128), np.float32)
    mask[32:96, 32:96] = 1
    assert np.array_equal(background_blurred(photo, mask), photo)


def test_composite_of_a_picture_that_is_all_person_or_all_background() -> None:
    assert np.array_equal(background_blurred(CUP, np.ones(CUP.shape[:2], np.float32)), CUP)
    assert np.std(background_blurred(CUP, np.zeros(CUP.shape[:2], np.float32))) < np.std(CUP)


def test_each_answer_is_drawn_beside_the_photo_it_was_given_to() -> None:
    """On a slow adapter fewer photos are asked than there are, and the noise after them."""
    exam = proving.exam(capture.capture(models.tiny(), "tiny", photos.probes(None)))
    first, _, third, _, noise = exam.cases
    sheet = of_exam(exam, [(case, case.reference) for case in (first, third, noise)])
    images = [probe.image for probe in exam.source.probes]
    references = [first.reference, third.reference]
    expected = proof([images[0], images[2]], references, references, exam.source.outputs, exam.source.preprocessing)
    assert sheet.tobytes() == expected.tobytes()
