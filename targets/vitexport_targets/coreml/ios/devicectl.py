"""Xcode's ``devicectl``: which iPhone or iPad is attached, what it is, and whether it can be used now.

It writes JSON for programs (``devicectl --help``: the only form of its output that is promised to last). coremltools
reads the same list and keeps less of it: neither what the device is called in the shop, nor whether it is one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitexport.contract import Device, the_one
from vitexport.errors import BadRequest, MissingToolchain

#: The kinds that coremltools' runner is built for by the same scheme, as devicectl calls them.
_KINDS = ("iPhone", "iPad")

#: iOS, for which coremltools' Xcode project builds the runner.
_OLDEST = 17

#: A phone that was just unlocked takes seconds to answer; one that is gone is given up by devicectl itself.
_ASKING_S = 120.0

#: For a file or the app to arrive: a ViT-Base in float32, 350 MB, takes some 10 s by the slowest cable (USB 2).
LONGEST_COPY_S = 300.0

_DEVICECTL = """#!/bin/sh
case "$2" in copy | install) set -- --timeout {seconds} "$@" ;; esac
exec xcrun devicectl "$@"
"""

_ELSEWHERE = (
    "Without one, open the bundle's Package.swift in Xcode and take its result with `vitexport report DIR --add FILE`."
)


@dataclass(frozen=True)
class Listed:
    """A device as ``devicectl list devices`` tells of it."""

    identifier: str
    """devicectl's own name of it, a UUID."""
    udid: str
    kind: str
    name: str
    """As its owner calls it."""
    model: str
    """As the shop calls it, such as ``iPhone 16``."""
    product: str
    """As Apple numbers it, such as ``iPhone17,3``."""
    system: str
    build: str
    pairing: str
    tunnel: str
    developer_mode: str
    reality: str

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Listed:
        def text(section: str, key: str) -> str:
            value = (entry.get(section) or {}).get(key)
            return value if isinstance(value, str) else ""

        hardware, properties, connection = "hardwareProperties", "deviceProperties", "connectionProperties"
        return cls(
            str(entry.get("identifier", "")),
            text(hardware, "udid"),
            text(hardware, "deviceType"),
            text(properties, "name"),
            text(hardware, "marketingName"),
            text(hardware, "productType"),
            text(properties, "osVersionNumber"),
            text(properties, "osBuildUpdate"),
            text(connection, "pairingState"),
            text(connection, "tunnelState"),
            text(properties, "developerModeStatus"),
            text(hardware, "reality"),
        )

    def __str__(self) -> str:
        return f"{self.identifier} {self.name}".strip()


def expect_xcode() -> None:
    """Raises ``MissingToolchain``."""
    if shutil.which("xcrun") is None:
        raise MissingToolchain(f"--device ios needs a Mac with Xcode 16 or later ('xcrun' is not here). {_ELSEWHERE}")


def attached(serial: str | None) -> Listed:
    """The one iPhone or iPad that is attached, or the one of this identifier or UDID, connected and ready.

    Raises ``MissingToolchain`` where there is no device that can be used, ``BadRequest`` where it is not clear which.
    """
    found = _listed()
    chosen = [each for each in found if serial is None or serial in (each.identifier, each.udid)]
    if serial is None and any(each.tunnel != "unavailable" for each in chosen):
        chosen = [each for each in chosen if each.tunnel != "unavailable"]  # paired long ago, and not here
    if not found:
        raise MissingToolchain(
            "No iPhone or iPad is attached. Connect it by cable, unlock it, tap Trust, and see that `xcrun devicectl "
            "list devices` lists it."
        )
    return _ready(the_one(found, chosen, serial))


