"""A bundle's files on an attached device: latency, and parity on the golden photos, for each way to run them there."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitexport import bench, parity, proof
from vitexport.bundle import read_golden
from vitexport.contract import Attachment, Bundle, Case, Device, Measurement, Parity, Result, Target
from vitexport.progress import step
from vitexport_targets.tflite.android import tool
from vitexport_targets.tflite.android.adb import Adb, Said, TookTooLong, attached
from vitexport_targets.tflite.android.identity import described
from vitexport_targets.tflite.signature import Entrance, collected, entrance, fed
from vitexport_targets.tflite.trial import held

if TYPE_CHECKING:
    from vitexport.contract import Tensor
    from vitexport_targets.tflite.structure import Tensor as Stored

#: Ten seconds of runs, and shaders compiled before them: a minute was seen on slow GPUs.
LONGEST_S = 300.0

#: Threads on the CPU, where none are named: phones have as many fast cores.
_THREADS = (4,)

_GRAPH, _PROGRAM, _INPUT, _OUTPUT = "model.tflite", "benchmark_model", "input.bin", "output.bin"


#: What ends programs on Linux, which Android is: this machine may number them otherwise. signal(7), x86 and ARM.
_SIGNALS = {
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
    31: "SIGSYS",
}


class NotRun(Exception):
    """The device did not do it: the verdict of a cell is ``not run``, with this reason."""


def measured(target: Target, bundles: Sequence[Bundle], asked: Attachment) -> tuple[Result, ...]:
    """A result for each variant of ``bundles`` in each of :data:`tool.DELEGATES`, under the device's own name.

    Raises ``MissingToolchain``: no adb, no device. ``BadRequest``: which device, or no program for it. ``WorldFailed``:
    the device went away, no longer answers, or is full.
    """
    tool.checked(asked.program, "")  # before a device is looked for
    adb = attached(asked.serial)
    device = described(adb.serial, adb.properties())
    program = tool.checked(asked.program, device.facts.get("abi", ""))
    with adb.folder() as folder, tempfile.TemporaryDirectory(prefix="vitexport-adb-") as here:
        adb.push(program, f"{folder}/{_PROGRAM}")
        adb.shell(["chmod", "755", f"{folder}/{_PROGRAM}"])
        room = _Room(adb, folder, Path(here))
        return tuple(result for bundle in bundles for result in _of_bundle(target, bundle, device, room, asked.threads))


@dataclass(frozen=True)
class _Room:
    """Our folder on the device, and one on this machine for what comes back."""

    adb: Adb
    folder: str
    here: Path


@dataclass(frozen=True)
class _Way:
    """How a file is run: its provider, and its threads where that is the CPU."""

    provider: str
    options: tuple[str, ...]
    runtime: str
    threads: int | None = None


def _ways(precision: str, threads: Sequence[int]) -> Iterator[_Way]:
    for provider, (options, name) in tool.DELEGATES.items():
        if provider == "xnnpack":
            for number in threads or _THREADS:
                said = f"{number} thread{'' if number == 1 else 's'}"
                runtime = f"LiteRT benchmark_model ({name}, {said})"
                yield _Way(provider, (*options, f"--num_threads={number}"), runtime, number)
            continue
        # A GPU computes in float16 unless it is told not to, and a float32 file is held to float32's tolerance.
        exact = ("--gpu_precision_loss_allowed=false",) if (provider, precision) == ("gpu", "fp32") else ()
        yield _Way(provider, (*options, *exact), f"LiteRT benchmark_model ({name})")


def _of_bundle(target: Target, bundle: Bundle, device: Device, room: _Room, threads: Sequence[int]) -> Iterator[Result]:
    cases = read_golden(bundle)
    for variant in bundle.rung.variants:
        path = bundle.path(variant.files[0])
        file = _File(bundle, variant.precision, path, entrance(bundle, path.name, held(path)), _outputs(path, bundle))
        room.adb.push(path, f"{room.folder}/{_GRAPH}")
        for way in _ways(variant.precision, threads):
            ran = replace(device, runtime=way.runtime, provider=way.provider)
            blank = proof.blank_result(target, bundle, variant.precision, way.provider)
            with step("device", f"{bundle.rung.size} {variant.precision} on {way.runtime}"):
                try:
                    yield _result(blank, file, cases, ran, way, room)
                except NotRun as reason:
                    unrun = proof.not_run(blank, str(reason))
                    yield replace(unrun, parity=replace(unrun.parity, runtime=_where(ran)))


@dataclass(frozen=True)
class _File:
    bundle: Bundle
    precision: str
    path: Path
    way: Entrance
    outputs: tuple[tuple[tuple[str, ...], Stored], ...]
    """In the order in which the tool writes them, each with its names."""


def _outputs(path: Path, bundle: Bundle) -> tuple[tuple[tuple[str, ...], Stored], ...]:
    structure = held(path)
    signature = structure.signatures[entrance(bundle, path.name, structure).signature]
    graph = structure.graphs[signature.graph]
    tensors = [graph.tensors[index] for index in graph.outputs]
    named = ((tuple(n for n, named in signature.outputs.items() if named is tensor), tensor) for tensor in tensors)
    return tuple(named)


def _result(blank: Result, file: _File, cases: Sequence[Case], device: Device, way: _Way, room: _Room) -> Result:
    first = _run(file, cases[0], way, tool.timing_options(), room)
    if why := tool.refusal(first.text, way.provider):
        raise NotRun(why)
    try:
        timed = tool.timing(first.text)
    except tool.Unreadable as reason:
        raise NotRun(f"benchmark_model ran, and {reason}") from None
    answers = [_answer(file, room)]
    if answers[0] is not None:
        for case in cases[1:]:
            _run(file, case, way, tool.once_options(), room)
            answers.append(_answer(file, room))
    judged = replace(_judged(file, cases, answers), runtime=_where(device))
    placed = tool.placement(first.text, way.provider)
    latency = _latency(timed, device, way, placed.nodes if placed else {})
    if judged.verdict == "failed":
        latency = Measurement("not run", reason="parity failed")
    return replace(proof.on_device(replace(blank, parity=judged, placement=placed), device), latency=latency)


def _where(device: Device) -> str:
    return f"{device.runtime} on {device.name}"


def _run(file: _File, case: Case, way: _Way, options: Sequence[str], room: _Room) -> Said:
    """Raises :class:`NotRun` where the program does not end well."""
    given = np.ascontiguousarray(
        fed(case.pixel_values, file.way.shape, file.way.dtype, file.bundle.rung.preprocessing), file.way.dtype
    )
    local = room.here / _INPUT
    local.write_bytes(given.tobytes())
    room.adb.push(local, f"{room.folder}/{_INPUT}")
    shape = ",".join(map(str, file.way.shape))
    words = [
        f"{room.folder}/{_PROGRAM}",
        f"--graph={room.folder}/{_GRAPH}",
        f"--signature_to_run_for={file.way.signature}",
        "--input_layer=input",
        f"--input_layer_shape={shape}",
        f"--input_layer_value_files=input:{room.folder}/{_INPUT}",
        f"--output_filepath={room.folder}/{_OUTPUT}",
        *way.options,
        *options,
    ]
    room.adb.shell(["rm", "-f", f"{room.folder}/{_OUTPUT}"])
    try:
        said = room.adb.run(words, LONGEST_S)
    except TookTooLong:
        raise NotRun(f"benchmark_model was not done in {LONGEST_S:.0f} s") from None
    if said.code:
        raise NotRun(f"benchmark_model {_how(said.code)}: {_last(said.text)}")
    return said


def _how(code: int) -> str:
    """A shell adds 128 to the signal that a program died of."""
    if code - 128 in _SIGNALS:
        return f"crashed ({_SIGNALS[code - 128]})"
    return f"failed (exit code {code})"


def _last(text: str) -> str:
    line = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it says nothing")
    return "".join(c for c in line if c.isprintable())[:200].rstrip(".")


def _answer(file: _File, room: _Room) -> dict[str, Tensor] | None:
    """What the device answered, by name as PyTorch does; None where the tool wrote nothing."""
    local = room.here / _OUTPUT
    local.unlink(missing_ok=True)
    if not room.adb.pull(f"{room.folder}/{_OUTPUT}", local):
        return None
    data, start = local.read_bytes(), 0
    raw: dict[str, Tensor] = {}
    for names, tensor in file.outputs:
        dtype = np.dtype(tensor.dtype)
        count = math.prod(tensor.shape)
        end = start + count * dtype.itemsize
        if end > len(data):
            raise NotRun(f"benchmark_model wrote {len(data):,} bytes of answers, and more were expected")
        raw |= dict.fromkeys(names, np.frombuffer(data[start:end], dtype).reshape(tensor.shape))
        start = end
    return collected(raw, file.bundle.rung)


def _judged(file: _File, cases: Sequence[Case], answers: Sequence[dict[str, Tensor] | None]) -> Parity:
    given = [answer for answer in answers if answer is not None]
    if len(given) < len(cases):
        return Parity("not run", reason="this benchmark_model writes no answers (--output_filepath); a newer one does")
    outputs = file.bundle.rung.outputs
    references = [case.reference for case in cases]
    return parity.verify(
        outputs,
        references,
        given,
        file.bundle.variant(file.precision),
        [case.name for case in cases],
        parity.contrast(outputs, references),
    )


def _latency(timed: tool.Timing, device: Device, way: _Way, nodes: dict[str, int]) -> Measurement:
    """The tool keeps no single times, so there is no p90 and no p99: what it tells instead is in ``facts``."""
    said = []
    if left := nodes.get("cpu"):
        said.append(f"{left} of {sum(nodes.values())} operations ran on the CPU")
    if timed.p95_ms > 1.5 * timed.median_ms:
        said.append(f"runs spread widely: p95 is {timed.p95_ms:,.1f} ms")
    threads = {} if way.threads is None else {"threads": str(way.threads)}
    spread = {"p5_ms": f"{timed.p5_ms:g}", "p95_ms": f"{timed.p95_ms:g}", "std_ms": f"{timed.std_ms:g}"}
    return Measurement(
        "passed",
        device=f"{device.name} ({bench.SOFTWARE_ADAPTER})" if device.software else device.name,
        runtime=device.runtime,
        provider=way.provider,
        load_ms=timed.load_ms,
        cold_ms=timed.cold_ms,
        median_ms=timed.median_ms,
        runs=timed.runs,
        warning="; ".join(said),
        facts={**device.facts, **threads, **spread},
    )
