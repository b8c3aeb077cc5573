"""This machine, as a figure taken on it has to be read: what computes, on what power, and what a process has taken."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from vitexport.errors import BadRequest

_PROC = Path("/proc/self")
_SUPPLIES = Path("/sys/class/power_supply")


def facts() -> dict[str, str]:
    """Of a device that is this machine: ``os``, ``cores`` and, where the system tells it, ``power``."""
    power = power_source()
    return {**_system(), "power": power} if power else _system()


def described() -> dict[str, str]:
    """What a reader of a report needs to place this host's figures."""
    return {
        "cpu": cpu_name(),
        **_system(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _system() -> dict[str, str]:
    return {"os": f"{platform.system()} {platform.release()} {platform.machine()}", "cores": str(os.cpu_count() or 0)}


def here() -> Path:
    """The working directory. Raises ``BadRequest`` where it was deleted, without which torch does not even load."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise BadRequest("The folder you are in was deleted. Change to another one, and run this again.") from None


def cpu_name() -> str:
    """The processor's marketing name where the system tells it, else what Python calls it or its architecture."""
    # Python calls every Mac of Apple's own processors 'arm', by which an M1 and an M4 would be one device.
    told = _said("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else _model_on_linux()
    return told.strip() or platform.processor() or platform.machine()


def _model_on_linux() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        return next((line.partition(":")[2] for line in cpuinfo if line.startswith("model name")), "")
    return ""


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
    said = _said("pmset", "-g", "batt")
    return "mains" if "'AC Power'" in said else "battery" if "'Battery Power'" in said else ""


def _said(*command: str) -> str:
    """What a tool of the system's prints; empty where there is none, or it fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


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
