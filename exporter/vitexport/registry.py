"""Which targets there are. Built-in targets come through the same entry points as everybody else's."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from vitexport.contract import Target
from vitexport.errors import BadRequest, did_you_mean

GROUP = "vitexport.targets"
ALL = "all"
REFERENCE = "reference"


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def names() -> tuple[str, ...]:
    """All target names, sorted."""
    return tuple(_entries())


def target(name: str) -> Target:
    """The target called ``name``. Importing it must not import its toolchain."""
    entry = _entries().get(name)
    if entry is None:
        raise BadRequest(
            f"Unknown target '{name}'.{did_you_mean(name, names())} Known targets: {', '.join(names())}, {ALL}."
        )
    loaded: Target = entry.load()
    return loaded


def resolve(asked: tuple[str, ...]) -> tuple[Target, ...]:
    """The targets asked for, in order, each once. ``all`` is every one but the reference (PyTorch itself)."""
    wanted = [n for name in asked for n in ([t for t in names() if t != REFERENCE] if name == ALL else [name])]
    return tuple(target(name) for name in dict.fromkeys(wanted))
