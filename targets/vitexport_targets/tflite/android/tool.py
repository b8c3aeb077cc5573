"""LiteRT's ``benchmark_model``: how it is called, and what it prints.

https://github.com/google-ai-edge/LiteRT/tree/main/tflite/tools/benchmark
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vitexport import bench
from vitexport.contract import Placement
from vitexport.errors import BadRequest

#: Where the binary comes from, for who has none.
WHERE = (
    "LiteRT's page on performance measurement (ai.google.dev/edge/litert/models/measurement) has one for "
    "android_aarch64; or build it: bazel build -c opt --config=android_arm64 "
    "//tflite/tools/benchmark:benchmark_model in LiteRT's repository"
)

#: ELF's e_machine, by Android's name of the ABI. https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
_MACHINES = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62, "x86": 3}

#: Of each way to run a file, the options that choose it, and what the tool calls its delegate.
DELEGATES: dict[str, tuple[tuple[str, ...], str]] = {
    "xnnpack": (("--use_xnnpack=true",), "XNNPACK"),
    "gpu": (("--use_gpu=true",), "GPU"),
    "nnapi": (("--use_nnapi=true",), "NNAPI"),
}


class Unreadable(Exception):
    """What was printed is no measurement; says why."""


@dataclass(frozen=True)
class Timing:
    """As far as it tells: it keeps no times of single runs."""

    load_ms: float
    cold_ms: float
    median_ms: float
    runs: int
    p5_ms: float
    p95_ms: float
    std_ms: float


def checked(program: Path | None, abi: str) -> Path:
    """The user's binary, if a device of this ``abi`` (empty: any) can run it. Raises ``BadRequest``."""
    if program is None:
        raise BadRequest(f"--benchmark-model is missing: the path of LiteRT's benchmark_model. {WHERE}.")
    try:
        with program.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise BadRequest(f"--benchmark-model '{program}' cannot be read ({error.strerror}). {WHERE}.") from None
    machine = int.from_bytes(head[18:20], "little")
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise BadRequest(f"--benchmark-model '{program}' is no program for Android (ELF). {WHERE}.")
    if abi in _MACHINES and machine != _MACHINES[abi]:
        known = {number: name for name, number in _MACHINES.items()}
        raise BadRequest(
            f"--benchmark-model '{program}' is for {known.get(machine, machine)}, and the device is {abi}. "
            f"Take the one for {abi}."
        )
    return program


def timing_options() -> tuple[str, ...]:
    """Our own protocol, in the tool's words: one cold run, then 30 or as many as 10 s hold."""
    return (
        "--warmup_runs=1",
        "--warmup_min_secs=0",
        f"--num_runs={bench.STEADY_RUNS}",
        "--min_secs=0",
        f"--max_secs={bench.BUDGET_S:g}",
    )


def once_options() -> tuple[str, ...]:
    """As few runs as it makes: for its answer alone."""
    return ("--warmup_runs=1", "--warmup_min_secs=0", "--num_runs=1", "--min_secs=0")


def timing(text: str) -> Timing:
    """Of what ``benchmark_model`` printed. Raises :class:`Unreadable`."""
    counts = [dict(re.findall(r"(\w+)=([0-9.e+]+)", line)) for line in re.findall(r"\bcount=[^\n]*", text)]
    totals = re.search(r"Inference timings in us: Init: ([0-9.e+]+), First inference: ([0-9.e+]+)", text)
    if not totals or not counts:
        raise Unreadable("it printed no timings")
    steady = counts[-1]
    if "median" not in steady:
        raise Unreadable("it tells no median: take a newer benchmark_model")
    try:
        load, cold = (float(us) / 1000 for us in totals.groups())
        median, p5, p95, std = (float(steady[key]) / 1000 for key in ("median", "p5", "p95", "std"))
        return Timing(load, cold, median, int(steady["count"]), p5, p95, std)
    except (KeyError, ValueError):
        raise Unreadable("its timings are no numbers") from None


def placement(text: str, provider: str) -> Placement | None:
    """How many operations a delegate took, as LiteRT logs it; None where it logs nothing."""
    found = re.findall(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \(([^)]*)\)", text)
    wanted = [(int(taken), int(of)) for taken, of, name in found if DELEGATES[provider][1].lower() in name.lower()]
    if not wanted:
        return None
    taken, total = max(wanted, key=lambda pair: pair[1])
    return Placement({provider: taken, "cpu": total - taken} if total > taken else {provider: taken})


def refusal(text: str, provider: str) -> str:
    """Why a delegate ran nothing, where LiteRT says so and goes on without it; empty where it ran something."""
    name = DELEGATES[provider][1]
    if re.search(rf"{name} delegate.*will not be executed by the delegate", text):
        return f"LiteRT's {name} delegate takes nothing of this file"
    if provider == "xnnpack":
        return ""
    applied = re.search(rf"Explicitly applied {name} delegate.*(completely|partially) executed", text)
    return "" if applied else f"LiteRT does not say that its {name} delegate took anything"
