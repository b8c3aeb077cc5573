"""Web bundles of the tiny networks, for the tests that drive a browser."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import models
import unproven
from vitexport import capture, photos, proof
from vitexport import models as presets
from vitexport.contract import Bundle, ExportRequest, FileEntry, SourceModel
from vitexport.manifest import MANIFEST_NAME, encode, read_bundle

if TYPE_CHECKING:
    from playwright.sync_api import Page


@cache
def whole(network: str, precisions: tuple[str, ...] = ("fp32", "fp16"), **options: object) -> Bundle:
    """The bundle of a factory in ``models.py``, as ``vitexport`` writes it. Shared: copy it before changing it."""
    folder = Path(mkdtemp(prefix="vitexport-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    request = ExportRequest(model=network, precisions=precisions, **options)  # type: ignore[arg-type]
    source = capture.capture(getattr(models, network)(), network, photos.probes(None))
    return filled(folder, request, source)[0]


@cache
def preset(model: str, precisions: tuple[str, ...] = ("fp32",)) -> Bundle:
    """The bundle of a preset with its own weights. Shared: copy it before changing it."""
    folder = Path(mkdtemp(prefix="vitexport-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    request = ExportRequest(model=model, precisions=precisions)
    return filled(folder, request, capture.capture(presets.build(request), model, photos.probes(None)))[0]


def filled(folder: Path, request: ExportRequest, *sources: SourceModel) -> tuple[Bundle, ...]:
    """``folder`` as a web bundle of ``sources``, one size each; not proven, which a software adapter is slow at."""
    exams = [proof.exam(source) for source in sources]
    return unproven.written(folder, replace(request, targets=("webgpu",)), exams)


def changed(bundle: Bundle, into: Path, change: Callable[[Path], None], *, rehash: bool = False) -> Bundle:
    """A copy (the runtime's 58 MB by reference) after ``change``; ``rehash`` makes the manifest vouch for it."""
    folder = into / "bundle"
    shutil.copytree(bundle.directory, folder, ignore=shutil.ignore_patterns("runtime"))
    if (bundle.directory / "runtime").is_dir():
        os.symlink(bundle.directory / "runtime", folder / "runtime")
    change(folder)
    if rehash:
        entries = tuple(_entry(folder, known.path) for known in bundle.manifest.files)
        (folder / MANIFEST_NAME).write_bytes(encode(replace(bundle.manifest, files=entries)))
    return read_bundle(folder)


def flip_a_bit(path: str, at: int) -> Callable[[Path], None]:
    def flip(folder: Path) -> None:
        content = bytearray((folder / path).read_bytes())
        content[at] ^= 0x40
        (folder / path).write_bytes(content)

    return flip


def with_attention(folder: Path) -> None:
    """Replace the fp32 model by one with an opset-23 ``Attention`` between two operators that WebGPU has."""
    weight = numpy_helper.from_array(np.full((3, 3, 8, 8), 0.1, np.float32), "weight")
    shape = numpy_helper.from_array(np.array([1, 1, 16, 3]), "shape")
    nodes = [
        helper.make_node("Conv", ["pixel_values", "weight"], ["patches"], name="conv", strides=[8, 8]),
        helper.make_node("Reshape", ["patches", "shape"], ["tokens"], name="reshape"),
        helper.make_node("Attention", ["tokens"] * 3, ["attended"], name="planted"),
        helper.make_node("Relu", ["attended"], ["logits"], name="relu"),
    ]
    x = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, 32, 32])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, 16, 3])
    graph = helper.make_graph(nodes, "planted", [x], [y], [weight, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    onnx.save(model, folder / "model_fp32.onnx")


def verdict(page: Page, url: str) -> tuple[str, str]:
    """What the bundle's page says once its self-check is over: ``data-verdict`` and the sentence below it."""
    page.goto(url)
    page.locator("body:not([data-verdict=pending])").wait_for(timeout=240_000)
    return page.locator("body").get_attribute("data-verdict") or "", page.locator("#verdict-reason").inner_text()


def _entry(folder: Path, path: str) -> FileEntry:
    content = (folder / path).read_bytes()
    return FileEntry(path, len(content), hashlib.sha256(content).hexdigest())
