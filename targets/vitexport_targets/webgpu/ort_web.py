"""onnxruntime-web's files: which builds there are, and how they travel in a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

from vitexport import toolchain
from vitexport.contract import Need, RuntimeBuild, WebRuntime

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
NEED = Need("npm", f"{PACKAGE}@{VERSION}", f"Run: npm install {PACKAGE}@{VERSION}")

#: Static hosts cap a file at 25 MiB (Cloudflare Pages and Workers); the asyncify build is 25.5.
LARGEST_PART = 24 * 2**20

#: By what the browser must have. ``bundle`` means that the WebAssembly's own JavaScript is inside the module.
_DIST = {
    "jspi": RuntimeBuild("ort.jspi.bundle.min.mjs", ("ort-wasm-simd-threaded.jspi.wasm",)),
    "asyncify": RuntimeBuild("ort.webgpu.bundle.min.mjs", ("ort-wasm-simd-threaded.asyncify.wasm",)),
    "wasm": RuntimeBuild("ort.wasm.bundle.min.mjs", ("ort-wasm-simd-threaded.wasm",)),
}


def dist() -> Path:
    """The installed package's ``dist``. Raises ``MissingToolchain`` unless it is the version this is proven with."""
    return toolchain.find(NEED) / "dist"


def as_installed() -> WebRuntime:
    """Builds with paths relative to :func:`dist`."""
    return WebRuntime(PACKAGE, VERSION, dict(_DIST))


def left_to_the_page() -> WebRuntime:
    """What the manifest of a ``--runtime none`` bundle says: which version it is proven with, and no files."""
    return WebRuntime(PACKAGE, VERSION, {})


def copy_into(folder: Path, prefix: str) -> WebRuntime:
    """Copy all builds into ``folder`` (which is ``prefix`` in the bundle), each file at most ``LARGEST_PART`` bytes."""
    source = dist()
    folder.mkdir()
    builds = {}
    for name, build in _DIST.items():
        shutil.copyfile(source / build.module, folder / build.module)
        parts = [part for wasm in build.wasm for part in _copy_parts(source / wasm, folder)]
        builds[name] = RuntimeBuild(f"{prefix}/{build.module}", tuple(f"{prefix}/{part}" for part in parts))
    return WebRuntime(PACKAGE, VERSION, builds)


def _copy_parts(source: Path, folder: Path) -> list[str]:
    """Names of the copies, in order: the file itself where it is small enough."""
    if source.stat().st_size <= LARGEST_PART:
        shutil.copyfile(source, folder / source.name)
        return [source.name]
    names: list[str] = []
    with source.open("rb") as whole:
        while part := whole.read(LARGEST_PART):
            names.append(f"{source.name}.part{len(names)}")
            (folder / names[-1]).write_bytes(part)
    return names
