"""Write folders and files whole or not at all: build in a sibling, hash, rename. What was there stays until then."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

from vitexport import host, rounding
from vitexport.contract import (
    Artifact,
    Bundle,
    CalibrationSet,
    Case,
    Exam,
    FileEntry,
    GoldenCase,
    Manifest,
    Result,
    Rung,
    Size,
    Traits,
    Variant,
)
from vitexport.errors import BadRequest, Interrupted, ParityFailed, WorldFailed
from vitexport.manifest import MANIFEST_NAME, REPORT_NAME, SCHEMA_VERSION, encode, find_bundles
from vitexport.parity import contrast, held_to
from vitexport.quantize import FIXES_RANGES, QUANTISES_ACTIVATIONS, calibration, observers

if TYPE_CHECKING:
    from vitexport.contract import SourceModel, Tensor

#: Two, because a network that answers the same to every photo passes any exam of one.
GOLDEN_PHOTOS = 2

_UNWRITABLE = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT),
        *(errno.ENAMETOOLONG, errno.ELOOP),
    }
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

#: What Finder and Explorer leave in a folder that somebody looked into: it is empty all the same.
_LEFT_BY_LOOKING = frozenset({".DS_Store", "._.DS_Store", "Thumbs.db", "desktop.ini"})


# ------------------------------------------------------------------------------------------------ publishing a folder


def place(out: str) -> Path:
    """The folder that ``out`` stands for: a link's goal, so that the link itself stays, and a name without ``..``."""
    if not out:
        raise BadRequest("--out is empty. Name a folder, or leave the option out.")
    path = Path(out)
    return Path(os.path.realpath(path)) if path.is_symlink() or path.name in ("", "..") else path


def claim(out: Path, *, force: bool) -> None:
    """Refuse a folder that must not be written. ``force`` replaces only what vitexport wrote."""
    here = host.here()
    try:
        held = {p.name for p in out.iterdir()} - _LEFT_BY_LOOKING
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise BadRequest(f"--out '{out}' is a file, or inside one. Name a folder.") from None
    except OSError as error:
        raise _unwritable(out, error) from error
    if here.is_relative_to(out.resolve()) or os.path.ismount(out):
        raise BadRequest(
            f"--out '{out}' is replaced whole, which the folder you are in, one above it or a mount point cannot be. "
            f"Name a new folder, such as '{out / 'exported'}'."
        )
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

    Raises ``BadRequest`` where ``out`` cannot be written, ``WorldFailed`` where disk or memory run out on the way. An
    interruption says which of the two is there.
    """
    stage = out.with_name(f".{out.name}.staging-{os.getpid()}")
    new_parents = [p for p in out.parents if not p.exists()]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir()
    except OSError as error:
        if error.errno in _UNWRITABLE:
            raise _unwritable(out, error) from error
        raise
    try:
        with _the_world_may_fail(out, stage):
            yield stage
    except Interrupted as interruption:
        untouched = "Nothing was written; what was there before is untouched."
        raise interruption.leaving(
            untouched if stage.is_dir() else "What was made is written, whole."
        ) from interruption
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        for parent in new_parents:  # innermost first; those that hold a published folder stay
            with suppress(OSError):
                parent.rmdir()


def _unwritable(out: Path, error: OSError) -> BadRequest:
    return BadRequest(f"--out '{out}' cannot be written ({error.strerror}). Name another folder.")


@contextmanager
def _the_world_may_fail(out: Path, stage: Path) -> Iterator[None]:
    """What happens to ``stage`` while it is filled, and to memory, is no fault of the request's, nor of ours."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise WorldFailed(
                f"The disk that holds '{out}' is full ({error.strerror}). Nothing was left behind; free some space."
            ) from error
        if str(error.filename).startswith(str(stage)):
            raise WorldFailed(
                f"'{out}' can no longer be written ({error.strerror}). See who else writes there, and run this again."
            ) from error
        raise
    except (MemoryError, RuntimeError) as error:
        # torch's allocator raises RuntimeError: "can't allocate memory" on Linux, "not enough memory" elsewhere.
        if isinstance(error, MemoryError) or "allocate memory" in str(error) or "enough memory" in str(error):
            raise WorldFailed("This machine's memory does not suffice. Try a smaller --size or model.") from error
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
def whole(path: Path) -> Iterator[Path]:
    """One file as :func:`publish` writes a folder: what is written to the yielded file beside ``path`` is at ``path``
    when the block ends well, with the permissions that ``path`` had, and nowhere else. Raises ``WorldFailed``."""
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        yield part
        with suppress(FileNotFoundError):
            part.chmod(path.stat().st_mode & 0o777)
        part.replace(path)
    except OSError as error:
        raise WorldFailed(
            f"'{path}' could not be written ({error.strerror}); it is as it was. Free some space, or see who else "
            "writes there."
        ) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """By Python's own handlers: a mask is each thread's, and the system gives a signal to one that has none."""
    if threading.current_thread() is not threading.main_thread():  # none is handled in another
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in handlers.items() if handler is not None}  # None is not Python's
    for number in ours:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


