"""Every family through Core ML, gates A to C. Slow, so resumable as the matrix of sizes is: see test_sizes_matrix."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest

import vitexport
from families import FAST, SLOW, Family, weights_of
from test_sizes_matrix import ROWS, row_of
from vitexport import ExportRequest
from vitexport.contract import Result

CELLS = [*FAST, *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW)]


@pytest.mark.parametrize("family", CELLS, ids=str)
def test_a_family_passes_every_gate(family: Family, tmp_path: Path) -> None:
    row = row_of(family)
    if row.is_file():
        pytest.skip(f"done before: {json.loads(row.read_text())['gates']}")
    started = time.monotonic()
    weights = weights_of(family, tmp_path)
    report = vitexport.export(
        ExportRequest(model=family.model, targets=("coreml",), weights=weights, out=str(tmp_path / "out"))
    )
    (result,) = report.results
    assert result.verdict == "passed", result.parity
    _check_gates(family, result)
    gates = {gate.name: gate.value for gate in result.parity.gates}
    done = {**asdict(family), "gates": gates, "seconds": round(time.monotonic() - started, 1)}
    ROWS.mkdir(parents=True, exist_ok=True)
    partial = row.with_suffix(".partial")  # a killed run must not leave half a row
    partial.write_text(json.dumps(done) + "\n")
    partial.replace(row)


def _check_gates(family: Family, result: Result) -> None:
    gates = {gate.name: gate for gate in result.parity.gates}
    assert set(gates) >= {"A", "B", "C", "range", "types"}
    assert all(gate.verdict == "passed" for gate in gates.values()), gates
    assert gates["B"].bound >= 110.0
    # None of these needs what PyTorch's own rounding would excuse.
    assert gates["A"].value >= 110.0
    assert gates["C"].value >= 45.0
    assert (result.device_verdict, result.latency.verdict) == ("not run", "not run")
