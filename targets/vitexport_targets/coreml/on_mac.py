"""Core ML itself, on a Mac: each compute unit by itself, and which of them took how many operations.

Real code that this project's own machines cannot run: they have no Mac. What it reports replaces the evaluator's
figures and is marked as the device's own.
"""

from __future__ import annotations

import platform
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vitexport.contract import Bundle, Device, Placement, Run
from vitexport.errors import BadRequest, RuntimeUnavailable
from vitexport.preprocess import pixels
from vitexport_targets.coreml import names
from vitexport_targets.coreml.apple import coremltools
from vitexport_targets.coreml.package import read

if TYPE_CHECKING:
    from vitexport.contract import Tensor

#: coremltools' classes of devices, in a plan -> what the report calls them.
_DEVICES = {"MLCPUComputeDevice": "CPU", "MLGPUComputeDevice": "GPU", "MLNeuralEngineComputeDevice": "Neural Engine"}


def open_in_core_ml(bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> CoreMlSession:
    """Compile and load a variant for one set of compute units. Raises ``RuntimeUnavailable`` where there is no Mac."""
    if sys.platform != "darwin":
        raise RuntimeUnavailable(f"{provider} needs macOS")
    if taps:
        raise BadRequest("Core ML does not return intermediates. Ask for them on Linux, where the evaluator runs.")
    package = read(names.package(bundle, precision))
    function = names.function(package, bundle.rung.size)
    ct = coremltools()
    start = time.perf_counter()
    try:
        model = ct.models.MLModel(
            str(package.path),
            compute_units=ct.ComputeUnit[provider.upper()],
            function_name=function if len(package.functions) > 1 else None,
        )
    except Exception as error:  # Core ML's errors come as bare exceptions
        raise RuntimeUnavailable(f"Core ML cannot load {package.path.name}: {error}") from error
    load_ms = (time.perf_counter() - start) * 1000
    (feature,) = package.interfaces[function].inputs
    system = f"Core ML, macOS {platform.mac_ver()[0]}"
    device = Device(platform.processor() or platform.machine(), system, provider)
    compiled = Path(model.get_compiled_model_path())
    placement = _placement(compiled, function, ct.ComputeUnit[provider.upper()])
    return CoreMlSession(device, load_ms, placement, bundle, feature, model)


@dataclass(eq=False)
class CoreMlSession:
    """The contract's ``Session``: ``MLModel.predict``."""

    device: Device
    load_ms: float
    placement: Placement | None
    bundle: Bundle
    feature: Any
    _model: Any

    def run(self, pixel_values: Tensor) -> Run:
        how = self.bundle.rung.preprocessing
        given: Any = pixel_values
        if self.feature.kind == "image":
            from PIL import Image

            given = Image.fromarray(pixels(pixel_values, how))
        start = time.perf_counter()
        answer = self._model.predict({self.feature.name: given})
        ms = (time.perf_counter() - start) * 1000
        return Run({o.name: answer[o.name] for o in self.bundle.rung.outputs}, ms)

    def __enter__(self) -> CoreMlSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = None


def _placement(compiled: Path, function: str, units: Any) -> Placement:
    """How many operations of a function each device is to take, by ``MLComputePlan`` (macOS 14.4)."""
    from coremltools.models.compute_plan import MLComputePlan

    plan = MLComputePlan.load_from_path(path=str(compiled), compute_units=units)
    operations = plan.model_structure.program.functions[function].block.operations
    usage = plan.get_compute_device_usage_for_mlprogram_operation
    return placed([(operation, usage(operation)) for operation in operations], accelerated=units.name != "CPU_ONLY")


def placed(planned: Iterable[tuple[Any, Any]], *, accelerated: bool) -> Placement:
    """From operations with the devices that a plan names for them; those that an accelerated session leaves to the CPU
    are its fallback."""
    taken: Counter[str] = Counter()
    left: list[str] = []
    for operation, usage in planned:
        if usage is None:  # constants are placed nowhere
            continue
        where = type(usage.preferred_compute_device).__name__
        taken[_DEVICES.get(where, where)] += 1
        if accelerated and where == "MLCPUComputeDevice":
            left.append(f"{operation.operator_name} ({operation.outputs[0].name})")
    return Placement(dict(taken), tuple(left))
