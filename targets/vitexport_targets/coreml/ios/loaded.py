"""A model in coremltools' runner: loaded, asked, asked where it computes, unloaded.

Arrays go by file, each described by its type, shape, strides and place in it (``_TensorDescriptor``); times are those
that the app takes around Core ML's own calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from vitexport.errors import RuntimeUnavailable
from vitexport_targets._onnx_graph import first_line
from vitexport_targets.coreml.ios.runner import Refused, Runner

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
        return cls(runner, asked["modelID"], asked["computeUnits"], _milliseconds(result))

    def predict(self, given: Tensors) -> tuple[dict[str, Tensor], float]:
        """The answers, and the milliseconds that Core ML took for them. Raises ``RuntimeUnavailable``."""
        from coremltools.models.ml_program.experimental.remote_device import _TensorDescriptor

        path = self.runner.folder / "inputs.bin"
        with path.open("wb") as file:
            # An array's bytes are written in C order, beside the strides that it has.
            told = {n: _TensorDescriptor.from_array(np.ascontiguousarray(v), file).as_dict() for n, v in given.items()}
        result, answers = self.runner.ask("Prediction", {**self._asked, "inputs": told}, path)
        if answers is None:
            raise RuntimeUnavailable("the device answered without answers")
        with answers.open("rb") as file:
            return _arrays(result.get("outputs", {}), file), _milliseconds(result)

    def plan(self) -> list[tuple[str, str, str]] | None:
        """Function, first output and device of each operation that ``MLComputePlan`` places; None before iOS 17.4."""
        from coremltools.models.ml_program.experimental.remote_device import ComputePlan

        try:
            result, _ = self.runner.ask("ComputePlan", {"modelID": self.model})
        except Refused:
            return None
        plan = ComputePlan.from_dict(result)
        return [
            (_function(path), path.components[-1].output_name, type(info.device_usage.preferred).__name__)
            for path, info in plan.infos.items()
        ]

    def unload(self) -> None:
        with suppress(RuntimeUnavailable):
            self.runner.ask("Unload", self._asked)

    @property
    def _asked(self) -> dict[str, Any]:
        return {"modelID": self.model, "computeUnits": self.units}


def _arrays(told: Mapping[str, Any], file: Any) -> dict[str, Tensor]:
    from coremltools.models.ml_program.experimental.remote_device import _TensorDescriptor

    return {name: np.array(_TensorDescriptor.from_dict(each).to_array(file)) for name, each in told.items()}


def _function(path: Any) -> str:
    return next((str(part.name) for part in path.components if type(part).__name__ == "Function"), "")


def _milliseconds(result: Mapping[str, Any]) -> float:
    return float(result["duration"]) / 1e6
