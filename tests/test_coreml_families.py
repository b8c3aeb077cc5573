"""Every family through Core ML, gates A to C. Slow, so resumable as the matrix of sizes is: see test_sizes_matrix.

Random weights have three sources here. ``random`` is the product's own, which enlivens every layer: for transformers,
whose branches are small, float16 stays within 45 dB; deep convolutional networks become chaotic under it (an
EfficientFormerV2 keeps 72 dB in *float32*), as no trained network is. Those take timm's initialisation, ``calibrated``
with BatchNorm statistics of the photos, or ``initial``, as it is.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

import vitexport
from test_sizes_matrix import ROWS, row_of
from vitexport import ExportRequest
from vitexport.contract import Result

#: Below it a channel is dead on these five pictures, and its BatchNorm would magnify rounding ten times.
LEAST_VARIANCE = 0.01


@dataclass(frozen=True)
class Family:
    """One export, whose gates must all hold."""

    model: str
    weights: str = "random"
    target: str = "coreml"
    precision: str = "fp16"

    def __str__(self) -> str:
        return self.model


FAST = [Family("vit_tiny"), Family("convnext_atto"), Family("selfie", "pretrained")]
SLOW = [
    Family("vit_small"),
    Family("deit_tiny"),
    Family("dinov2_small"),
    Family("vit_small_patch16_dinov3"),
    Family("swin_tiny"),
    Family("swinv2_tiny_window8_256"),
    Family("hiera_tiny_224"),
    Family("eva02_tiny_patch14_224"),
    Family("vit_base_patch16_siglip_224"),
    Family("vit_tiny_seg"),
    Family("efficientformer_l1", "calibrated"),
    Family("efficientformerv2_s0", "calibrated"),
    Family("fastvit_t8", "calibrated"),
    Family("mobilevit_xs", "calibrated"),
    Family("mobilenetv4_conv_small", "initial"),
    Family("efficientvit_b0", "calibrated"),
    Family("repvit_m0_9", "calibrated"),
    Family("tiny_vit_5m_224", "calibrated"),
]
CELLS = [*FAST, *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW)]


@pytest.mark.parametrize("family", CELLS, ids=str)
def test_a_family_passes_every_gate(family: Family, tmp_path: Path) -> None:
    row = row_of(family)
    if row.is_file():
        pytest.skip(f"done before: {json.loads(row.read_text())['gates']}")
    started = time.monotonic()
    weights = family.weights
    if weights in ("calibrated", "initial"):
        weights = str(_initialised(family, tmp_path / "weights.safetensors"))
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
    assert gates["A"].bound >= 110.0
    assert gates["B"].bound >= 110.0
    assert gates["C"].bound >= 45.0
    assert (result.device_verdict, result.latency.verdict) == ("not run", "not run")


def _initialised(family: Family, path: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    from vitexport.models.timm_weights import import_timm

    torch.manual_seed(0)
    module = import_timm().create_model(family.model, pretrained=False).eval()
    if family.weights == "calibrated":
        _calibrate(module)
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


def _calibrate(module) -> None:
    """BatchNorm's statistics as they are on the photos that parity is judged on."""
    import numpy as np
    import torch

    from vitexport import Preprocessing, Size, photos
    from vitexport.preprocess import preprocess

    how = Preprocessing(Size(*module.pretrained_cfg["input_size"][1:]), (0.5,) * 3, (0.5,) * 3)
    batch = torch.from_numpy(np.concatenate([preprocess(probe.image, how) for probe in photos.probes(None)]))
    norms = [part for part in module.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # the mean over all batches, of which there is one
            norm.reset_running_stats()
            norm.train()
        module(batch)
        for norm in norms:
            norm.eval()
            norm.running_var.clamp_(min=LEAST_VARIANCE)
