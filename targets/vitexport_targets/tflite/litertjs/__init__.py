"""LiteRT.js: a ``.tflite`` file run in headless Chromium, on WebAssembly and on WebGPU, as a web page runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitexport import toolchain
from vitexport.contract import Need, Session
from vitexport.errors import MissingToolchain

if TYPE_CHECKING:
    from vitexport.contract import Tensor

PACKAGE = "@litertjs/core"
VERSION = "2.5.3"
NEED = Need("npm", f"{PACKAGE}@{VERSION}", f"Run: npm install {PACKAGE}@{VERSION}")

Accelerator = Literal["wasm", "webgpu"]


def packages() -> tuple[Path, Path]:
    """Folders of the installed package and of ``@litertjs/wasm-utils``, which npm puts beside it.

    Raises ``MissingToolchain`` unless it is the version this is proven with.
    """
    core = toolchain.find(NEED).resolve()
    utils = core.parent / "wasm-utils"
    if not utils.is_dir():
        raise MissingToolchain(f"'@litertjs/wasm-utils' is not installed beside {PACKAGE}. {NEED.install}")
    return core, utils


def open_in_litertjs(
    path: Path,
    signature: str,
    accelerator: Accelerator,
    feed: Callable[[Tensor], dict[str, Tensor]],
    collect: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> Session:
    """Load the ``.tflite`` file at ``path`` in Chromium and wait until ``signature`` can run.

    ``feed`` makes the file's inputs by name (float32, int32 or uint8, in the file's own layouts) of a float32 NCHW
    batch; ``collect`` makes the manifest's outputs of the file's, by name.

    Raises ``RuntimeUnavailable`` (no adapter, Chromium crashed), ``MissingToolchain`` (no Chromium, no LiteRT.js or
    another version of it), ``LoweringFailed`` (LiteRT.js refuses the file).
    """
    from vitexport_targets.tflite.litertjs.session import open_session

    return open_session(path, signature, accelerator, feed, collect)
