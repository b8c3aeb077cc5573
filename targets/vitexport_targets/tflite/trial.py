"""A file's first run, in a process of its own: on a damaged file LiteRT may crash, and must not take this one along.

Its readers follow offsets in the file where they lead; a flipped bit can lead them out of memory.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

from vitexport.errors import LoweringFailed

#: Loading takes 0.3 s, and an inference of the largest preset 0.4 s on one thread of a quiet machine.
_LONGEST_S = 300.0

#: Both interfaces load it; the interpreter answers zeros once at each signature.
_TRIAL = """
import sys
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.interpreter import Interpreter
try:
    interpreter = Interpreter(sys.argv[1])
    interpreter.allocate_tensors()
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        about = runner.get_input_details()
        runner(**{key: np.zeros(detail["shape"], detail["dtype"]) for key, detail in about.items()})
    CompiledModel.from_file(sys.argv[1], hardware_accel=HardwareAccelerator.CPU)
except Exception as error:
    print((str(error) or type(error).__name__).strip().splitlines()[0], file=sys.stderr)
    print("refused", flush=True)
"""


def tried(path: Path) -> None:
    """Raises ``LoweringFailed`` where LiteRT refuses the file, or dies of it."""
    stat = path.stat()
    _tried(path, stat.st_size, stat.st_mtime_ns)


@cache
def _tried(path: Path, size: int, changed: int) -> None:
    """Once for each state of a file."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, str(path)], capture_output=True, text=True, timeout=_LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoweringFailed(f"LiteRT was not done with {path.name} in {_LONGEST_S:.0f} s.") from None
    if done.returncode < 0:
        how = signal.Signals(-done.returncode).name
        raise LoweringFailed(
            f"LiteRT crashes on {path.name} ({how}): it is damaged, or LiteRT has a bug. Export it again."
        )
    if "refused" in done.stdout or done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))]
        raise LoweringFailed(f"LiteRT refuses {path.name}: {said[-1] if said else 'it gives no reason'}")