def _ready(one: Listed) -> Listed:
    who = f"The device {one}"
    if one.pairing != "paired":
        raise MissingToolchain(f"{who} is not paired with this Mac. Unlock it, tap Trust, and run this again.")
    asked = _run(["devicectl", "device", "info", "details", "--device", one.identifier])  # which connects it
    one = next((each for each in _listed() if each.identifier == one.identifier), one)
    if asked.returncode or one.tunnel == "unavailable":
        raise MissingToolchain(
            f"{who} cannot be reached ({telling(asked.stderr or one.tunnel)}). Connect it by cable, unlock it, and run "
            "this again."
        )
    if one.developer_mode != "enabled":
        raise MissingToolchain(
            f"{who} does not have Developer Mode on. Switch it on in Settings > Privacy & Security, restart the "
            "device, and run this again."
        )
    if one.system.partition(".")[0].isdigit() and int(one.system.partition(".")[0]) < _OLDEST:
        raise MissingToolchain(
            f"{who} has iOS {one.system}, and coremltools' model runner needs {_OLDEST}. Update it, or take another."
        )
    return one


def described(one: Listed) -> Device:
    """The device, without a runtime or a provider yet. Raises ``BadRequest`` where it does not say what it is.

    Apple's tools run on Macs alone, so what answers elsewhere is a stand-in, whatever it says.
    """
    named = {"marketingName": one.model, "productType": one.product, "osVersionNumber": one.system}
    if missing := [key for key, value in named.items() if not value]:
        raise BadRequest(
            f"The device {one} does not say what it is (no {', '.join(missing)} in devicectl's list), and figures of "
            "nobody are filed nowhere. Attach another."
        )
    stands_in = one.reality != "physical" or sys.platform != "darwin"
    system = "iPadOS" if one.kind == "iPad" else "iOS"
    facts = {"os": f"{system} {one.system}", "build": one.build, "product": one.product}
    return Device(
        f"{one.model} (stand-in)" if stands_in else one.model,
        "",
        "",
        software=stands_in,
        facts={key: value for key, value in facts.items() if value},
    )


@contextmanager
def on_path() -> Iterator[None]:
    """With devicectl on PATH by its own name, as coremltools calls it, where Xcode alone knows where it is. What
    coremltools would wait for however long is given up by devicectl itself after :data:`LONGEST_COPY_S`."""
    before = os.environ.get("PATH", "")
    with tempfile.TemporaryDirectory(prefix="vitexport-ios-") as folder:
        script = Path(folder) / "devicectl"
        script.write_text(_DEVICECTL.format(seconds=round(LONGEST_COPY_S)))
        script.chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before


def uninstall(one: Listed, bundle_identifier: str) -> None:
    """Take the app away again; a device that is gone keeps it."""
    with suppress(MissingToolchain):
        _run(["devicectl", "device", "uninstall", "app", "--device", one.identifier, bundle_identifier])


def _listed() -> list[Listed]:
    with tempfile.TemporaryDirectory(prefix="vitexport-ios-") as folder:
        path = Path(folder) / "devices.json"
        done = _run(["devicectl", "list", "devices", "--json-output", str(path)])
        try:
            told = json.loads(path.read_bytes())
            entries = told["result"]["devices"]
        except (OSError, ValueError, TypeError, KeyError):
            raise MissingToolchain(
                f"devicectl lists no devices ({telling(done.stderr or done.stdout)}). See that `xcrun devicectl "
                "list devices` works; Xcode 16 is the first that will do."
            ) from None
    if entries and not any("hardwareProperties" in entry for entry in entries):
        version = told.get("info", {}).get("version", "unknown")
        raise MissingToolchain(
            f"devicectl {version} lists devices in a form that coremltools does not read. Choose an older Xcode with "
            "`sudo xcode-select --switch`."
        )
    listed = map(Listed.of, entries)
    # Newer ones list simulators as well, which are no devices.
    return [one for one in listed if one.kind in _KINDS and one.identifier and one.udid and one.reality != "simulated"]


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["xcrun", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ASKING_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingToolchain("devicectl does not answer. Disconnect the device, and run this again.") from None
    except OSError as error:
        raise MissingToolchain(f"'xcrun' cannot be run ({error.strerror}). Install Xcode.") from None


def telling(text: str) -> str:
    """Of what one of Xcode's tools printed, the line to quote: its error, how an app ended, or the last. Before these
    come lines on how the device was reached."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it says nothing"]
    error = next((line for line in lines if "error:" in line.lower()), None)
    ended = next((line for line in reversed(lines) if "terminated" in line), None)
    return "".join(c for c in error or ended or lines[-1] if c.isprintable())[:400].rstrip(".")
