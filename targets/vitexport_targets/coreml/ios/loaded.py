"""A model in coremltools' runner: loaded, asked, asked where it computes, unloaded.

Arrays go by file, each described by its type, shape, strides and place in it (``_TensorDescriptor``); times are those
that the app takes around Core ML's own calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from vitexport.errors import RuntimeUnavailable, first_line
from vitexport_targets.coreml.ios.runner import Runner

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors


def compiled(package: Path) -> Path:
    """A plain package (:mod:`.plain`), by this Mac's Core ML. Raises ``RuntimeUnavailable`` where it refuses."""
    from coremltools.models.utils import compile_model

    try:
        return Path(compile_model(str(package), destination_path=str(package.with_suffix(".mlmodelc"))))
    except Exception as error:  # bare exceptions, some of them C++'s
        raise RuntimeUnavailable(f"Core ML does not compile {package.name} on this Mac: {first_line(error)}") from error


@dataclass(frozen=True)
class Loaded:
    """On one set of compute units."""

    runner: Runner
    model: str
    """Its name there."""
    units: str
    load_ms: float

    @classmethod
    def of(cls, runner: Runner, model: Path, units: str, function: str | None) -> Loaded:
        """``model`` as Core ML compiled it. Raises ``RuntimeUnavailable`` where the device refuses it."""
        asked = {"modelID": str(uuid4()), "computeUnits": units.upper()}
        result, _ = runner.ask("Load", {**asked, "name": model.name, "functionName": function}, model)
        with _readable():
            return cls(runner, asked["modelID"], asked["computeUnits"], _milliseconds(result))

    def predict(self, given: Tensors) -> tuple[dict[str, Tensor], float]:
        """The answers, and the milliseconds that Core ML took for them. Raises ``RuntimeUnavailable``."""
        from coremltools.models.ml_program.experimental.remote_device import _TensorDescriptor

        path = self.runner.folder / "inputs.bin"
        with path.open("wb") as file:
            # An array's bytes are written in C order, beside the strides that it has.
            told = {n: _TensorDescriptor.from_array(np.ascontiguousarray(v), file).as_dict() for n, v in given.items()}
        result, held = self.runner.ask("Prediction", {**self._asked, "inputs": told}, path)
        with _readable():
            return {name: _array(each, held) for name, each in result["outputs"].items()}, _milliseconds(result)

    def plan(self) -> list[tuple[str, str, str]] | None:
        """Function, first output and device of each operation that ``MLComputePlan`` places.

        None where it does not tell, as before iOS 17.4, or at too great a cost.
        """
        from coremltools.models.ml_program.experimental.remote_device import ComputePlan

        try:
            result, _ = self.runner.ask("ComputePlan", {"modelID": self.model})
            with _readable():
                return [
                    (_function(path), path.components[-1].output_name, type(info.device_usage.preferred).__name__)
                    for path, info in ComputePlan.from_dict(result).infos.items()
                ]
        except RuntimeUnavailable:
            return None

    def unload(self) -> None:
        with suppress(RuntimeUnavailable):
            self.runner.ask("Unload", self._asked)

    @property
    def _asked(self) -> dict[str, Any]:
        return {"modelID": self.model, "computeUnits": self.units}


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RuntimeUnavailable(f"the device's answer is not readable: {first_line(error)}") from error


def _array(told: Mapping[str, Any], held: bytes) -> Tensor:
    """Raises ``ValueError`` where it would not lie in what is ``held``: coremltools looks at memory unasked."""
    from coremltools.models.ml_program.experimental.remote_device import _TensorDescriptor

    described = _TensorDescriptor.from_dict(dict(told))
    itemsize = np.dtype(_TensorDescriptor._to_numpy_dtype(described.data_type)).itemsize
    steps = zip(described.shape, described.strides, strict=True)
    reach = 1 + sum((size - 1) * stride for size, stride in steps)
    start = described.storage.offset
    if min(*described.shape, *described.strides, start + 1) < 1 or start + reach * itemsize > len(held):
        raise ValueError(f"an array of {described.shape} by {described.strides} in {len(held):,} bytes")
    return np.array(described.to_array(BytesIO(held)))


def _function(path: Any) -> str:
    return next((str(part.name) for part in path.components if type(part).__name__ == "Function"), "")


def _milliseconds(result: Mapping[str, Any]) -> float:
    return float(result["duration"]) / 1e6
