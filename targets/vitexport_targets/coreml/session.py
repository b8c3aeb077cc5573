"""A package in the MIL evaluator: its answers, and the gates that they must pass."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from vitexport import host
from vitexport.contract import Bundle, Case, Device, Gate, Parity, Placement, Run
from vitexport.errors import BadRequest
from vitexport_targets.coreml import gates, inputs, labels, names
from vitexport_targets.coreml.compression import RECIPES
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.indicators import Indicators
from vitexport_targets.coreml.mil import Package
from vitexport_targets.coreml.package import read
from vitexport_targets.coreml.packed import compare

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors

#: What the report says of a verdict that was reached without Core ML.
RUNTIME = f"MIL evaluator ({platform.system()}), from the saved package"
NEEDS = "macOS or iOS"


def open_in_evaluator(bundle: Bundle, precision: str, taps: tuple[str, ...] = ()) -> EvaluatorSession:
    """Load a variant, and the float32 package that it is held to. Raises ``RuntimeUnavailable``, ``BadPackage``."""
    start = time.perf_counter()
    package = read(names.package(bundle, precision))
    function = names.function(package, bundle.rung.size)
    evaluator = Evaluator(package, function, arithmetic="exact" if precision == "fp32" else "fp16")
    load_ms = (time.perf_counter() - start) * 1000
    made = {output.name: output.type.dtype for step in evaluator.operations() for output in step.outputs}
    unknown = set(taps) - made.keys()
    if unknown:
        raise BadRequest(f"'{min(unknown)}' is no value of {package.path.name}. Names are those of its MIL program.")
    device = Device(host.cpu_name(), RUNTIME, "evaluator", needs=NEEDS)
    halves = frozenset(name for name, dtype in made.items() if dtype == "float16")
    return EvaluatorSession(device, load_ms, bundle, precision, package, function, evaluator, halves, taps)


@dataclass(eq=False)
class EvaluatorSession:
    """The contract's ``Session`` and ``Gated``."""

    device: Device
    load_ms: float
    bundle: Bundle
    precision: str
    package: Package
    function: str
    evaluator: Evaluator
    halves: frozenset[str]
    """Names of the values that are declared float16."""
    taps: tuple[str, ...] = ()
    placement: Placement | None = None
    _largest: dict[str, float] = field(default_factory=dict)
    """|value| at most, of every float16 value that was made, over all pictures."""
    _latest: dict[str, Tensor] = field(default_factory=dict)

    def run(self, pixel_values: Tensor) -> Run:
        tapped: dict[str, Tensor] = {}

        def watch(name: str, value: Tensor) -> None:
            if name in self.halves and value.size:
                self._largest[name] = float(
                    np.maximum(self._largest.get(name, 0.0), np.max(np.abs(value)))
                )  # NaN stays
            if name in self.taps:
                tapped[name] = value

        fed = inputs.feed(self.package, self.function, pixel_values, self.bundle.rung.preprocessing)
        start = time.perf_counter()
        self._latest = self.evaluator.run(fed, watch)
        ms = (time.perf_counter() - start) * 1000
        return Run({o.name: self._latest[o.name] for o in self.bundle.rung.outputs} | tapped, ms)

    def gates(self, cases: Sequence[Case], answers: Sequence[Tensors], judged: Parity) -> tuple[Gate, ...]:
        """A to D (see :mod:`.gates`), the label where there is one, and coremltools' opinion of the types."""
        if judged.snr_db is None:  # malformed answers: there is nothing to compare
            return ()
        outputs = self.bundle.rung.outputs
        further = [gates.retyped(self.package)]
        if labels.LABEL in self._latest:
            further.insert(0, gates.labelled(self._latest, outputs[0]))
        if before := self.package.metadata.get(names.layout_key(self.bundle.rung.size)):
            after = Indicators.of(self.package.functions[self.function])
            further.append(gates.laid_out(Indicators.parse(before), after))
        if self.precision == "fp32":
            return (gates.first_link(judged), *further)
        twin = read(names.twin(self.bundle, self.precision))
        references = [case.reference for case in cases]
        tolerance = float(twin.metadata[names.tolerance_key(self.bundle.rung.size)])
        return (
            gates.from_pytorch(outputs, self._exact(twin, cases), references, tolerance),
            *self._same_network(twin, cases),
            gates.arithmetic(judged, outputs, cases, answers),
            gates.headroom(self._largest),
            *further,
        )

    def __enter__(self) -> EvaluatorSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._largest.clear()
        self._latest.clear()

    def _same_network(self, twin: Package, cases: Sequence[Case]) -> list[Gate]:
        """That this package is the float32 one in fewer bits."""
        if self.precision not in RECIPES:
            return [gates.from_twin(self.bundle.rung.outputs, *self._graphs(twin, [cases[0], cases[-1]]))]
        found = compare(self.package, twin, self.function)
        recorded = self.package.metadata.get(names.unpacked_key(self.bundle.rung.size), "")
        return [
            gates.same_operations(found),
            gates.packed_weights(found, RECIPES[self.precision].bits),
            gates.unpacked(self.package, self.function, recorded),
        ]

    def _exact(self, package: Package, cases: Sequence[Case]) -> list[Tensors]:
        evaluator = Evaluator(package, self.function)
        how = self.bundle.rung.preprocessing
        fed = (inputs.feed(package, self.function, case.pixel_values, how) for case in cases)
        return [self._outputs(evaluator.run(each)) for each in fed]

    def _graphs(self, twin: Package, cases: Sequence[Case]) -> tuple[list[Tensors], list[Tensors]]:
        """The variant and its twin on the same float16 constants, both in exact arithmetic."""
        return self._exact(self.package, cases), self._exact(gates.rounded_as(self.package, twin), cases)

    def _outputs(self, answer: Tensors) -> Tensors:
        return {output.name: answer[output.name] for output in self.bundle.rung.outputs}
