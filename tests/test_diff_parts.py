"""How a block's value is recognised by its numbers, and when a fall of SNR is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from vitexport.contract import Size, Value
from vitexport.diff.finding import find
from vitexport.diff.match import match
from vitexport.diff.plot import plot
from vitexport.diff.table import render
from vitexport.diff.trace import Row, Trace

RANDOM = np.random.default_rng(0)


def values(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: RANDOM.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def matched(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> dict[str, tuple[str, bool]]:
    known = {name: Value(name, value.shape) for name, value in theirs.items()}
    found = match(ours, known, lambda taps: {name: theirs[name] for name in taps})
    for place, each in found.items():
        assert each.order.apply(theirs[each.key]).shape == ours[place].shape
    return {place: (each.key, each.same) for place, each in found.items()}


# ------------------------------------------------------------------------------------------------------------- match


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda x: x,
        lambda x: x.transpose(0, 2, 3, 1),
        lambda x: x.transpose(0, 2, 3, 1).reshape(-1, 6),
        lambda x: x.reshape(1, 6, 1, 20),
        lambda x: x.transpose(2, 3, 0, 1).reshape(1, 20, 6),
    ],
)
def test_a_value_is_recognised_in_any_order_of_its_axes(laid_out):
    ours = values(block=(1, 6, 4, 5))
    theirs = {**values(other=(1, 6, 4, 5)), "value": laid_out(ours["block"])}
    assert matched(ours, theirs) == {"block": ("value", True)}


def test_merged_axes_are_recognised_from_either_side():
    ours = values(block=(1, 20, 6))
    theirs = {"value": ours["block"].reshape(1, 4, 5, 6).transpose(0, 3, 1, 2)}
    assert matched(ours, theirs) == {"block": ("value", True)}


def test_of_two_that_are_alike_the_nearer_is_taken_and_of_equal_ones_the_first():
    ours = values(block=(8, 8))
    theirs = {"before": ours["block"] * np.float32(1 + 1e-5), "itself": ours["block"], "copy": ours["block"].copy()}
    assert matched(ours, theirs) == {"block": ("itself", True)}


def noisy(value: np.ndarray) -> np.ndarray:
    return value + 0.3 * RANDOM.standard_normal(value.shape).astype(np.float32)


def test_a_value_that_a_converter_merged_with_the_next_has_no_like():
    ours = values(one=(8, 8), two=(8, 8), three=(8, 8))
    theirs = {"a": ours["one"], "b": noisy(ours["two"]), "c": ours["three"]}
    assert matched(ours, theirs) == {"one": ("a", True), "three": ("c", True)}


def test_from_where_a_file_is_wrong_the_nearest_is_taken_and_what_has_nothing_in_common_is_not():
    ours = values(one=(8, 8), two=(8, 8), three=(8, 8), four=(3, 3))
    theirs = {"early": noisy(ours["two"]), "a": ours["one"], "b": noisy(ours["two"]), "c": noisy(ours["three"])}
    assert matched(ours, theirs) == {"one": ("a", True), "two": ("b", False), "three": ("c", False)}


# ----------------------------------------------------------------------------------------------------------- finding


def rows(*snr: float | None, own: tuple[float, ...], branch: tuple[float, ...] = ()) -> list[Row]:
    figures = zip(snr, own, branch or own, strict=True)
    blocks = [
        Row(f"blocks.{i}", True, "same", "v", db, o, b, 0.0, 1.0) if db else Row(f"blocks.{i}", True)
        for i, (db, o, b) in enumerate(figures)
    ]
    return [*blocks, Row("logits", False, "same", "logits", blocks[-1].snr_db, 60.0, 60.0, 0.0, 1.0)]


def test_noise_that_adds_up_is_named_nowhere():
    assert find(rows(38.0, 35.0, 33.2, 32.0, own=(38.0, 38.0, 37.9, 38.1))).first == ""


def test_the_fall_is_told_in_one_sentence_with_what_is_usual():
    found = find(rows(41.0, 38.0, 12.7, 12.7, 12.6, own=(41.0, 40.0, 12.8, 40.5, 39.0)))
    assert found.first == "blocks.2"
    assert found.sentence == (
        "SNR falls from 38.0 dB after blocks.1 to 12.7 dB after blocks.2. With what it was given, blocks.2 itself "
        "is right to 12.8 dB; the other blocks are to 40.2 dB (median)."
    )


def test_blocks_that_add_little_to_their_residual_are_judged_by_what_they_add():
    """By what leaves them the first two lose 40 dB more than the others, by what they add as much as those."""
    assert (
        find(rows(50.0, 47.0, 47.0, 47.0, 47.0, own=(50.0, 50, 92, 92, 92), branch=(45.0, 46, 50, 49, 50))).first == ""
    )


def test_blocks_whose_values_are_rounded_are_judged_by_the_values():
    found = find(rows(70.0, 67.0, 66.0, 65.0, 64.0, own=(70.0, 70, 70, 70, 70), branch=(65.0, 64, 28, 28, 65)))
    assert found.first == ""


def test_without_blocks_a_layer_is_judged_by_those_that_are_rounded_as_well():
    layers = [replace(row, repeated=False) for row in rows(36.0, 36.0, 31.0, own=(36.0, 140.0, 32.0))][:3]
    assert find(layers).first == ""
    untouched = [replace(row, own_snr_db=140.0, branch_snr_db=140.0) for row in layers[:2]]
    assert find([*untouched, layers[2]]).first == "blocks.2"


def test_float32s_rounding_is_named_nowhere():
    assert find(rows(150.0, 110.0, 109.0, 108.0, own=(150.0, 110.0, 145.0, 150.0))).first == ""


def test_what_is_not_finite_is_named_and_what_could_not_be_compared_is_said():
    found = find(rows(60.0, None, float("nan"), own=(60.0, 60.0, float("nan"))))
    assert found.first == "blocks.2"
    assert found.sentence.startswith("The artifact's values are not finite after blocks.2; after blocks.0")
    assert "(blocks.1 not matched)" in find(rows(60.0, None, 12.0, own=(60.0, 60.0, 12.0))).sentence


def test_the_table_has_a_row_for_each_place_and_the_sentence_below_it():
    found = rows(38.0, None, 12.7, own=(38.0, 40.0, 12.8))
    trace = Trace(
        "vit", "onnx", "w8", "cpu", Size(8, 8), "ONNX Runtime", "blocks.2", "SNR falls.", tuple(found), ("Oh.",)
    )
    said = StringIO()
    render([trace, replace(trace, rows=(), finding="", notes=(), reason="no adapter")], said)
    lines = [" ".join(line.split()) for line in said.getvalue().splitlines()]
    assert lines[0] == "vit: onnx w8 on cpu, 8x8 ONNX Runtime"
    assert lines[2:6] == [
        "blocks.0 38.0 38.0 38.0 0.0e+00 1.000000 v",
        "blocks.1 - - - - - not matched",
        "blocks.2 12.7 12.8 12.8 0.0e+00 1.000000 v",
        "logits 12.7 60.0 60.0 0.0e+00 1.000000 logits",
    ]
    assert lines[6:8] == ["SNR falls.", "Note: Oh."]
    assert lines[-2] == "not run: no adapter"


def test_anything_can_be_drawn():
    odd = rows(200.0, None, float("nan"), float("-inf"), own=(200.0, 1.0, float("nan"), -5.0))
    many = [Row(f"stages.{i}.a_module_of_a_very_long_name", True, "same", "v", 30.0, 30.0, 30.0) for i in range(120)]
    blank = Trace("model", "target", "fp32", "cpu", Size(8, 8))
    for traces in ((), (blank,), tuple(Trace(**{**vars(blank), "rows": tuple(each)}) for each in (odd, many))):
        assert plot(traces).width >= 640