# -------------------------------------------------------------------------------------------------- filling a bundle


def complete(folder: Path, target: str, exams: Sequence[Exam], artifact: Artifact) -> tuple[Bundle, ...]:
    """Add the golden cases and the manifest to what a target wrote. One bundle per size, in the exams' order."""
    (folder / "golden").mkdir()
    first = exams[0].source
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        target=target,
        model=first.name,
        task=first.task,
        input_name=artifact.input_name,
        rungs=tuple(_rung(folder, *pair) for pair in zip(exams, artifact.variants, strict=True)),
        provenance=first.provenance,
        toolchain=dict(sorted(artifact.toolchain.items())),
        files=entries(folder),
        runtime=artifact.runtime,
    )
    (folder / MANIFEST_NAME).write_bytes(encode(manifest))
    return tuple(Bundle(folder, manifest, rung) for rung in manifest.rungs)


def state_oldest(bundle: Bundle, traits: Traits, results: Sequence[Result]) -> None:
    """Write into a bundle's manifest, of each variant at each size, the oldest runtime that it passed in."""
    ages = (*traits.older, *(provider for provider in traits.providers if provider not in traits.older))
    passed = {(r.size, r.precision, r.provider): r.parity.runtime for r in results if r.verdict == "passed"}

    def oldest(size: Size, precision: str) -> str:
        return next((passed[key] for age in ages if (key := (size, precision, age)) in passed), "")

    rungs = tuple(
        replace(rung, variants=tuple(replace(v, oldest_runtime=oldest(rung.size, v.precision)) for v in rung.variants))
        for rung in bundle.manifest.rungs
    )
    (bundle.directory / MANIFEST_NAME).write_bytes(encode(replace(bundle.manifest, rungs=rungs)))


def _rung(folder: Path, exam: Exam, variants: tuple[Variant, ...]) -> Rung:
    source = exam.source
    # Of the golden photos alone: a later check has no others.
    spread = contrast(source.outputs, [case.reference for case in exam.cases[:GOLDEN_PHOTOS]])
    return Rung(
        input_shape=exam.input_shape,
        preprocessing=source.preprocessing,
        outputs=source.outputs,
        variants=tuple(_held_to(variant, source, spread) for variant in variants),
        golden=tuple(_write_golden(folder, exam, i) for i in range(min(GOLDEN_PHOTOS, len(source.probes)))),
        rounding=source.rounding,
        pos_embed_rule=source.pos_embed_rule,
        pos_embed_source=source.pos_embed_source,
        calibration=_calibration(source, variants),
    )


def _held_to(variant: Variant, source: SourceModel, spread: float) -> Variant:
    half_rounding = rounding.float16_noise(source) if variant.precision == "fp16" else 0.0
    return held_to(variant, source.rounding, spread, half_rounding)


def _calibration(source: SourceModel, variants: tuple[Variant, ...]) -> CalibrationSet | None:
    if not any(variant.precision in QUANTISES_ACTIVATIONS for variant in variants):
        return None
    used = calibration.of(source)
    fixes = any(variant.precision in FIXES_RANGES for variant in variants)
    observer = (source.observer or observers.DEFAULT) if fixes else None
    return CalibrationSet(len(used.pictures), used.photos, used.digest, observer)


def _write_golden(folder: Path, exam: Exam, index: int) -> GoldenCase:
    case = exam.cases[index]
    photo = f"golden/{index}.png"  # all sizes share it
    if not (folder / photo).exists():
        image = exam.source.probes[index].image
        PILImage.fromarray(image.reshape(-1, *image.shape[-2:])).save(folder / photo, optimize=True)
    stem = f"golden/{index}.{exam.source.size}"
    (folder / f"{stem}.input.f32").write_bytes(case.pixel_values.astype("<f4").tobytes())
    outputs = {name: f"{stem}.{name}.f32" for name in case.reference}
    for name, path in outputs.items():
        (folder / path).write_bytes(case.reference[name].astype("<f4").tobytes())
    return GoldenCase(case.name, photo=photo, input=f"{stem}.input.f32", outputs=outputs)


def read_golden(bundle: Bundle) -> tuple[Case, ...]:
    """The exam that a bundle carries: PyTorch's answers at export, so that no PyTorch is needed now."""
    shapes = {o.name: o.shape for o in bundle.rung.outputs}
    one = (1, *bundle.rung.preprocessing.input_shape)

    def load(path: str, shape: Sequence[int]) -> Tensor:
        return np.frombuffer(bundle.path(path).read_bytes(), "<f4").reshape(shape)

    return tuple(
        Case(
            case.name,
            "photo",
            load(case.input, one),
            {name: load(path, shapes[name]) for name, path in case.outputs.items()},
        )
        for case in bundle.rung.golden
    )


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


def undamaged(directory: Path) -> tuple[Bundle, ...]:
    """The bundles in ``directory``. A file that is not the one that was exported is a ``ParityFailed``."""
    found = find_bundles(directory)
    for bundle in {b.directory: b for b in found}.values():  # once for all sizes
        if broken := damage(bundle):
            raise ParityFailed(broken)
    return found
