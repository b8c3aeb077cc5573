"""The old runtime's side of the conversation: runs in its own environment, with nothing of ours to import.

``python legacy_worker.py model.tflite`` speaks lines of JSON: first what it is, then, for each ``{"signature",
"inputs"}``, what the file makes of them. Arrays are ``{"dtype", "shape", "base64"}``. The end is a line that says why:
``unavailable`` or ``refused``.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any


def main(path: str) -> None:
    try:
        import numpy

        if int(numpy.__version__.split(".")[0]) >= 2:  # with which it is imported, and fails at the first file
            say(unavailable=f"it has numpy {numpy.__version__}, and tflite-runtime needs numpy < 2")
            return
        import tflite_runtime
    except ImportError as error:
        say(unavailable=str(error))
        return
    converse(path, tflite_runtime.__version__)


def converse(path: str, version: str) -> None:
    from tflite_runtime.interpreter import Interpreter

    try:
        start = time.perf_counter()
        interpreter = Interpreter(path)
        interpreter.allocate_tensors()
        runners = {name: interpreter.get_signature_runner(name) for name in interpreter.get_signature_list()}
        load_ms = (time.perf_counter() - start) * 1000
    except (RuntimeError, ValueError) as error:
        say(version=version, refused=reason(error))
        return
    say(version=version, load_ms=load_ms)
    for line in sys.stdin:
        asked = json.loads(line)
        inputs = {name: unpacked(value) for name, value in asked["inputs"].items()}
        try:
            start = time.perf_counter()
            outputs = runners[asked["signature"]](**inputs)
            ms = (time.perf_counter() - start) * 1000
        except (RuntimeError, ValueError) as error:
            say(refused=reason(error))
            return
        say(ms=ms, outputs={name: packed(value) for name, value in outputs.items()})


def reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def packed(value: Any) -> dict[str, Any]:
    return {
        "dtype": value.dtype.name,
        "shape": list(value.shape),
        "base64": base64.b64encode(value.tobytes()).decode(),
    }


def unpacked(value: dict[str, Any]) -> Any:
    import numpy

    return numpy.frombuffer(base64.b64decode(value["base64"]), value["dtype"]).reshape(value["shape"])


def say(**answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
