"""``manifest.json``, ``report.json``: JSON <-> the dataclasses of the contract, and the manifest's JSON Schema.

The TypeScript type that pages use is generated from the schema, so the three cannot drift apart.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import msgspec

from vitexport.contract import Bundle, Manifest
from vitexport.errors import BadRequest

MANIFEST_NAME = "manifest.json"
REPORT_NAME = "report.json"
SCHEMA_VERSION = 1

T = TypeVar("T")


def encode(value: object) -> bytes:
    """Indented JSON with a final newline; keys in the order of the dataclass; infinities and NaN become null."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def decode(data: bytes, kind: type[T]) -> T:
    """Strictly typed. Raises ``msgspec.ValidationError`` or ``msgspec.DecodeError``, which name the field."""
    return msgspec.json.decode(data, type=kind)


def read_bundle(directory: Path) -> Bundle:
    """A target's folder. Raises ``BadRequest`` where the manifest is missing, malformed or points outside."""
    path = directory / MANIFEST_NAME
    try:
        manifest = decode(path.read_bytes(), Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise BadRequest(f"'{directory}' is not a vitexport bundle: it has no {MANIFEST_NAME}.") from None
    except msgspec.MsgspecError as error:
        raise BadRequest(f"'{path}' is not a manifest this version reads ({error}). Export the model again.") from error
    stray = [p for p in _paths(manifest) if not _inside(p)]
    if stray:
        raise BadRequest(f"'{path}' names a file outside its folder ({stray[0]!r}). It was not written by vitexport.")
    return Bundle(directory, manifest)


def find_bundles(directory: Path) -> tuple[Bundle, ...]:
    """The bundle in ``directory``, or those in its subfolders: what ``vitexport --out`` wrote."""
    if (directory / MANIFEST_NAME).is_file():
        return (read_bundle(directory),)
    if not directory.is_dir():
        raise BadRequest(f"'{directory}' is not a folder. Name one that vitexport wrote.")
    found = sorted(p.parent for p in directory.glob(f"*/{MANIFEST_NAME}"))
    if not found:
        raise BadRequest(f"'{directory}' holds no bundle: no {MANIFEST_NAME} in it or in its subfolders.")
    return tuple(read_bundle(folder) for folder in found)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the manifest."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Manifest)}


def _paths(manifest: Manifest) -> list[str]:
    golden = [p for case in manifest.golden for p in (case.photo, case.input, *case.outputs.values())]
    builds = manifest.runtime.builds.values() if manifest.runtime else ()
    runtime = [p for build in builds for p in (build.module, *build.wasm)]
    variants = [p for variant in manifest.variants for p in variant.files]
    return [*(f.path for f in manifest.files), *variants, *golden, *runtime]


def _inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\\" not in path
