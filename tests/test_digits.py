"""The pictures that the project's own network is trained and examined on."""

from __future__ import annotations

import numpy as np
import pytest

from vitexport.digits import pictures


def test_the_exam_is_the_same_for_the_same_seed_and_another_for_another():
    images, labels = pictures.held_out(40, seed=3)
    assert images.shape == (40, 96, 96, 3)
    assert images.dtype == np.uint8
    assert (labels == np.arange(40) % 10).all()
    assert (images == pictures.held_out(40, seed=3)[0]).all()
    assert (images != pictures.held_out(40, seed=4)[0]).any()
    assert (images == pictures.held_out(50, seed=3)[0][:40]).all(), "a longer exam begins as a shorter one"


def test_the_exam_needs_no_scikit_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    assert len(pictures.held_out(10)[0]) == 10


def test_no_held_out_original_is_trained_on():
    pytest.importorskip("sklearn")
    from vitexport.digits.train import SEED

    originals, labels, sheet = pictures.split(SEED)
    shipped = np.asarray(pictures.Image.open(pictures.HELD_OUT))
    assert (sheet == shipped).all(), "held_out.png holds what the training left out"
    held_out = sheet.reshape(10, 8, pictures.PER_DIGIT, 8).swapaxes(1, 2).reshape(-1, 64)
    assert len(held_out) == 360
    assert len(originals) == len(labels) == 1797 - 360
    assert not {row.tobytes() for row in held_out} & {row.tobytes() for row in originals.reshape(-1, 64)}


def test_a_drawn_digit_is_its_original_without_variety():
    still = pictures.Variety(shift=0, rotation_deg=0, scale=(1, 1), stretch=1, contrast=(1, 1), noise=0)
    original = np.zeros((8, 8), np.uint8)
    original[2:6, 3:5] = 240
    drawn = pictures.draw(original, still, np.random.default_rng(0))[:, :, 0]
    assert drawn[48, 48] >= 240
    cells = drawn.reshape(12, 8, 12, 8).mean((1, 3)) > 120  # a margin of two cells on every side
    assert (cells == np.pad(original > 0, 2)).all()
