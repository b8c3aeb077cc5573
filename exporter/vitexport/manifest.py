"""``manifest.json``, ``report.json``: JSON <-> the dataclasses of the contract, and the manifest's JSON Schema.

The TypeScript type that pages use is generated from the schema, so the three cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

import msgspec

from vitexport.contract import Bundle, Manifest, Rung, SourceModel
from vitexport.errors import BadRequest

MANIFEST_NAME = "manifest.json"
REPORT_NAME = "report.json"
SCHEMA_VERSION: Final = 1

T = TypeVar("T")


def encode(value: object) -> bytes:
    """Indented JSON with a final newline; keys in the order of the dataclass; infinities and NaN become null."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


class Malformed(ValueError):
    """Not JSON, or not of the form that was asked for; the message says where."""


def decode(data: bytes, kind: type[T]) -> T:
    """Strictly typed. Raises :class:`Malformed`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise Malformed(_others_version(data, kind) or str(error)) from error
    except UnicodeError as error:
        raise Malformed("it is not UTF-8") from error
    except RecursionError:
        raise Malformed("it is nested too deeply") from None


class _Versioned(msgspec.Struct):
    """Whatever else there is in a file, of any version."""

    schema_version: int


def _others_version(data: bytes, kind: type) -> str:
    """What to say of a file that is as it should be, for another version than this; else empty."""
    if "schema_version" not in getattr(kind, "__dataclass_fields__", ()):
        return ""
    try:
        version = msgspec.json.decode(data, type=_Versioned).schema_version
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    if version == SCHEMA_VERSION:
        return ""
    return (
        f"another version of vitexport wrote it: its schema_version is {version}, and this one reads {SCHEMA_VERSION}"
    )


def metadata(source: SourceModel) -> dict[str, str]:
    """What a model's file carries itself, for a reader who has lost its manifest: preprocessing, outputs, licence."""
    return {
        "vitexport.model": source.name,
        "vitexport.task": source.task,
        "vitexport.preprocessing": _json(source.preprocessing),
        "vitexport.outputs": _json(source.outputs),
        "vitexport.origin": source.provenance.origin,
        "vitexport.licence": source.provenance.licence,
        "vitexport.weights_sha256": source.provenance.weights_sha256,
    }


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def read_bundle(directory: Path) -> Bundle:
    """A target's folder at its first size. Raises as :func:`read_bundles` does."""
    return read_bundles(directory)[0]


def read_bundles(directory: Path) -> tuple[Bundle, ...]:
    """A target's folder, at each of its sizes.

    Raises ``BadRequest`` where the manifest is missing, malformed, contradicts itself or points outside.
    """
    path = directory / MANIFEST_NAME
    try:
        manifest = decode(path.read_bytes(), Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise BadRequest(f"'{directory}' is not a vitexport bundle: it has no {MANIFEST_NAME}.") from None
    except OSError as error:
        raise BadRequest(f"'{path}' cannot be read ({error.strerror}). Export the model again.") from None
    except Malformed as error:
        raise BadRequest(f"'{path}' is not a manifest this version reads ({error}). Export the model again.") from error
    stray = [p for p in _paths(manifest) if not _inside(p)]
    if stray:
        raise BadRequest(f"'{path}' names a file outside its folder ({stray[0]!r}). It was not written by vitexport.")
    if wrong := _contradiction(manifest):
        raise BadRequest(f"'{path}' was changed after the export: {wrong}. Export the model again.")
    return tuple(Bundle(directory, manifest, rung) for rung in manifest.rungs)


def find_bundles(directory: Path) -> tuple[Bundle, ...]:
    """The bundle in ``directory``, or those in its subfolders (what ``vitexport --out`` wrote), at each size."""
    if (directory / MANIFEST_NAME).is_file():
        return read_bundles(directory)
    if not directory.is_dir():
        raise BadRequest(f"'{directory}' is not a folder. Name one that vitexport wrote.")
    found = sorted(p.parent for p in directory.glob(f"*/{MANIFEST_NAME}"))
    if not found:
        raise BadRequest(f"'{directory}' holds no bundle: no {MANIFEST_NAME} in it or in its subfolders.")
    return tuple(bundle for folder in found for bundle in read_bundles(folder))


def holds_bundles(directory: Path) -> bool:
    """Whether :func:`find_bundles` has something to read there."""
    return (directory / MANIFEST_NAME).is_file() or any(directory.glob(f"*/{MANIFEST_NAME}"))


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the manifest."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Manifest)}


def _contradiction(manifest: Manifest) -> str:
    """What no export writes and every reader relies on; empty where all is well. A file that is not listed has no hash,
    and an exam without a question is passed by everybody."""
    sizes = {f.path: f.bytes for f in manifest.files}
    unlisted = set(_paths(manifest)) - sizes.keys()
    if unlisted:
        return f"its files do not list '{min(unlisted)}'"
    if not manifest.rungs:
        return "it lists no size to run at"
    return next((wrong for rung in manifest.rungs if (wrong := _wrong_rung(rung, sizes))), "")


def _wrong_rung(rung: Rung, sizes: Mapping[str, int]) -> str:
    if not (rung.variants and rung.golden and rung.outputs and all(v.files for v in rung.variants)):
        return "it has no variants, no outputs or no golden cases"
    one = rung.preprocessing.input_shape
    shape = rung.input_shape[1:]
    if len(shape) != len(one) or any(n not in (0, m) for n, m in zip(shape, one, strict=True)):
        return f"its input_shape {rung.input_shape} is not that of its preprocessing"
    for output in rung.outputs:
        if output.person is not None and not (len(output.shape) == 4 and 0 <= output.person < output.shape[1]):
            return f"output '{output.name}' has no channel {output.person} to tell of people"
    shapes = {output.name: output.shape for output in rung.outputs}
    for case in rung.golden:
        if case.outputs.keys() != shapes.keys():
            return f"golden case '{case.name}' does not answer every output"
        expected = {case.input: one, **{path: shapes[name] for name, path in case.outputs.items()}}
        for path, shape in expected.items():
            if sizes[path] != 4 * math.prod(shape):  # float32
                return f"'{path}' does not hold a tensor of shape {shape}"
    return ""


def _paths(manifest: Manifest) -> list[str]:
    cases = [case for rung in manifest.rungs for case in rung.golden]
    golden = [p for case in cases for p in (case.photo, case.input, *case.outputs.values())]
    builds = manifest.runtime.builds.values() if manifest.runtime else ()
    runtime = [p for build in builds for p in (build.module, *build.wasm)]
    variants = [p for rung in manifest.rungs for variant in rung.variants for p in variant.files]
    return [*(f.path for f in manifest.files), *variants, *golden, *runtime]


def _inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path
