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
from vitexport_targets.coreml.ios import devicectl
from vitexport_targets.coreml.ios.loaded import Loaded, compiled
from vitexport_targets.coreml.ios.plain import write_plain
from vitexport_targets.coreml.ios.runner import Runner, checked, installed
from vitexport_targets.coreml.package import read

if TYPE_CHECKING:
    from vitexport.contract import Tensor
    from vitexport_targets.coreml.mil import Package

#: coremltools' names of what it can load a model for.
UNITS = ("cpu_only", "cpu_and_gpu", "cpu_and_ne", "all")

#: What is not measured of the package that ships.
_SENT_AS = "arrays: the picture as what the program gets, no label"

#: The runner's classes of devices -> what the report calls them.
_DEVICES = {"CPUDevice": "CPU", "GPUDevice": "GPU", "NeuralEngineDevice": "Neural Engine"}


def measured(target: Target, bundles: Sequence[Bundle], asked: Attachment) -> tuple[Result, ...]:
    """A result for each variant of ``bundles`` on each of :data:`UNITS`, under the device's own name.

    Raises ``MissingToolchain``: no Xcode, no device, no app. ``BadRequest``: which device, or no team. ``WorldFailed``:
    the device went away.
    """
    devicectl.expect_xcode()
    team = checked(asked.team)
    one = devicectl.attached(asked.serial)
    device = devicectl.described(one)
    with installed(one, team) as runner:
        return tuple(result for bundle in bundles for result in _of_bundle(target, bundle, device, runner))


def _of_bundle(target: Target, bundle: Bundle, device: Device, runner: Runner) -> Iterator[Result]:
    cases = read_golden(bundle)
    for variant in bundle.rung.variants:
        package = read(names.package(bundle, variant.precision))
        blanks = [proof.blank_result(target, bundle, variant.precision, units) for units in UNITS]
        with tempfile.TemporaryDirectory(prefix="vitexport-ios-") as folder:
            try:
                model = compiled(write_plain(package.path, Path(folder) / package.path.name))
            except RuntimeUnavailable as reason:
                yield from (_named(proof.not_run(blank, str(reason)), device) for blank in blanks)
                continue
            room = _Room(bundle, package, model, device, runner)
            for blank in blanks:
                try:
                    with room.opened(blank.provider) as session:
                        result = _told(proof.in_session(target, bundle, session, blank, cases).result, session)
                except RuntimeUnavailable as reason:
                    result = proof.not_run(blank, str(reason))
                yield _named(result, device)


def _named(result: Result, device: Device) -> Result:
    """Filed under the device: see :func:`vitexport.reports.file.with_results`."""
    return replace(result, parity=replace(result.parity, runtime=f"{_runtime(device)} on {device.name}"))


def _runtime(device: Device) -> str:
    return f"Core ML, {device.facts['os']}, driven by coremltools {version('coremltools')}"


@dataclass(frozen=True)
class _Room:
    """What is to be run, and where."""

    bundle: Bundle
    package: Package
    model: Path
    """The package, plain and compiled."""
    device: Device
    runner: Runner

    def opened(self, units: str) -> PhoneSession:
        """Raises ``RuntimeUnavailable`` where Core ML refuses it, ``WorldFailed`` where the device is gone."""
        function = names.function(self.package, self.bundle.rung.size)
        named = function if len(self.package.functions) > 1 else None
        loaded = Loaded.of(self.runner.relaunched(), self.model, units, named)
        facts = {**self.device.facts, "sent_as": _SENT_AS}
        device = replace(self.device, runtime=_runtime(self.device), provider=units, facts=facts)
        return PhoneSession(device, loaded.load_ms, self.bundle, self.package, function, loaded)


@dataclass(eq=False)
class PhoneSession:
    """The contract's ``Session``: predictions there, with times by the device's clock."""

    device: Device
    load_ms: float
    bundle: Bundle
    package: Package
    function: str
    _loaded: Loaded
    placement: Placement | None = None
    apart_s: list[float] = field(default_factory=list)
    """From one prediction's start to its answer's arrival here."""

    def run(self, pixel_values: Tensor) -> Run:
        fed = inputs.feed(self.package, self.function, pixel_values, self.bundle.rung.preprocessing)
        start = time.perf_counter()
        answers, ms = self._loaded.predict(fed)
        self.apart_s.append(time.perf_counter() - start)
        wanted = {output.name for output in self.bundle.rung.outputs}  # parity says which of them is missing
        return Run({name: value for name, value in answers.items() if name in wanted}, ms)

    def planned(self) -> Placement | None:
        planned = self._loaded.plan()
        if planned is None:
            return None
        kinds = {o.outputs[0].name: o.name for o in self.package.functions[self.function].operations if o.outputs}
        ours = [(out, _DEVICES.get(where, where)) for named, out, where in planned if named in (self.function, "")]
        accelerated = self.device.provider != "cpu_only"
        left = [kinds.get(output, output) for output, where in ours if where == "CPU" and accelerated]
        return Placement(dict(Counter(where for _, where in ours)), tuple(left))

    def __enter__(self) -> PhoneSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):  # whoever interrupts does not wait for it
            self._loaded.unload()


def _told(result: Result, session: PhoneSession) -> Result:
    """With where its operations are placed, which is asked last, for it can cost the app's life; and with how far apart
    the predictions were: a device that waits between them lowers its clock."""
    result = replace(result, placement=session.planned())
    latency = result.latency
    if latency.verdict != "passed":
        return result
    apart = float(np.median(session.apart_s))
    said = f"predictions were {apart:.1f} s apart, each sent by file, so the device may not run at its full clock"
    warning = "; ".join(filter(None, (latency.warning, said)))
    return replace(result, latency=replace(latency, warning=warning))
