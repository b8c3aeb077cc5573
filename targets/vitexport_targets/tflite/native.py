"""A file in LiteRT on this host, through either of its interfaces: the sessions that prove it."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np

from vitexport.bench import cpu_name
from vitexport.contract import Bundle, Device, Placement, Run, Session
from vitexport.errors import BadRequest, LoweringFailed
from vitexport_targets._onnx_graph import first_line
from vitexport_targets.tflite.placement import read_placement
from vitexport_targets.tflite.quiet import quiet_at_exit, quietly
from vitexport_targets.tflite.signature import collected, fed, find
from vitexport_targets.tflite.trial import tried

if TYPE_CHECKING:
    from vitexport.contract import Tensor

Provider = Literal["interpreter", "compiled-model"]


def open_natively(bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
    """Load a variant. Raises ``LoweringFailed`` where LiteRT refuses the file."""
    if taps and provider != "interpreter":
        raise BadRequest("Only the interpreter keeps intermediate values; a compiled model has none to show.")
    path = bundle.path(bundle.variant(precision).files[0])
    tried(path)
    opened = InterpreterSession if provider == "interpreter" else CompiledSession
    try:
        with quietly():
            return opened(path, bundle, taps)
    except (RuntimeError, ValueError, OSError) as error:
        raise LoweringFailed(f"LiteRT refuses {path.name}: {first_line(error)}") from error


def _device(provider: str) -> Device:
    return Device(cpu_name(), f"LiteRT {version('ai-edge-litert')} ({provider}, XNNPACK)", provider)


class InterpreterSession(Session):
    """``tf.lite.Interpreter``'s successor, which mobile apps call; operations on XNNPACK where it has them."""

    def __init__(self, path: Path, bundle: Bundle, taps: tuple[str, ...] = ()) -> None:
        from ai_edge_litert.interpreter import Interpreter

        start = time.perf_counter()
        self._interpreter = Interpreter(str(path), experimental_preserve_all_tensors=bool(taps))
        self._signature = find(bundle, self._interpreter.get_signature_list())
        self._interpreter.allocate_tensors()  # which is when XNNPACK takes its part
        self._runner = self._interpreter.get_signature_runner(self._signature)
        self.load_ms = (time.perf_counter() - start) * 1000
        self.device = _device("interpreter")
        self.placement: Placement | None = None if taps else read_placement(self._interpreter)
        self._bundle, self._taps = bundle, taps
        ((self._input, self._about),) = self._runner.get_input_details().items()

    def run(self, pixel_values: Tensor) -> Run:
        rung = self._bundle.rung
        given = fed(pixel_values, tuple(self._about["shape"]), self._about["dtype"], rung.preprocessing)
        start = time.perf_counter()
        raw = self._runner(**{self._input: given})
        ms = (time.perf_counter() - start) * 1000
        return Run(collected(raw, rung) | self._tapped(), ms)

    def _tapped(self) -> dict[str, Tensor]:
        index = {detail["name"]: detail["index"] for detail in self._interpreter.get_tensor_details()}
        if unknown := set(self._taps) - index.keys():
            raise BadRequest(f"'{min(unknown)}' is no tensor of the file. Names are those of its first subgraph.")
        return {name: np.array(self._interpreter.get_tensor(index[name])) for name in self._taps}

    def __enter__(self) -> InterpreterSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._runner, self._interpreter


class CompiledSession(Session):
    """``CompiledModel``, LiteRT's newer interface: compiled for the CPU when it is loaded."""

    def __init__(self, path: Path, bundle: Bundle, taps: tuple[str, ...] = ()) -> None:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator

        start = time.perf_counter()
        self._model = CompiledModel.from_file(str(path), hardware_accel=HardwareAccelerator.CPU)
        self._signature = find(bundle, self._model.get_signature_list())
        ((name, self._about),) = self._model.get_input_tensor_details(self._signature).items()
        self._answers = self._model.get_output_tensor_details(self._signature)
        self._inputs = {name: self._model.create_input_buffer_by_name(self._signature, name)}
        self._outputs = {n: self._model.create_output_buffer_by_name(self._signature, n) for n in self._answers}
        self._inputs[name].write(np.zeros(self._about["shape"], self._about["dtype"]))  # it opens an environment, aloud
        quiet_at_exit()  # and closes it when the process ends
        self.load_ms = (time.perf_counter() - start) * 1000
        self.device = _device("compiled-model")
        self.placement: Placement | None = None
        self._bundle = bundle

    def run(self, pixel_values: Tensor) -> Run:
        rung = self._bundle.rung
        given = fed(pixel_values, tuple(self._about["shape"]), self._about["dtype"], rung.preprocessing)
        start = time.perf_counter()
        for buffer in self._inputs.values():
            buffer.write(given)
        self._model.run_by_name(self._signature, self._inputs, self._outputs)
        raw = {
            name: self._outputs[name]
            .read(int(np.prod(about["shape"])), np.dtype(about["dtype"]))
            .reshape(about["shape"])
            for name, about in self._answers.items()
        }
        ms = (time.perf_counter() - start) * 1000
        return Run(collected(raw, rung), ms)

    def __enter__(self) -> CompiledSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with quietly():  # LiteRT names each accelerator that it lets go
            self._model.close()
            del self._inputs, self._outputs, self._model
