"""Where the picture of a diff and its figures go: beside what they are of, never among files that are hashed, whole or
not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vitexport.bundle import whole
from vitexport.diff.exported import Exported
from vitexport.diff.trace import Trace
from vitexport.errors import BadRequest
from vitexport.manifest import MANIFEST_NAME, encode

NAME = "diff.png"


def place(out: str | None, found: Exported) -> Path:
    """``out``, or beside the bundles. Raises ``BadRequest`` where it cannot be written, before the walk is made."""
    path = found.home / NAME if out is None else Path(out)
    if path.suffix.lower() != ".png":
        raise BadRequest(f"--out '{path}' is not called .png, and that is what is drawn. Write it such as {NAME}.")
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise BadRequest(f"--out '{path}' cannot be written: it is a folder, or in none that can. Name another file.")
    bundle = next((parent for parent in (folder, *folder.parents) if (parent / MANIFEST_NAME).is_file()), None)
    if bundle:
        raise BadRequest(
            f"--out '{path}' is inside the bundle '{bundle}', whose files are sealed. Name another folder."
        )
    return path


def draw(traces: Sequence[Trace], path: Path) -> None:
    from vitexport.diff.plot import plot

    with whole(path) as part:
        plot(traces).save(part, "PNG")


def keep(traces: Sequence[Trace], picture: Path) -> Path:
    """The figures as JSON beside their ``picture``, where ``vitexport report DIR --html`` finds them."""
    path = picture.with_suffix(".json")
    with whole(path) as part:
        part.write_bytes(encode(traces))
    return path
