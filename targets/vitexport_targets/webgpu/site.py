"""The sites that a bundle is proven on, here and on a device: the bundle as any server would serve it, and a page."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from vitexport.contract import Bundle, FileEntry, Manifest, Site
from vitexport.manifest import MANIFEST_NAME, encode
from vitexport_targets.webgpu import ort_web

#: No bundle has a folder of this name; it is never written to one either.
HARNESS = "_vitexport/"
_RUNTIME = "_onnxruntime-web/"


def harness_site(bundle: Bundle, precision: str, taps: tuple[str, ...]) -> Site:
    """``taps``: intermediate values that the served model returns beside its outputs; the bundle stays as it is."""
    mounts = {f"/{HARNESS}": Path(__file__).parent / "harness"}
    if not _carries_runtime(bundle):
        mounts[f"/{_RUNTIME}"] = ort_web.dist()
    return Site(bundle.directory, mounts, _tapped(bundle, precision, taps) if taps else {})


def device_site(bundle: Bundle, sustained_s: float | None) -> Site:
    """The page that a device opens, and the bundle in a folder of it. All addresses are relative."""
    mounts = {"/bundle/": bundle.directory}
    options: dict[str, Any] = {} if sustained_s is None else {"sustainedS": sustained_s}
    if not _carries_runtime(bundle):
        mounts[f"/{_RUNTIME}"] = ort_web.dist()
        options |= {"runtime": ort_web.as_installed(), "runtimeBase": f"./{_RUNTIME}"}
    here = Path(__file__).parent
    look = (here / "page" / "look.css").read_bytes()
    return Site(here / "device", mounts, {"/options.json": encode(options), "/look.css": look})


def runtime_options(bundle: Bundle) -> dict[str, Any]:
    """The loader's options where the bundle leaves the runtime to the page: the npm package, as a bundler takes it."""
    if _carries_runtime(bundle):
        return {}
    return {"runtime": msgspec.to_builtins(ort_web.as_installed()), "runtimeBase": f"/{_RUNTIME}"}


def _carries_runtime(bundle: Bundle) -> bool:
    return bundle.manifest.runtime is not None and bool(bundle.manifest.runtime.builds)


def _tapped(bundle: Bundle, precision: str, taps: tuple[str, ...]) -> dict[str, bytes]:
    """A copy of the model with more outputs and all weights inside, and a manifest that vouches for it."""
    from vitexport_targets._onnx_graph import with_taps

    variant = bundle.variant(precision)
    path = variant.files[0]
    model = with_taps(bundle.path(path), taps).SerializeToString()
    entry = FileEntry(path, len(model), hashlib.sha256(model).hexdigest())
    manifest: Manifest = replace(
        bundle.manifest,
        rungs=(replace(bundle.rung, variants=(replace(variant, files=(path,)),)),),
        files=tuple(entry if known.path == path else known for known in bundle.manifest.files),
    )
    return {f"/{path}": model, f"/{MANIFEST_NAME}": encode(manifest)}
