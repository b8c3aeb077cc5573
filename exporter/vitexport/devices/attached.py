"""A bundle on a device that is attached to this machine, filed in the report under the device's own name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vitexport import registry
from vitexport.bundle import undamaged
from vitexport.contract import Attachable, Attachment, Bundle, Result
from vitexport.devices import filing
from vitexport.errors import BadRequest, did_you_mean


@dataclass(frozen=True)
class Measured:
    results: tuple[Result, ...]
    filed: str
    """Where they are now, or why they are nowhere."""


def measure(directory: Path, asked: Attachment) -> Measured:
    """Of all bundles in ``directory`` whose target can reach such a device.

    Raises as :meth:`vitexport.contract.Attachable.measure_attached` does, and ``BadRequest`` where no target can.
    """
    bundles = undamaged(directory)
    able = _able(bundles, asked.way)
    results = tuple(
        result
        for name, found in able.items()
        if isinstance(target := registry.target(name), Attachable)
        for result in target.measure_attached(found, asked)
    )
    return Measured(results, filing.filed(results, filing.home_of(directory)))


def _able(bundles: tuple[Bundle, ...], way: str) -> dict[str, list[Bundle]]:
    """By target. Raises ``BadRequest`` where none knows this way to a device."""
    ways = {name: registry.target(name).traits.devices for name in registry.names()}
    known = sorted({"browser", *(each for named in ways.values() for each in named)})  # that waits: vitexport.devices
    if way not in known:
        raise BadRequest(f"Unknown device '{way}'.{did_you_mean(way, known)} Known: {', '.join(known)}.")
    found: dict[str, list[Bundle]] = {}
    for bundle in bundles:
        if way in ways[bundle.manifest.target]:
            found.setdefault(bundle.manifest.target, []).append(bundle)
    if not found:
        able = ", ".join(name for name, named in ways.items() if way in named)
        here = ", ".join(dict.fromkeys(bundle.manifest.target for bundle in bundles))
        raise BadRequest(f"--device {way} runs bundles of {able}, and here is {here}. Export that target, or name it.")
    return found
