"""A file in LiteRT on this host, through either of its interfaces: the sessions that prove it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitexport import host
from vitexport.contract import Bundle, Device, Placement, Run, Rung, Session, Value
from vitexport.errors import BadRequest, LoweringFailed, first_line
from vitexport_targets.tflite.flatbuffer import printable
from vitexport_targets.tflite.placement import read_placement
from vitexport_targets.tflite.quiet import quiet_at_exit, quietly
from vitexport_targets.tflite.signature import Entrance, collected, entrance, fed
from vitexport_targets.tflite.trial import held, tried

if TYPE_CHECKING:
    from vitexport.contract import Tensor

#: Types of tensors that stand for real numbers, whether or not they are scaled.
_REALS = ("float32", "int8", "int16")

Provider = Literal["interpreter", "compiled-model"]


def open_natively(
    bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = (), threads: int | None = None
) -> Session:
    """Load a variant, with LiteRT's own choice of threads where none is given. Raises ``LoweringFailed`` where LiteRT
    refuses the file."""
    if taps and provider != "interpreter":
        raise BadRequest("Only the interpreter keeps intermediate values; a compiled model has none to show.")
    path = bundle.path(bundle.variant(precision).files[0])
    way = entrance(bundle, path.name, held(path))
    tried(path)
    opened = InterpreterSession if provider == "interpreter" else CompiledSession
    with quietly(), _refusals(path.name):
        return opened(path, bundle.rung, way, taps, threads)


def values(bundle: Bundle, precision: str) -> dict[str, Value]:
    """What a variant computes at the bundle's size; ai-edge-quantizer keeps names, of what becomes an integer too."""
    path = bundle.path(bundle.variant(precision).files[0])
    structure = held(path)
    graph = structure.graphs[structure.signatures[entrance(bundle, path.name, structure).signature].graph]
    made = [graph.tensors[index] for index in graph.computed if index not in graph.outputs]
    twice = {name for name, count in Counter(tensor.name for tensor in graph.tensors).items() if count > 1}
    return {t.name: Value(t.name, t.shape) for t in made if t.dtype in _REALS and t.name not in twice}


@contextmanager
def _refusals(file: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        said = printable(first_line(error))
        raise LoweringFailed(f"LiteRT refuses {file} ({said}). Export it again.") from error


def _device(provider: str, threads: int | None, kernels: str = "XNNPACK") -> Device:
    facts = host.facts() | ({"threads": str(threads)} if threads else {})
    return Device(host.cpu_name(), f"LiteRT {version('ai-edge-litert')} ({provider}, {kernels})", provider, facts=facts)


def _real(value: Tensor, stored: dict[str, Any]) -> Tensor:
    """What a tensor stands for, float32; LiteRT's activations have one scale each."""
    if value.dtype.kind != "i" or not stored["scales"].size:
        return np.array(value)
    real: Tensor = (value.astype(np.float32) - stored["zero_points"][0]) * stored["scales"][0]
    return real.astype(np.float32)


class InterpreterSession(Session):
    """``tf.lite.Interpreter``'s successor, which mobile apps call; operations on XNNPACK where it has them.

    XNNPACK shows nothing of what it computes: where values are tapped, all is done by LiteRT's own kernels.
    """

    resident: Literal[True] = True

    def __init__(
        self, path: Path, rung: Rung, way: Entrance, taps: tuple[str, ...] = (), threads: int | None = None
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

        start = time.perf_counter()
        self._interpreter = Interpreter(str(path), num_threads=threads, experimental_preserve_all_tensors=bool(taps))
        self._interpreter.allocate_tensors()  # which is when XNNPACK takes its part
        self._runner = self._interpreter.get_signature_runner(way.signature)
        self.load_ms = (time.perf_counter() - start) * 1000
        self.device = _device("interpreter", threads, "its own kernels" if taps else "XNNPACK")
        self.placement: Placement | None = None if taps else read_placement(self._interpreter)
        self._file, self._rung, self._way, self._taps = path.name, rung, way, taps
        self._graph = held(path).signatures[way.signature].graph

    def run(self, pixel_values: Tensor) -> Run:
        given = fed(pixel_values, self._way.shape, self._way.dtype, self._rung.preprocessing)
        with _refusals(self._file):
            start = time.perf_counter()
            raw = self._runner(**{self._way.input: given})
            ms = (time.perf_counter() - start) * 1000
        return Run(collected(raw, self._rung) | self._tapped(), ms)

    def _tapped(self) -> dict[str, Tensor]:
        if not self._taps:
            return {}
        details = {detail["name"]: detail for detail in self._interpreter.get_tensor_details(self._graph)}
        if unknown := set(self._taps) - details.keys():
            raise BadRequest(f"'{min(unknown)}' is no tensor of the file. Names are those of its subgraph.")
        made = {name: self._interpreter.get_tensor(details[name]["index"], self._graph) for name in self._taps}
        return {name: _real(value, details[name]["quantization_parameters"]) for name, value in made.items()}

    def __enter__(self) -> InterpreterSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._runner, self._interpreter


class CompiledSession(Session):
    """``CompiledModel``, LiteRT's newer interface: compiled for the CPU when it is loaded."""

    resident: Literal[True] = True

    def __init__(
        self, path: Path, rung: Rung, way: Entrance, taps: tuple[str, ...] = (), threads: int | None = None
    ) -> None:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.options import CpuOptions, Options

        asked = Options(HardwareAccelerator.CPU, cpu_options=CpuOptions(num_threads=threads or 0))
        start = time.perf_counter()
        self._model = CompiledModel.from_file(str(path), options=asked)
        self._answers = self._model.get_output_tensor_details(way.signature)
        self._inputs = {way.input: self._model.create_input_buffer_by_name(way.signature, way.input)}
        self._outputs = {n: self._model.create_output_buffer_by_name(way.signature, n) for n in self._answers}
        self._inputs[way.input].write(np.zeros(way.shape, way.dtype))  # it opens an environment, aloud
        quiet_at_exit()  # and closes it when the process ends
        self.load_ms = (time.perf_counter() - start) * 1000
        self.device = _device("compiled-model", threads)
        self.placement: Placement | None = None
        self._file, self._rung, self._way = path.name, rung, way

    def run(self, pixel_values: Tensor) -> Run:
        given = fed(pixel_values, self._way.shape, self._way.dtype, self._rung.preprocessing)
        with _refusals(self._file):
            start = time.perf_counter()
            for buffer in self._inputs.values():
                buffer.write(given)
            self._model.run_by_name(self._way.signature, self._inputs, self._outputs)
            raw = {
                name: self._outputs[name]
                .read(int(np.prod(about["shape"])), np.dtype(about["dtype"]))
                .reshape(about["shape"])
                for name, about in self._answers.items()
            }
            ms = (time.perf_counter() - start) * 1000
        return Run(collected(raw, self._rung), ms)

    def __enter__(self) -> CompiledSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with quietly():  # LiteRT names each accelerator that it lets go
            self._model.close()
            del self._inputs, self._outputs, self._model
