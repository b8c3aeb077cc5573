"""This machine, as a figure taken on it has to be read: what computes, on what power, and what a process has taken."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc/self")
_SUPPLIES = Path("/sys/class/power_supply")


def facts() -> dict[str, str]:
    """Of a device that is this machine: ``os``, ``cores`` and, where the system tells it, ``power``."""
    known = {"os": f"{platform.system()} {platform.release()} {platform.machine()}", "cores": str(os.cpu_count() or 0)}
    power = power_source()
    return {**known, "power": power} if power else known


def power_source() -> str:
    """``mains`` or ``battery``; empty where nothing tells, as on a server. On a battery, clocks are often lower."""
    return _power_on_macos() if sys.platform == "darwin" else _power_on_linux(_SUPPLIES)


def _power_on_linux(supplies: Path) -> str:
    """Documentation/ABI/testing/sysfs-class-power: ``type`` of each supply, ``online`` of those that are plugs."""
    kinds: dict[str, list[str]] = {}
    for supply in supplies.glob("*"):
        with suppress(OSError):
            kind = (supply / "type").read_text().strip()
            online = supply / "online"
            kinds.setdefault(kind, []).append(online.read_text().strip() if online.is_file() else "")
    if any(state not in ("", "0") for kind in ("Mains", "USB") for state in kinds.get(kind, ())):
        return "mains"
    return "battery" if "Battery" in kinds else ""


def _power_on_macos() -> str:
    try:
        said = subprocess.run(["pmset", "-g", "batt"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return "mains" if "'AC Power'" in said else "battery" if "'Battery Power'" in said else ""


def forget_peak_memory() -> bool:
    """Let the peak start again from what is taken now. False where the system cannot (all but Linux): a peak there is
    that of the whole process so far, and no one session's. See proc_pid_clear_refs(5)."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_bytes() -> int | None:
    """The most that was resident since :func:`forget_peak_memory`; None where the system does not tell."""
    with suppress(OSError, ValueError):
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
