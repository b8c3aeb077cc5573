"""Every family in LiteRT and LiteRT.js at float32. Slow, so resumable as the matrix of sizes is: see test_sizes_matrix.

Of each: drift in four runtimes, how many operations XNNPACK and the WebGPU delegate took.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import vitexport
from families import FAST, SLOW, Family, weights_of
from test_sizes_matrix import ROWS, row_of
from vitexport import ExportRequest
from vitexport.pipeline import binds

pytest.importorskip("litert_torch")

#: Attention of rank 4: nothing of them is left to the CPU.
WHOLE = ("vit_tiny", "vit_small", "deit_tiny", "dinov2_small", "vit_base_patch16_siglip_224")


def _in_tflite(family: Family) -> Family:
    return replace(family, target="tflite", precision="fp32")


CELLS = [
    *(pytest.param(_in_tflite(f), marks=pytest.mark.browser) for f in FAST if f.model == "vit_tiny"),
    *(
        pytest.param(_in_tflite(f), marks=[pytest.mark.slow, pytest.mark.browser])
        for f in [*FAST, *SLOW]
        if f.model != "vit_tiny"
    ),
]


@pytest.mark.parametrize("family", CELLS, ids=str)
def test_a_family_is_exact_in_every_runtime(family: Family, tmp_path: Path) -> None:
    row = row_of(family)
    if row.is_file():
        pytest.skip(f"done before: {json.loads(row.read_text())['drift']}")
    started = time.monotonic()
    report = vitexport.export(
        ExportRequest(
            model=family.model,
            targets=("tflite",),
            precisions=("fp32",),
            weights=weights_of(family, tmp_path),
            out=str(tmp_path / "out"),
        )
    )
    found = {result.provider: result for result in report.results if binds(result)}
    verdicts = {name: (result.verdict, result.parity.reason) for name, result in found.items()}
    assert {verdict for verdict, _ in verdicts.values()} == {"passed"}, verdicts
    taken = {name: result.placement.nodes for name, result in found.items() if result.placement}
    if family.model in WHOLE:
        assert taken["interpreter"].keys() == {"xnnpack"}
        assert taken["webgpu"].keys() == {"webgpu"}
    drift = {name: result.parity.drift for name, result in found.items()}
    seconds = round(time.monotonic() - started, 1)
    done = {**asdict(family), "drift": drift, "nodes": taken, "seconds": seconds}
    ROWS.mkdir(parents=True, exist_ok=True)
    partial = row.with_suffix(".partial")  # a killed run must not leave half a row
    partial.write_text(json.dumps(done) + "\n")
    partial.replace(row)
