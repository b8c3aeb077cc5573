"""A browser on any device: serve a bundle with a page that runs it, wait for what it says, file it in the report."""

from __future__ import annotations

import ipaddress
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty

from vitexport import registry
from vitexport.bundle import undamaged
from vitexport.contract import Bundle, Remote, Result, Site
from vitexport.devices import filing, report
from vitexport.devices.certificate import self_signed
from vitexport.devices.gate import Arrival, Gate, Progress
from vitexport.errors import BadRequest, Interrupted, WorldFailed
from vitexport.serving import HOST, Door, serve

#: A phone that runs every cell of a ViT with shaders to compile needs minutes; somebody has to find it first.
TIMEOUT_S = 900.0

#: WebGPU, WebAssembly on one thread and on several.
WAYS = 3

#: A device that has begun and tells nothing for so long is asked after: a cell of a ViT takes less on most.
QUIET_S = 90.0
LONGEST_TIMEOUT_S = 86_400.0

MOST_DEVICES = 16

#: 192.0.2.0/24 is for documentation (RFC 5737): nothing is sent, the system only says which way it would go.
_ELSEWHERE = ("192.0.2.1", 9)


@dataclass(frozen=True)
class Wait:
    """What ``--device browser`` was asked for."""

    directory: Path
    lan: str | None = None
    """None: this machine alone. Empty: the address that this machine has on its network. Else: that address."""
    port: int = 0
    timeout_s: float = TIMEOUT_S
    """Beside ``sustained_s`` of each cell."""
    names: tuple[str, ...] = ("",)
    """One for each device that is waited for; empty where the device's own name is to stand."""
    sustained_s: float | None = None
    """Of work in each cell, after which its latency is told as well."""


def bench(wait: Wait) -> tuple[Result, ...]:
    """The results of every device, each filed as it comes.

    Raises ``BadRequest`` (nothing there that a browser runs, no such address), ``WorldFailed`` (not all devices came in
    time: what came is filed).
    """
    bundles, site = _site(wait.directory, wait.sustained_s)
    cells = WAYS * sum(len(bundle.rung.variants) for bundle in bundles)
    wait = replace(wait, timeout_s=wait.timeout_s + cells * (wait.sustained_s or 0))
    address = HOST if wait.lan is None else wait.lan or lan_address()
    guests = {name or f"device {number}": name for number, name in enumerate(wait.names, 1)}
    gate = Gate(
        names=tuple(guests),
        accept=lambda guest, raw: report.accept(raw, bundles, called=guests[guest]),
        largest_bytes=report.LARGEST_BYTES,
        deadline=time.monotonic() + wait.timeout_s,
    )
    _check_address(address)
    certificate = None if wait.lan is None else self_signed([address])
    names = (address,) if certificate else (HOST, "localhost")
    door = Door(address, wait.port, names, certificate.context if certificate else None)
    with serve(replace(site, desk=gate), door=door) as url:
        _invite([f"{url}{token}/" for token in gate.tokens], gate.names, wait)
        if certificate:
            _say(_WARNING.format(fingerprint=certificate.fingerprint))
        return _gathered(gate, wait)


