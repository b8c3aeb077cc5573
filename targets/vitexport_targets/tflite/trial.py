"""A file's first run, in a process of its own: on a damaged file LiteRT may crash, and must not take this one along.

    python -m vitexport_targets.tflite.trial FILE

is that process. What is plainly wrong with a file is said before it, by :mod:`.structure`; what is left is in LiteRT's
operations: a convolution with a stride of zero, a gather beyond the end.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vitexport.errors import LoweringFailed
from vitexport_targets.tflite.flatbuffer import BadFile, printable
from vitexport_targets.tflite.structure import Structure, read

#: A trial of the smallest file takes 1 s, of ViT-B's 369 MB 14 s, on two cores that thirteen processes shared.
_LEAST_S = 60.0
_S_PER_BYTE = 1e-6

#: Attention over the 1,370 tokens of DINOv2-L is 120 MB. A file that asks for a hundred times as much, whatever its own
#: size, has a broken shape.
_LEAST_MEMORY = 16 << 30

#: ViT-B's 369 MB in both interfaces take 2.0 GiB of address space, five and a half times as much; each further size of
#: a ladder has its weights packed again.
_MEMORY_PER_BYTE = 16

_REFUSED = 4
_OUT_OF_MEMORY = 6

#: How LiteRT begins an error, what it says of its own source, of the operation, and of what failed because of that.
_ERROR = "ERROR: "
_PLACE = re.compile(r"^ERROR: (\[[^\]]*\] )?(\S+\.(cc|h):\d+:? )?")
_NODE = re.compile(r"Node number (\d+) \((.+?)\) failed")
_FOLLOWS = re.compile(
    r"\.? *(Node number \d+ \(|Failed to apply the default|Registration failed|Tensor \d+ (has invalid|is invalidly)"
    r"|Are you using|An older version|It's not supported).*$"
)


def most_memory(size: int) -> int:
    """Bytes of address space for the trial of a file of ``size`` bytes."""
    return _LEAST_MEMORY + _MEMORY_PER_BYTE * size


def longest_s(size: int) -> float:
    """Seconds for the trial of a file of ``size`` bytes."""
    return _LEAST_S + _S_PER_BYTE * size


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: its process's exit code, minus the signal that killed it, or None where it was stopped."""

    code: int | None
    said: str = ""


def held(path: Path) -> Structure:
    """What is in the file. Raises ``BadFile`` where it is damaged."""
    stat = path.stat()
    return _held(path, stat.st_size, stat.st_mtime_ns)


def tried(path: Path) -> None:
    """Raises ``LoweringFailed`` where LiteRT refuses the file, does not come to an end, or dies of it."""
    stat = path.stat()
    _tried(path, stat.st_size, stat.st_mtime_ns)


@cache
def _held(path: Path, size: int, changed: int) -> Structure:
    """Once for each state of a file, as is the trial."""
    structure = read(path.read_bytes(), path.name)
    for tensor in (tensor for graph in structure.graphs for tensor in graph.tensors):
        if tensor.bytes > most_memory(size):
            much = f"{tensor.bytes / 2**30:,.0f} GiB, and vitexport tries what needs up to {most_memory(size) >> 30}"
            raise BadFile(f"{path.name}: '{tensor.name}' is {tensor.dtype} {tensor.shape}, which is {much}")
    return structure


@cache
def _tried(path: Path, size: int, changed: int) -> None:
    structure, outcome = held(path), first_run(path)
    if outcome.code != 0:
        raise LoweringFailed(_sentence(path, outcome, structure.custom))


def first_run(path: Path) -> Outcome:
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(path)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=longest_s(path.stat().st_size),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(None)
    return Outcome(done.returncode, done.stderr)


def _sentence(path: Path, outcome: Outcome, custom: tuple[str, ...]) -> str:
    name, size, lines = path.name, path.stat().st_size, outcome.said.splitlines()
    longest, most = f"{longest_s(size):.0f} s", f"{most_memory(size) >> 30} GiB"
    if outcome.code is None:
        return f"LiteRT was not done with {name} in {longest}: it is damaged, or too large. Export it again."
    if outcome.code == _OUT_OF_MEMORY or any("bad_alloc" in line for line in lines):
        return f"LiteRT asks for more than {most} for {name}: it is damaged, or too large. Export it again."
    if outcome.code < 0:
        how = signal.Signals(-outcome.code).name
        return f"LiteRT crashes on {name} ({how}): it is damaged, or LiteRT has a bug. Export it again."
    if any("unresolved custom op" in line for line in lines):
        named = ", ".join(f"'{printable(each)}'" for each in custom)
        return f"{name} needs {named}, which LiteRT does not have: an app would have to bring it. Export it again."
    reason = printable(_reason(lines)) or f"it gives no reason, as where {most} of memory do not suffice"
    return f"LiteRT refuses {name} ({reason}). Export it again."


def _reason(lines: list[str]) -> str:
    """The first error that says something, and in which operation: the last is of what did not work because of it."""
    errors = [line for line in lines if line.startswith(_ERROR)]
    said = (_FOLLOWS.sub("", _PLACE.sub("", line)).strip().rstrip(".") for line in errors)
    node = next((found for line in errors if (found := _NODE.search(line))), None)
    where = f"operation {node[1]}, {node[2]}" if node else ""
    return ": ".join(filter(None, (where, next(filter(None, said), "" if not node else "it cannot be prepared"))))


# ------------------------------------------------------------------------------------------- in the process of its own


def attempt(path: str) -> None:
    """What sessions do with a file, in both interfaces, on each signature. Raises what LiteRT raises, or crashes."""
    import numpy as np
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        about = runner.get_input_details()
        for fill in (0, 1):
            runner(**{key: np.full(detail["shape"], fill, detail["dtype"]) for key, detail in about.items()})
    model = CompiledModel.from_file(path, hardware_accel=HardwareAccelerator.CPU)
    for name in model.get_signature_list():
        about, answers = model.get_input_tensor_details(name), model.get_output_tensor_details(name)
        inputs = {key: model.create_input_buffer_by_name(name, key) for key in about}
        outputs = {key: model.create_output_buffer_by_name(name, key) for key in answers}
        for fill in (0, 1):
            for key, detail in about.items():
                inputs[key].write(np.full(detail["shape"], fill, detail["dtype"]))
            model.run_by_name(name, inputs, outputs)
        for key, detail in answers.items():
            outputs[key].read(int(np.prod(detail["shape"])), np.dtype(detail["dtype"]))


def main(path: str) -> int:
    if sys.platform == "linux":  # elsewhere the limit is not kept, or cannot be set
        import resource

        most, (_, hard) = most_memory(Path(path).stat().st_size), resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        attempt(path)
    except MemoryError:
        return _OUT_OF_MEMORY
    except Exception as error:  # whatever LiteRT and its bindings raise is a refusal
        print(f"{_ERROR}{error}", file=sys.stderr)
        return _REFUSED
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
