"""From a request back to the command that makes it: what a reader types to get the same."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from vitexport.contract import ExportRequest

#: Fields whose option is not their own name with dashes.
_OPTIONS = {
    "targets": "--target",
    "sizes": "--size",
    "precisions": "--precision",
    "max_file_bytes": "--max-file",
}


def command(request: ExportRequest) -> str:
    """One line for a POSIX shell. Options that say what is so anyway are left out."""
    return shlex.join(["vitexport", *arguments(request)])


def arguments(request: ExportRequest) -> list[str]:
    """What ``vitexport`` is to be called with for this very request."""
    defaults = ExportRequest(model=request.model)
    asked = [f.name for f in fields(request) if getattr(request, f.name) != getattr(defaults, f.name)]
    return [
        *_option("--model", request.model),
        *(word for name in asked for word in _words(name, getattr(request, name))),
    ]


def _words(name: str, value: Any) -> Iterator[str]:
    if name == "image_input":
        yield "--image-input" if value else "--tensor-input"
        return
    option = _OPTIONS.get(name, "--" + name.replace("_", "-"))
    if value is True:
        yield option
        return
    for each in value if isinstance(value, tuple) else (value,):
        yield from _option(option, str(each))


def _option(option: str, value: str) -> tuple[str, ...]:
    """A value that begins with a dash would be read as an option of its own."""
    return (f"{option}={value}",) if value.startswith("-") else (option, value)


def path(*parts: str) -> str:
    """A file's name as one word for a POSIX shell."""
    return shlex.quote("/".join(part.rstrip("/") for part in parts))
