"""Families x sizes, each exported to ONNX and proven there. Slow, so resumable: a finished cell leaves a row of JSON.

A row is kept under ``.cache/matrix/`` by the digest of the sources, the versions that shape an artifact, and the cell:
`make test-all` runs what has no row yet, and a changed source line runs all of it again.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest

import vitexport
from vitexport.contract import ExportRequest, Size

ROOT = Path(__file__).parents[1]
ROWS = ROOT / ".cache" / "matrix"

#: Drift at fp32 that the project promises for every family and size. Each target's own tolerance may be tighter.
TOLERANCE = 1e-4

#: Model -> up, down, not square; its own size is the fourth.
FAMILIES = {
    "vit_tiny": ("288", "96", "96x160"),
    "deit_tiny_distilled_patch16_224": ("288", "96", "160x96"),
    "dinov2_small": ("280", "98", "84x140"),
    "vit_small_patch14_reg4_dinov2.lvd142m": ("546", "98", "84x140"),
    "vit_base_patch16_siglip_224": ("256", "96", "96x160"),
    "flexivit_small": ("288", "96", "96x160"),
    "swin_tiny": ("256", "96", "96x160"),
    "swinv2_tiny_window8_256": ("288", "96", "96x160"),
    "eva02_tiny_patch14_224": ("280", "98", "84x140"),
    "vit_small_patch16_dinov3": ("288", "96", "96x160"),
    "beit_base_patch16_224": ("256", "96", "96x160"),
    "hiera_tiny_224": ("256", "96", "96x160"),
    "convnext_atto": ("256", "100", "90x164"),
    "vit_tiny_seg": ("256", "96", "96x160"),
}


@dataclass(frozen=True)
class Cell:
    """One export of one family, all of whose precisions and providers must pass."""

    model: str
    size: str
    target: str = "onnx"
    precision: str = "fp32"

    def __str__(self) -> str:
        return f"{self.model}-{self.size}"


CELLS = [Cell(model, size) for model, sizes in FAMILIES.items() for size in ("native", *sizes)]


@cache
def sources() -> str:
    """The digest of everything that shapes an artifact or its proof."""
    digest = hashlib.sha256()
    for folder in ("exporter", "targets"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    for package in ("torch", "timm", "transformers", "onnx", "onnxscript", "onnxsim", "onnxruntime"):
        digest.update(f"{package} {version(package)}\n".encode())
    return digest.hexdigest()


def row_of(cell: Cell) -> Path:
    key = hashlib.sha256(f"{sources()} {json.dumps(asdict(cell), sort_keys=True)}".encode()).hexdigest()
    return ROWS / f"{key[:32]}.json"


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_family_is_exact_at_every_kind_of_size(cell: Cell, tmp_path: Path) -> None:
    row = row_of(cell)
    if row.is_file():
        pytest.skip(f"done before: drift {json.loads(row.read_text())['drift']:.1e}")
    started = time.monotonic()
    report = vitexport.export(
        ExportRequest(
            model=cell.model,
            targets=(cell.target,),
            sizes=() if cell.size == "native" else (Size.parse(cell.size),),
            precisions=(cell.precision,),
            weights="random",
            out=str(tmp_path / "out"),
        )
    )
    drifts = [result.parity.drift for result in report.results]
    assert report.verdict == "passed", [result.parity for result in report.results]
    assert all(drift is not None and drift <= TOLERANCE for drift in drifts), drifts
    done = {**asdict(cell), "drift": max(drifts), "seconds": round(time.monotonic() - started, 1)}
    ROWS.mkdir(parents=True, exist_ok=True)
    partial = row.with_suffix(".partial")  # a killed run must not leave half a row
    partial.write_text(json.dumps(done) + "\n")
    partial.replace(row)


def test_a_row_belongs_to_its_cell_and_to_these_sources() -> None:
    assert len({row_of(cell) for cell in CELLS}) == len(CELLS)
    assert row_of(CELLS[0]) == row_of(Cell(CELLS[0].model, CELLS[0].size))
