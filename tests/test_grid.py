"""What each precision must be worth, on networks whose answers mean something. Slow; rows are kept: tests/grid.py."""

from __future__ import annotations

import pytest

import grid
from grid import Cell

pytestmark = [pytest.mark.slow, pytest.mark.browser]

CELLS = list(grid.cells())

#: Points of top-1 that may be lost on the exam.
POINTS = {"fp32": 0.0, "fp16": 0.0, "w8": 0.3, "w8-dyn": 0.3, "w8a8": 0.3, "w8a16": 0.3, "w4": 1.0, "w4-fp16": 1.0}

#: IoU with the float network's masks, of all composites together.
IOU = {"fp32": 0.99, "fp16": 0.99, "w8": 0.95, "w8a8": 0.95, "w8a16": 0.99}

#: Forms that a network of convolutions does not have.
REFUSED = {
    ("onnx", "w8-dyn"),
    ("onnx", "w4"),
    ("webgpu", "w8-dyn"),
    ("webgpu", "w4"),
    ("webgpu", "w4-fp16"),
    ("tflite", "w4"),
}

MEGABYTES = {"vit_tiny": 4.0, "vit_small": 13.5}


def of(model: str, precisions: object) -> list[Cell]:
    return [cell for cell in CELLS if cell.model == model and cell.precision in precisions]  # type: ignore[operator]


def measured(cell: Cell) -> grid.Row:
    """Skips what Chromium's software adapter lacks: tests/test_half_webgpu.py runs float16 on one that has it."""
    row = grid.row(cell)
    if row.refused.startswith("not run: ") and row.refused.endswith("adapter has no shader-f16"):
        pytest.skip(row.refused)
    assert not row.refused
    return row


def name(cell: Cell) -> str:
    return f"{cell.target} {cell.precision} on {cell.provider}"


@pytest.mark.parametrize("cell", of("digits_vit_tiny", POINTS), ids=name)
def test_a_trained_vit_reads_as_well_in_fewer_bits(cell: Cell) -> None:
    row = measured(cell)
    assert row.top1 is not None
    assert row.float_top1 is not None
    allowed = max(POINTS[cell.precision] / 100, 1 / row.images if row.images < 2000 else 0)  # a sample's least step
    assert row.top1 >= row.float_top1 - allowed - 1e-9
    if cell.precision == "fp16":
        assert row.sure == 1.0, "where PyTorch sees the two best classes more than 0.05 apart"


@pytest.mark.parametrize("cell", of("selfie", IOU), ids=name)
def test_a_mask_is_the_same_person_in_fewer_bits(cell: Cell) -> None:
    row = measured(cell)
    assert row.iou is not None
    assert row.iou >= IOU[cell.precision]


@pytest.mark.parametrize(
    "cell",
    [cell for cell in of("selfie", ("w8-dyn", "w4", "w4-fp16")) if (cell.target, cell.precision) in REFUSED],
    ids=name,
)
def test_what_convolutions_have_no_form_of_is_refused(cell: Cell) -> None:
    assert "refused" in grid.row(cell).refused


@pytest.mark.parametrize("cell", [*of("vit_tiny", ("w4",)), *of("vit_small", ("w4",))], ids=str)
def test_four_bits_are_as_small_as_they_can_be(cell: Cell) -> None:
    assert grid.row(cell).total_bytes <= MEGABYTES[cell.model] * 1e6


@pytest.mark.parametrize("cell", of("vit_small", ("w8",)), ids=name)
def test_eight_bits_are_a_quarter_of_float32(cell: Cell) -> None:
    whole = grid.row(Cell(cell.model, cell.target, "fp32", cell.provider))
    assert grid.row(cell).total_bytes <= 0.265 * whole.total_bytes
