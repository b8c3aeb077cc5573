"""A bundle on a device that is attached to this machine, filed in the report under the device's own name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitexport import registry
from vitexport.bundle import undamaged
from vitexport.contract import Attachable, Attachment, Bundle, Result
from vitexport.devices import filing
from vitexport.errors import BadRequest, Interrupted, did_you_mean
from vitexport.progress import step


@dataclass(frozen=True)
class Measured:
    results: tuple[Result, ...]
    filed: str
    """Where they are now, or why they are nowhere."""


def measure(directory: Path, asked: Attachment) -> Measured:
    """Of all bundles in ``directory`` whose target can reach such a device, each filed before the next is begun.

    Raises as :meth:`vitexport.contract.Attachable.measure_attached` does, and ``BadRequest`` where no target can.
    """
    home = filing.home_of(directory)
    able = _able(undamaged(directory), asked.way)
    results: list[Result] = []
    told: list[tuple[bool, str]] = []
    try:
        for sizes in able:
            measured = _measured(sizes, asked)
            with step("filing", f"{sizes[0].directory.name}, {len(measured)} cells"):
                told.append(filing.filed(measured, home))
            results += measured
    except Interrupted as interruption:
        done = sum(filed for filed, _ in told)
        raise interruption.leaving(f"{done} of {len(able)} bundles filed.") from interruption
    return Measured(tuple(results), " ".join(dict.fromkeys(sentence for _, sentence in told)))


def _measured(sizes: Sequence[Bundle], asked: Attachment) -> tuple[Result, ...]:
    """A bundle at all sizes."""
    target = registry.target(sizes[0].manifest.target)
    return target.measure_attached(sizes, asked) if isinstance(target, Attachable) else ()


def _able(bundles: tuple[Bundle, ...], way: str) -> list[list[Bundle]]:
    """At all sizes, by folder. Raises ``BadRequest`` where no target knows this way to a device, or is not here."""
    ways = {name: registry.target(name).traits.devices for name in registry.names()}
    known = sorted({"browser", *(each for named in ways.values() for each in named)})  # that waits: vitexport.devices
    if way not in known:
        raise BadRequest(f"Unknown device '{way}'.{did_you_mean(way, known)} Known: {', '.join(known)}.")
    found: dict[Path, list[Bundle]] = {}
    for bundle in bundles:
        if way in registry.target(bundle.manifest.target).traits.devices:
            found.setdefault(bundle.directory, []).append(bundle)
    if not found:
        able = ", ".join(name for name, named in ways.items() if way in named)
        here = ", ".join(dict.fromkeys(bundle.manifest.target for bundle in bundles))
        raise BadRequest(f"--device {way} runs bundles of {able}, and here is {here}. Export that target, or name it.")
    return list(found.values())