def lan_address() -> str:
    """The IPv4 address that others on this machine's network reach it at. Raises ``BadRequest`` where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(_ELSEWHERE)
        address = str(probe.getsockname()[0])
        if not address.startswith(("127.", "0.")):
            return address
    raise BadRequest("This machine is on no network. Join one, or name an address of its own: --lan ADDRESS.")


def _check_address(address: str) -> None:
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise BadRequest(
            f"--lan '{address}' is no IPv4 address, such as 192.168.1.20. Leave it out to have it found."
        ) from None


def _site(directory: Path, sustained_s: float | None) -> tuple[list[Bundle], Site]:
    """The bundles that a browser runs, at all sizes of the first such target, and its page."""
    for bundle in (found := undamaged(directory)):
        target = registry.target(bundle.manifest.target)
        if isinstance(target, Remote):
            return [b for b in found if b.directory == bundle.directory], target.device_site(bundle, sustained_s)
    able = ", ".join(name for name in registry.names() if isinstance(registry.target(name), Remote))
    raise BadRequest(f"'{directory}' holds nothing that a browser runs by itself. Export one with --target {able}.")


# -------------------------------------------------------------------------------------------------- what comes back


def _gathered(gate: Gate, wait: Wait) -> tuple[Result, ...]:
    home, of = filing.home_of(wait.directory), f"of {len(gate.names)} devices"
    results: list[Result] = []
    missing, filed = list(gate.names), 0
    try:
        begun: set[str] = set()
        while missing:
            arrival = _next(gate)
            if arrival is None and time.monotonic() < gate.deadline:
                for guest in sorted(begun):
                    _say(f"\n{guest}: {_QUIET.format(seconds=QUIET_S)}")
                begun.clear()
                continue
            if arrival is None:
                _say("")
                raise WorldFailed(
                    f"{len(gate.names) - len(missing)} {of} have answered within {wait.timeout_s:g} s; "
                    f"{', '.join(missing)} did not. Filed: {filed}. Run this again, with a longer --timeout if the "
                    "device was still at work."
                )
            if isinstance(arrival.what, Progress):
                _show(arrival.guest, arrival.what)
                begun.add(arrival.guest)
                continue
            begun.discard(arrival.guest)
            missing.remove(arrival.guest)
            done, sentence = filing.filed(arrival.what, home)
            filed += done
            _say(f"\n{arrival.guest}: {len(arrival.what)} cells. {sentence}")
            results += arrival.what
    except Interrupted as interruption:
        raise interruption.leaving(f"{filed} {of} filed.") from interruption
    return tuple(results)


def _next(gate: Gate) -> Arrival | None:
    """None where time is up, or all were silent for :data:`QUIET_S`."""
    with suppress(Empty):
        return gate.arrivals.get(timeout=min(QUIET_S, max(0.0, gate.deadline - time.monotonic())))
    return None


# ------------------------------------------------------------------------------------------------ what a person sees

_QUIET = (
    "nothing was heard for {seconds:g} s. Leave its page open and its screen on; opened again, it goes on with the "
    "next cell. Ctrl-C stops waiting."
)

_WARNING = """\
No authority vouches for an address on your network, so the phone warns before it goes on. That is expected:
  Chrome, Android   "Your connection is not private": Advanced, then Proceed
  Safari, iPhone    "This Connection Is Not Private": Show Details, then visit this website
  Firefox           "Warning: Potential Security Risk Ahead": Advanced, then Accept the Risk
Whoever wants to be sure compares the certificate's SHA-256 first:
  {fingerprint}
Everybody on this network who has the address can fetch the bundle until its report is in."""


def _invite(urls: Sequence[str], names: Sequence[str], wait: Wait) -> None:
    import segno

    for url, name in zip(urls, names, strict=True):
        _say(f"{name}: open {url}")
        if wait.lan is None:
            _say(
                "  on this machine; on an Android phone with a cable after "
                f"`adb reverse tcp:{url.split(':')[2].partition('/')[0]} tcp:{url.split(':')[2].partition('/')[0]}`; "
                "on any device of your network with --lan"
            )
        else:
            segno.make(url, error="l").terminal(out=sys.stderr, compact=True)
    _say(f"Each address is good for one report, and for {wait.timeout_s:g} s. Waiting; Ctrl-C stops.")


def _show(guest: str, progress: Progress) -> None:
    line = f"  {guest}: {progress.done} of {progress.of}, {progress.now}"
    if sys.stderr.isatty():
        print(f"\r{line:<110}", end="", file=sys.stderr, flush=True)
    else:
        _say(line)


def _say(text: str) -> None:
    """Not on standard output, which is the results'."""
    print(text, file=sys.stderr, flush=True)
