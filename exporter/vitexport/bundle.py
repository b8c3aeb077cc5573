"""Write folders whole or not at all: build in a sibling, hash, rename. What was there before stays until then."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

from vitexport.contract import (
    INPUT_NAME,
    Artifact,
    Bundle,
    FileEntry,
    GoldenCase,
    Manifest,
    SourceModel,
)
from vitexport.errors import BadRequest, WorldFailed
from vitexport.manifest import MANIFEST_NAME, REPORT_NAME, encode
from vitexport.parity import held_to

if TYPE_CHECKING:
    from vitexport.contract import Probe, Tensor, Tensors

#: Two, because a network that answers the same to every photo passes any exam of one.
GOLDEN_PHOTOS = 2

_UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


# ------------------------------------------------------------------------------------------------ publishing a folder


def claim(out: Path, *, force: bool) -> None:
    """Refuse, before any work, a folder that must not be written. ``force`` replaces only what vitexport wrote."""
    if not out.exists():
        return
    if not out.is_dir():
        raise BadRequest(f"--out '{out}' is a file. Name a folder.")
    held = {p.name for p in out.iterdir()}
    if not held:
        return
    if not force:
        raise BadRequest(f"--out '{out}' is not empty. Add --force to replace it, or name another folder.")
    if REPORT_NAME not in held:
        raise BadRequest(
            f"--out '{out}' was not written by vitexport (it has no {REPORT_NAME}), so --force will not replace it. "
            "Name another folder."
        )


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A fresh empty folder beside ``out``, removed when the block ends unless :func:`publish` has moved it.

    Raises ``BadRequest`` where ``out`` cannot be written, ``WorldFailed`` where the disk is full.
    """
    stage = out.with_name(f".{out.name}.staging-{os.getpid()}")
    new_parents = [p for p in out.parents if not p.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
    except OSError as error:
        if error.errno in _UNWRITABLE:
            raise BadRequest(f"--out '{out}' cannot be written ({error.strerror}). Name another folder.") from error
        raise
    try:
        with full_disk_is_the_world(out):
            yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in new_parents:  # innermost first; those that hold a published folder stay
            with suppress(OSError):
                parent.rmdir()


@contextmanager
def full_disk_is_the_world(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise WorldFailed(
                f"The disk that holds '{out}' is full ({error.strerror}). Nothing was left behind; free some space."
            ) from error
        raise


def publish(stage: Path, out: Path) -> None:
    """Move a finished ``stage`` to ``out``. A signal that arrives in between waits until one of the two is in place."""
    with _signals_wait():
        retired = out.with_name(f".{out.name}.retired-{os.getpid()}")
        if out.exists():
            out.rename(retired)
        try:
            stage.rename(out)
        except OSError:
            if retired.exists():
                retired.rename(out)
            raise
    shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def _signals_wait() -> Iterator[None]:
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -------------------------------------------------------------------------------------------------- filling a bundle


def complete(
    folder: Path,
    target: str,
    source: SourceModel,
    artifact: Artifact,
    batch: int,
    cases: Sequence[tuple[Probe, Tensor, Tensors]],
) -> Bundle:
    """Add the golden cases and the manifest to what a target wrote.

    ``cases``: probe, its input (1, 3, H, W) and PyTorch's outputs. ``batch`` 0 means any.
    """
    (folder / "golden").mkdir()
    golden = tuple(_write_golden(folder, i, *case) for i, case in enumerate(cases[:GOLDEN_PHOTOS]))
    manifest = Manifest(
        schema_version=1,
        target=target,
        model=source.name,
        task=source.task,
        input_name=INPUT_NAME,
        input_shape=(batch, 3, source.size.height, source.size.width),
        preprocessing=source.preprocessing,
        outputs=source.outputs,
        variants=tuple(held_to(variant, source.rounding) for variant in artifact.variants),
        golden=golden,
        provenance=source.provenance,
        toolchain=dict(sorted(artifact.toolchain.items())),
        rounding=source.rounding,
        files=entries(folder),
        runtime=artifact.runtime,
    )
    (folder / MANIFEST_NAME).write_bytes(encode(manifest))
    return Bundle(folder, manifest)


def _write_golden(folder: Path, index: int, probe: Probe, pixel_values: Tensor, reference: Tensors) -> GoldenCase:
    stem = f"golden/{index}"
    PILImage.fromarray(probe.image).save(folder / f"{stem}.png", optimize=True)
    (folder / f"{stem}.input.f32").write_bytes(pixel_values.astype("<f4").tobytes())
    outputs = {name: f"{stem}.{name}.f32" for name in reference}
    for name, path in outputs.items():
        (folder / path).write_bytes(reference[name].astype("<f4").tobytes())
    return GoldenCase(probe.name, photo=f"{stem}.png", input=f"{stem}.input.f32", outputs=outputs)


def read_golden(bundle: Bundle) -> list[tuple[str, Tensor, Tensors]]:
    """Name, input and PyTorch's outputs of every golden case."""
    shapes = {o.name: o.shape for o in bundle.manifest.outputs}
    _, *image_shape = bundle.manifest.input_shape

    def load(path: str, shape: Sequence[int]) -> Tensor:
        return np.frombuffer(bundle.path(path).read_bytes(), "<f4").reshape(shape)

    return [
        (case.name, load(case.input, (1, *image_shape)), {n: load(p, shapes[n]) for n, p in case.outputs.items()})
        for case in bundle.manifest.golden
    ]


# ------------------------------------------------------------------------------------------------------------ hashes


def entry(path: Path, root: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.relative_to(root).as_posix(), path.stat().st_size, digest)


def entries(root: Path) -> tuple[FileEntry, ...]:
    """Every file under ``root`` but the manifest, sorted by path."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p != root / MANIFEST_NAME)
    return tuple(entry(p, root) for p in files)


def damage(bundle: Bundle) -> str:
    """What is wrong with a bundle's files, as a sentence; empty where every byte is as the manifest says."""
    for expected in bundle.manifest.files:
        path = bundle.path(expected.path)
        if not path.is_file():
            return f"'{expected.path}' is missing from '{bundle.directory}'. Export the model again."
        if entry(path, bundle.directory) != expected:
            return f"'{expected.path}' is not the file that was exported (its sha256 differs). Export the model again."
    return ""
