"""Families x sizes x targets, each exported and proven there. Slow, so resumable: a finished cell leaves a row of JSON.

A row is kept under ``.cache/matrix/`` by the digest of what shapes the cell: its target, the versions, and the
cell itself. `make test-all` runs what has no row yet, and a changed source line runs all of its target again.

ONNX takes every family whole. A software GPU needs seconds for a run of a ViT, so in the browser the families are cut
to two blocks (two a stage, where there are stages), and one full ViT runs beside them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import vitexport
import web_bundles
from vitexport import capture, models, photos, proof
from vitexport.contract import ExportRequest, Result, Size
from vitexport_targets.webgpu import TARGET as WEBGPU

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

#: Runs in the browser whole.
FULL = "vit_tiny"

#: What neither shapes an artifact nor judges one.
_BESIDE = (
    "anatomy",
    "commands",
    "devices",
    "digits",
    "lint",
    "reports",
    "cli.py",
    "terminal.py",
    "picture.py",
    "preview.py",
    "serving.py",
)


@dataclass(frozen=True)
class Cell:
    """One export of one family, all of whose precisions and providers must pass."""

    model: str
    size: str
    target: str = "onnx"
    precision: str = "fp32"
    blocks: int | None = None
    """Of a stage, at most. None: all."""

    def __str__(self) -> str:
        return f"{self.model}-{self.size}{'' if self.blocks is None else f'-{self.blocks}-blocks'}"


PAIRS = [(model, size) for model, sizes in FAMILIES.items() for size in ("native", *sizes)]
ON_THE_HOST = [Cell(model, size) for model, size in PAIRS]
IN_THE_BROWSER = [
    Cell(FULL, FAMILIES[FULL][-1], "webgpu"),
    *(Cell(model, size, "webgpu", blocks=2) for model, size in PAIRS),
]


@cache
def sources(target: str) -> str:
    """The digest of everything that shapes a target's artifacts or their proof."""
    digest = hashlib.sha256()
    for path in sorted(_sources(target)):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    for package in ("torch", "timm", "transformers", "onnx", "onnxscript", "onnxsim", "onnxruntime", "coremltools"):
        digest.update(f"{package} {version(package)}\n".encode())
    return digest.hexdigest()


def _sources(target: str) -> Iterator[Path]:
    core, targets = ROOT / "exporter" / "vitexport", ROOT / "targets" / "vitexport_targets"
    yield from (p for p in core.rglob("*.py") if p.relative_to(core).parts[0] not in _BESIDE)
    yield from targets.glob("_*.py")
    own = targets / target
    yield from (p for p in own.rglob("*") if p.suffix in (".py", ".js")) if own.is_dir() else [own.with_suffix(".py")]


def row_of(cell: Any) -> Path:
    """``cell`` is a dataclass with a ``target``, whose fields say what is run."""
    key = hashlib.sha256(f"{sources(cell.target)} {json.dumps(asdict(cell), sort_keys=True)}".encode()).hexdigest()
    return ROWS / f"{key[:32]}.json"


def once(cell: Cell, run: Callable[[Cell, Path], tuple[Result, ...]], folder: Path) -> None:
    """Run ``cell`` unless it has a row, hold it to the tolerance, and leave its row."""
    row = row_of(cell)
    if row.is_file():
        pytest.skip(f"done before: drift {json.loads(row.read_text())['drift']:.1e}")
    started = time.monotonic()
    results = run(cell, folder)
    drifts = [result.parity.drift for result in results]
    assert [result.verdict for result in results] == ["passed"] * len(results), [r.parity for r in results]
    assert all(drift is not None and drift <= TOLERANCE for drift in drifts), drifts
    fallback = [name for result in results if result.placement for name in result.placement.fallback]
    assert not fallback
    done = {**asdict(cell), "drift": max(drifts), "seconds": round(time.monotonic() - started, 1)}
    ROWS.mkdir(parents=True, exist_ok=True)
    partial = row.with_suffix(".partial")  # a killed run must not leave half a row
    partial.write_text(json.dumps(done) + "\n")
    partial.replace(row)


def request_of(cell: Cell, folder: Path) -> ExportRequest:
    return ExportRequest(
        model=cell.model,
        targets=(cell.target,),
        sizes=() if cell.size == "native" else (Size.parse(cell.size),),
        precisions=(cell.precision,),
        weights="random",
        out=str(folder / "out"),
    )


def exported(cell: Cell, folder: Path) -> tuple[Result, ...]:
    return vitexport.export(request_of(cell, folder)).results


def exported_cut(cell: Cell, folder: Path) -> tuple[Result, ...]:
    """What an export does, with blocks taken out of the network between its building and its capture."""
    assert cell.blocks is not None
    request = request_of(cell, folder)
    network = models.build(request)
    cut(network.module, cell.blocks)
    source = capture.capture(network, cell.model, photos.probes(None))
    (bundle,) = web_bundles.filled(folder, request, source)
    cases = proof.exam(source).cases
    return tuple(
        proof.prove(WEBGPU, bundle, cell.precision, provider, cases).result for provider in WEBGPU.traits.providers
    )


def cut(module: Any, blocks: int) -> None:
    """Leave at most ``blocks`` of each width in every list of blocks (Hiera's list holds all of its stages)."""
    for part in [part for part in module.modules() if hasattr(part, "blocks")]:
        seen: Counter[int | None] = Counter()
        for name, block in list(part.blocks.named_children()):
            width = getattr(block, "dim_out", None)
            seen[width] += 1
            if seen[width] > blocks:
                delattr(part.blocks, name)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ON_THE_HOST, ids=str)
def test_a_family_is_exact_at_every_kind_of_size(cell: Cell, tmp_path: Path) -> None:
    once(cell, exported, tmp_path)


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("cell", IN_THE_BROWSER, ids=str)
def test_a_family_is_exact_at_every_kind_of_size_in_the_browser(cell: Cell, tmp_path: Path) -> None:
    once(cell, exported if cell.blocks is None else exported_cut, tmp_path)


def test_a_row_belongs_to_its_cell_and_to_these_sources() -> None:
    cells = [*ON_THE_HOST, *IN_THE_BROWSER]
    assert len({row_of(cell) for cell in cells}) == len(cells)
    assert row_of(cells[0]) == row_of(Cell(cells[0].model, cells[0].size))
    assert sources("onnx") != sources("webgpu")
