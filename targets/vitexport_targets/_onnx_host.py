"""ONNX Runtime on this host: the session that proves an ONNX file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vitexport.bench import cpu_name
from vitexport.contract import INPUT_NAME, Device, Placement, Run
from vitexport.errors import LoweringFailed
from vitexport_targets._onnx_graph import first_line, with_taps

if TYPE_CHECKING:
    from vitexport.contract import Tensor

PROVIDERS = {"cpu": "CPUExecutionProvider"}


@dataclass(eq=False)
class HostSession:
    """An ``onnxruntime.InferenceSession`` behind the contract's ``Session``."""

    device: Device
    load_ms: float
    placement: Placement | None
    _session: Any

    def run(self, pixel_values: Tensor) -> Run:
        start = time.perf_counter()
        values = self._session.run(None, {INPUT_NAME: pixel_values})
        ms = (time.perf_counter() - start) * 1000
        return Run({o.name: v for o, v in zip(self._session.get_outputs(), values, strict=True)}, ms)

    def __enter__(self) -> HostSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None


def open_on_host(path: Path, provider: str, taps: tuple[str, ...] = ()) -> HostSession:
    """Load an ONNX file in ONNX Runtime's CPU provider, with its own choice of threads.

    Raises ``LoweringFailed`` where ONNX Runtime refuses the file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about unused initialisers are not the user's business
    start = time.perf_counter()
    model: str | bytes = with_taps(path, taps).SerializeToString() if taps else str(path)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[PROVIDERS[provider]])
    except Exception as error:  # onnxruntime's exceptions have no class in common
        raise LoweringFailed(f"ONNX Runtime refuses {path.name}: {first_line(error)}") from error
    load_ms = (time.perf_counter() - start) * 1000
    device = Device(cpu_name(), f"onnxruntime {onnxruntime.__version__}", provider)
    return HostSession(device, load_ms, None, session)
