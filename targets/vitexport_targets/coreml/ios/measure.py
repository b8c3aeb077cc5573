"""A bundle's packages on an attached device: parity on the golden photos, then latency, on each set of units."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from vitexport import proof
from vitexport.bundle import read_golden
from vitexport.contract import Attachment, Bundle, Device, Placement, Result, Run, Target
from vitexport.errors import RuntimeUnavailable
from vitexport_targets.coreml import inputs, names
from vitexport_targets.coreml.ios import devicectl, runner
from vitexport_targets.coreml.ios.plain import write_plain
from vitexport_targets.coreml.ios.runner import Loaded, Runner
from vitexport_targets.coreml.package import read

if TYPE_CHECKING:
    from vitexport.contract import Tensor
    from vitexport_targets.coreml.mil import Package

#: coremltools' names of what it can load a model for.
UNITS = ("cpu_only", "cpu_and_gpu", "cpu_and_ne", "all")

#: The runner's classes of devices -> what the report calls them.
_DEVICES = {"CPUDevice": "CPU", "GPUDevice": "GPU", "NeuralEngineDevice": "Neural Engine"}


def measured(target: Target, bundles: Sequence[Bundle], asked: Attachment) -> tuple[Result, ...]:
    """A result for each variant of ``bundles`` on each of :data:`UNITS`, under the device's own name.

    Raises ``MissingToolchain``: no Xcode, no device, no app. ``BadRequest``: which device, or no team. ``WorldFailed``:
    the device went away.
    """
    team = runner.checked(asked.team)
    one = devicectl.attached(asked.serial)
    device = devicectl.described(one)
    with runner.prepared(one, team) as app:
        return tuple(result for bundle in bundles for result in _of_bundle(target, bundle, device, app))


def _of_bundle(target: Target, bundle: Bundle, device: Device, app: Runner) -> Iterator[Result]:
    cases = read_golden(bundle)
    for variant in bundle.rung.variants:
        package = read(names.package(bundle, variant.precision))
        with tempfile.TemporaryDirectory(prefix="vitexport-ios-") as folder:
            room = _Room(bundle, package, write_plain(package.path, Path(folder) / package.path.name), device, app)
            for units in UNITS:
                blank = proof.blank_result(target, bundle, variant.precision, units)
                try:
                    with room.opened(units) as session:
                        result = _paced(proof.in_session(target, bundle, session, blank, cases).result, session)
                except RuntimeUnavailable as reason:
                    result = proof.not_run(blank, str(reason))
                runtime = f"{_runtime(device)} on {device.name}"
                yield replace(result, parity=replace(result.parity, runtime=runtime))


def _runtime(device: Device) -> str:
    return f"Core ML, {device.facts['os']}, driven by coremltools {version('coremltools')}"


@dataclass(frozen=True)
class _Room:
    """What is to be run, and where."""

    bundle: Bundle
    package: Package
    plain: Path
    """The same program, as the app can drive it."""
    device: Device
    app: Runner

    def opened(self, units: str) -> PhoneSession:
        """Raises ``RuntimeUnavailable`` where Core ML refuses it there, ``WorldFailed``."""
        function = names.function(self.package, self.bundle.rung.size)
        loaded = self.app.load(self.plain, units, function if len(self.package.functions) > 1 else None)
        tries = {} if loaded.tries == 1 else {"load": f"try {loaded.tries}: what came before it had compiled the model"}
        facts = {**self.device.facts, **tries}
        device = replace(self.device, runtime=_runtime(self.device), provider=units, facts=facts)
        placement = _placement(loaded, self.package, function, units)
        return PhoneSession(device, loaded.load_ms, placement, self.bundle, self.package, function, loaded)


@dataclass(eq=False)
class PhoneSession:
    """The contract's ``Session``: predictions there, with times by the device's clock."""

    device: Device
    load_ms: float
    placement: Placement | None
    bundle: Bundle
    package: Package
    function: str
    _loaded: Loaded
    apart_s: list[float] = field(default_factory=list)
    """From one prediction's start to its answer's arrival here."""

    def run(self, pixel_values: Tensor) -> Run:
        fed = inputs.feed(self.package, self.function, pixel_values, self.bundle.rung.preprocessing)
        # coremltools sends an array's bytes in C order and the strides that it had before.
        given = {name: np.ascontiguousarray(value) for name, value in fed.items()}
        start = time.perf_counter()
        answers, ms = self._loaded.predict(given)
        self.apart_s.append(time.perf_counter() - start)
        return Run({output.name: answers[output.name] for output in self.bundle.rung.outputs}, ms)

    def __enter__(self) -> PhoneSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loaded.unload()


def _placement(loaded: Loaded, package: Package, function: str, units: str) -> Placement | None:
    planned = loaded.plan()
    if planned is None:
        return None
    kinds = {o.outputs[0].name: o.name for o in package.functions[function].operations if o.outputs}
    ours = [(output, _DEVICES.get(where, where)) for named, output, where in planned if named in (function, "")]
    left = [kinds.get(output, output) for output, where in ours if where == "CPU" and units != "cpu_only"]
    return Placement(dict(Counter(where for _, where in ours)), tuple(left))


def _paced(result: Result, session: PhoneSession) -> Result:
    """Say how far apart the predictions were: a device that waits between them lowers its clock."""
    latency = result.latency
    if latency.verdict != "passed":
        return result
    apart = float(np.median(session.apart_s))
    said = f"predictions were {apart:.1f} s apart, each sent by file, so the device may not run at its full clock"
    warning = "; ".join(filter(None, (latency.warning, said)))
    return replace(result, latency=replace(latency, warning=warning))
