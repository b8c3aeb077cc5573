"""ONNX bundles of the tiny networks, for the tests that need a bundle and no browser."""

from __future__ import annotations

from pathlib import Path

import models
from vitexport import bundle as bundles
from vitexport import capture, photos, proof
from vitexport.contract import Bundle, ExportRequest
from vitexport_targets.onnx import TARGET


def filled(folder: Path, network: str, precisions: tuple[str, ...] = ("fp32",)) -> Bundle:
    """``folder`` as the bundle of a factory in ``models.py``."""
    folder.mkdir(parents=True)
    request = ExportRequest(model=network, precisions=precisions)
    source = capture.capture(getattr(models, network)(), network, photos.probes(None))
    return bundles.complete(folder, "onnx", [proof.exam(source)], TARGET.lower((source,), request, folder))[0]
