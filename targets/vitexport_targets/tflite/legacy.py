"""The runtime of years ago that devices still carry: tflite-runtime 2.14, TensorFlow Lite's last of that name.

It needs numpy < 2, hence an environment of its own, and is spoken to in JSON. What it refuses, dies of or computes
wrongly is its own limit: such a variant is not run there, and the reason says why.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport import host
from vitexport.contract import Bundle, Device, Placement, Run, Rung, Session
from vitexport.errors import BadRequest, RuntimeUnavailable
from vitexport_targets.tflite.sealing import facts
from vitexport_targets.tflite.signature import Entrance, collected, entrance, fed
from vitexport_targets.tflite.trial import held, tried

if TYPE_CHECKING:
    from vitexport.contract import Tensor

#: A Python interpreter that has tflite-runtime 2.14 and numpy < 2.
VARIABLE = "VITEXPORT_TFLITE_RUNTIME"

#: Where ``make setup`` puts one, in the source checkout.
_DEFAULT = Path(__file__).parents[3] / ".venv" / "legacy" / "bin" / "python"

_WORKER = Path(__file__).with_name("legacy_worker.py")

#: As for the first run of a file, see trial.py.
_LONGEST_S = 300.0


def open_in_legacy(bundle: Bundle, precision: str, taps: tuple[str, ...] = ()) -> Session:
    """Raises ``RuntimeUnavailable`` where there is no such environment, or where the old runtime refuses the file."""
    if taps:
        raise BadRequest("tflite-runtime shows no intermediate values here. Ask the interpreter for them.")
    path = bundle.path(bundle.variant(precision).files[0])
    way = entrance(bundle, path.name, held(path))
    tried(path)  # a file that today's runtime refuses is bad, not new
    return LegacySession(_Worker(interpreter(), path), bundle.rung, way)


def interpreter() -> Path:
    """The environment's Python. Raises ``RuntimeUnavailable`` with what to do."""
    named = os.environ.get(VARIABLE)
    found = Path(named) if named else _DEFAULT
    if os.access(found, os.X_OK):
        return found
    if named:
        raise RuntimeUnavailable(f"{VARIABLE} names '{named}', which is no Python interpreter")
    raise RuntimeUnavailable(
        "tflite-runtime 2.14 is not here: it needs an environment of its own (Linux, Python < 3.12, numpy < 2). "
        f"Run: make setup, or set {VARIABLE} to the Python of one"
    )


class _Worker:
    """A process of the old environment with one file loaded."""

    def __init__(self, python: Path, path: Path) -> None:
        self.name = "tflite-runtime"
        self._python, self._path = python, path
        # Variables of this environment would lead the other Python to this one's packages.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [python, _WORKER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.process_id = self._process.pid
        try:
            self.hello = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died; the answer, which is none, says of what
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        """Raises ``RuntimeUnavailable`` for everything but an answer."""
        assert self._process.stdout is not None
        late = threading.Timer(_LONGEST_S, self._process.kill)
        late.start()
        try:
            line = self._process.stdout.readline()
            in_time = late.is_alive()
        finally:
            late.cancel()  # this process would wait for it
        if not in_time:
            raise RuntimeUnavailable(f"{self.name} was not done in {_LONGEST_S:.0f} s")
        if not line:
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise RuntimeUnavailable(f"{self.name} crashes on it ({how})")
        try:
            answer: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise RuntimeUnavailable(f"'{self._python}' answers '{line.strip()[:80]}', which is no JSON") from None
        if "unavailable" in answer:
            raise RuntimeUnavailable(f"'{self._python}' cannot run tflite-runtime 2.14: {answer['unavailable']}")
        if "version" in answer:
            self.name = f"tflite-runtime {answer['version']}"
        if "refused" in answer:
            needs = facts(self._path.read_bytes()).get("min_runtime_version", "")
            claim = f"; the file says it needs TensorFlow {needs}'s" if needs else ""
            raise RuntimeUnavailable(f"{self.name} refuses it: {answer['refused'].partition('. ')[0]}{claim}")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class LegacySession(Session):
    """Without placement, which it does not tell."""

    def __init__(self, worker: _Worker, rung: Rung, way: Entrance) -> None:
        self._worker, self._rung, self._way = worker, rung, way
        self.load_ms = worker.hello["load_ms"]
        self.process_id = worker.process_id
        self.device = Device(host.cpu_name(), worker.name, "tflite-runtime", facts=host.facts())
        self.placement: Placement | None = None

    def run(self, pixel_values: Tensor) -> Run:
        given = fed(pixel_values, self._way.shape, self._way.dtype, self._rung.preprocessing)
        answer = self._worker.ask({"signature": self._way.signature, "inputs": {self._way.input: _packed(given)}})
        raw = {name: _unpacked(value) for name, value in answer["outputs"].items()}
        return Run(collected(raw, self._rung), answer["ms"])

    def __enter__(self) -> LegacySession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()


def _packed(value: Tensor) -> dict[str, Any]:
    return {"dtype": value.dtype.name, "shape": value.shape, "base64": base64.b64encode(value.tobytes()).decode()}


def _unpacked(value: dict[str, Any]) -> Tensor:
    return np.frombuffer(base64.b64decode(value["base64"]), value["dtype"]).reshape(value["shape"])
