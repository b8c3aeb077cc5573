"""Make what the demo page is served with: bundles by ``vitexport``, their list, the runtime they share, a sample photo.

    python web-demo/prepare.py [--model NAME]... [--out web-demo/public]

The page knows no model but those in ``models/models.json``, and of each only what its manifest says.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from PIL import Image

from vitexport import photos, toolchain
from vitexport.contract import Manifest, Need, WebRuntime
from vitexport.errors import ParityFailed
from vitexport.manifest import MANIFEST_NAME, encode, read_bundle
from vitexport_targets.webgpu import ort_web

PUBLIC = Path(__file__).parent / "public"

#: In the order the page offers them; the first is what it opens with. Each with what its export needs beside its name.
MODELS: dict[str, tuple[str, ...]] = {
    "selfie": (),
    "selfie_landscape": (),
    "vit_tiny_seg": ("--weights", "random"),
}

#: Its wheel holds the photo, at a larger size than parity needs.
SKIMAGE = Need("python", "skimage", "Run: pip install scikit-image")

#: Where the shared runtime lies, seen from the list.
RUNTIME = "runtime"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, help="only this one; repeatable (default: all)")
    parser.add_argument("--out", type=Path, default=PUBLIC, help="the page's public folder (default: beside this file)")
    asked = parser.parse_args()
    models = asked.out / "models"
    proven = [name for name in asked.model or MODELS if export(name, models / name)]
    if not proven:
        sys.exit("No model passed its proof: there is nothing that the page could be built with.")
    publish(models, proven)
    write_sample(asked.out / "sample")


def export(name: str, into: Path) -> bool:
    """``into`` becomes the web bundle of ``name``, without a runtime of its own; False where it fails its proof."""
    shutil.rmtree(into, ignore_errors=True)
    with tempfile.TemporaryDirectory() as made:
        command = ["-m", "vitexport", "--model", name, "--target", "webgpu", "--runtime", "none", "--out", f"{made}/it"]
        code = subprocess.run([sys.executable, *command, *MODELS[name]], check=False).returncode
        if code == ParityFailed.exit_code:
            print(f"The page will not offer '{name}': it failed its proof on this machine.", file=sys.stderr)
            return False
        if code != 0:
            sys.exit(code)  # vitexport has said why
        shutil.copytree(Path(made) / "it" / "webgpu", into)
    return True


def publish(models: Path, names: list[str]) -> None:
    """The list of the bundles ``models/<name>``, written beside them, and the runtime that all of them share."""
    shutil.rmtree(models / RUNTIME, ignore_errors=True)
    runtime = ort_web.copy_into(models / RUNTIME, RUNTIME)
    (models / "models.json").write_bytes(listing(models, names, runtime))


def listing(models: Path, names: list[str], runtime: WebRuntime) -> bytes:
    """``models.json``: a :class:`~vitexport.contract.WebRuntime` and, of each bundle, what one chooses it by."""
    entries = [_entry(models / name, f"{name}/") for name in names]
    return encode({"schema_version": 1, "runtime": msgspec.to_builtins(runtime), "models": entries})


def _entry(folder: Path, address: str) -> dict[str, Any]:
    manifest: Manifest = read_bundle(folder).manifest
    size = {file.path: file.bytes for file in manifest.files}
    return {
        "id": manifest.model,
        "bundle": address,
        # The address of a file stays when its content changes: what is kept offline is told apart by this.
        "manifest_sha256": hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest(),
        "licence": manifest.provenance.licence,
        "origin": manifest.provenance.origin,
        "sizes": [msgspec.to_builtins(rung.preprocessing.size) for rung in manifest.rungs],
        "precisions": [
            {"name": variant.precision, "bytes": sum(size[path] for path in variant.files)}
            for variant in manifest.rungs[0].variants
        ],
    }


def write_sample(folder: Path) -> None:
    """NASA's portrait of Eileen Collins, which is in the public domain, as ``photo.webp`` with its credit."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(toolchain.find(SKIMAGE).parent / "data" / photos.BUILT_IN[0]) as portrait:
        portrait.convert("RGB").save(folder / "photo.webp", quality=90, method=6)
    credit = "Eileen Collins, NASA (public domain)"
    (folder / "photo.json").write_text(json.dumps({"credit": credit}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
