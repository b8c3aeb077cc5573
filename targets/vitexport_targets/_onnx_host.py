"""ONNX Runtime on this host: the session that proves an ONNX file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from vitexport import host
from vitexport.contract import INPUT_NAME, Device, Placement, Run
from vitexport.errors import LoweringFailed, RuntimeUnavailable, first_line
from vitexport_targets._onnx_graph import with_taps

if TYPE_CHECKING:
    from vitexport.contract import Tensor

#: By our name, those that compute on this machine; a build of ONNX Runtime may have others (Azure).
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}


@dataclass(eq=False)
class HostSession:
    """An ``onnxruntime.InferenceSession`` behind the contract's ``Session``."""

    device: Device
    load_ms: float
    placement: Placement | None
    _session: Any
    resident: Literal[True] = True

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


def further_providers() -> tuple[str, ...]:
    """What this build of ONNX Runtime can compute on beside the CPU."""
    import onnxruntime

    here = set(onnxruntime.get_available_providers())
    return tuple(name for name, known in PROVIDERS.items() if known in here and name != "cpu")


def open_on_host(path: Path, provider: str, taps: tuple[str, ...] = (), threads: int | None = None) -> HostSession:
    """Load an ONNX file in ONNX Runtime, with its own choice of threads where none is given.

    Raises ``LoweringFailed`` where ONNX Runtime refuses the file, ``RuntimeUnavailable`` where the provider does not
    start.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about unused initialisers are not the user's business
    options.intra_op_num_threads = threads or 0
    start = time.perf_counter()
    model: str | bytes = with_taps(path, taps).SerializeToString() if taps else str(path)
    wanted = PROVIDERS[provider]
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[wanted])
    except Exception as error:  # onnxruntime's exceptions have no class in common
        raise LoweringFailed(f"ONNX Runtime refuses {path.name}: {first_line(error)}.") from error
    load_ms = (time.perf_counter() - start) * 1000
    if wanted not in session.get_providers():  # it goes on with the CPU, and a CPU's figures are not the provider's
        raise RuntimeUnavailable(f"ONNX Runtime's {wanted} does not start here (a driver or library is missing)")
    name = host.cpu_name() if provider == "cpu" else f"{provider} of a machine with {host.cpu_name()}"
    facts = host.facts() | ({"threads": str(threads)} if threads else {})
    device = Device(name, f"onnxruntime {onnxruntime.__version__}", provider, facts=facts)
    return HostSession(device, load_ms, None, session)
