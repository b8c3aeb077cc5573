"""``vitexport preview``: a bundle's page is served until somebody has seen enough."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from vitexport.contract import (
    FileEntry,
    GoldenCase,
    Manifest,
    OutputSpec,
    Preprocessing,
    Provenance,
    Rung,
    Size,
    Variant,
)
from vitexport.manifest import encode


def test_preview_of_a_folder_without_a_bundle_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vitexport", "preview", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "holds no bundle" in done.stderr


def test_preview_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>")
    manifest = Manifest(
        schema_version=1,
        target="webgpu",
        model="m",
        task="classify",
        input_name="pixel_values",
        rungs=(
            Rung(
                (1, 3, 2, 2),
                Preprocessing(Size(2, 2)),
                (OutputSpec("logits", "logits", (1, 2)),),
                (Variant("fp32", ("m.onnx",), 1e-4),),
                (GoldenCase("g", "0.png", "0.f32", {"logits": "1.f32"}),),
                0.0,
            ),
        ),
        provenance=Provenance("here", "MIT", "0"),
        toolchain={},
        files=tuple(
            FileEntry(path, size, "0") for path, size in {"m.onnx": 9, "0.png": 9, "0.f32": 48, "1.f32": 8}.items()
        ),
    )
    (tmp_path / "manifest.json").write_bytes(encode(manifest))
    process = subprocess.Popen(
        [sys.executable, "-m", "vitexport", "preview", str(tmp_path), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    url = said.partition(" at ")[2].partition(" ")[0]
    with urlopen(url, timeout=10) as page:
        assert page.read() == b"<!doctype html>"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
