"""coremltools' model runner on a device: an app that is built, signed, launched, spoken to by file, and taken away.

https://apple.github.io/coremltools/docs-guides/source/mlmodel-debugging-perf-utilities.html (experimental there, and
async). What it leaves out is done here, and each can go when coremltools does it: it keeps nothing of what
``xcodebuild`` said (``stderr`` is ``None`` where it fails), takes an app that has ended for alive (``is_alive`` is a
method that is read as a property), and puts paths into a shell's command without quotes.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vitexport.errors import BadRequest, MissingToolchain, RuntimeUnavailable, WorldFailed
from vitexport.progress import step
from vitexport_targets._onnx_graph import first_line
from vitexport_targets.coreml.apple import coremltools, quietly
from vitexport_targets.coreml.ios import devicectl
from vitexport_targets.coreml.ios.devicectl import Listed

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors

_T = TypeVar("_T")

#: An Apple developer team, as Xcode's account settings and developer.apple.com show it.
_TEAM = re.compile(r"[A-Z0-9]{10}")

#: What the app answers where Core ML refused; other codes are devicectl's exit codes, or none.
_REFUSED_BY_CORE_ML = -32001

#: How often it is looked whether the app still runs, while an answer is waited for.
_LOOKING_S = 0.5

#: coremltools waits some 20 s for an answer. The first load of a large model compiles it for the Neural Engine and can
#: take longer; Core ML keeps what it compiled, so that the next try finds it.
LOADING_TRIES = 3


def checked(team: str | None) -> str:
    """The team that the app is signed by. Raises ``BadRequest``."""
    if team is None:
        raise BadRequest(
            "--team is missing: the ten characters of the Apple developer team that signs coremltools' model runner "
            "(Xcode > Settings > Accounts; a free account has one too)."
        )
    if not _TEAM.fullmatch(team):
        raise BadRequest(f"--team '{team}' is no team: it has ten characters, A to Z and 0 to 9, such as A1B2C3D4E5.")
    return team


@contextmanager
def prepared(one: Listed, team: str) -> Iterator[Runner]:
    """With the app on the device and running; afterwards it is gone.

    Raises ``MissingToolchain`` where it cannot be built, ``WorldFailed`` where it cannot be put there.
    """
    _expect_plain_path()
    app = f"com.vitexport.modelrunner.{team.lower()}"  # App IDs are one team's for good: coremltools' own is taken
    with devicectl.on_path(), tempfile.TemporaryDirectory(prefix="vitexport-ios-") as folder, asyncio.Runner() as loop:
        with step("device", f"building coremltools' model runner for {one.name}"):
            device = _launched(loop, one, team, app, Path(folder))
        try:
            yield Runner(device, one, loop)
        finally:
            device.session.stop()
            with suppress(MissingToolchain):
                devicectl.uninstall(one, app)


def _expect_plain_path() -> None:
    home = Path(coremltools().__file__).parent
    if re.search(r"[^\w@%+=:,./-]", str(home), re.ASCII):
        raise MissingToolchain(
            f"coremltools puts its own path into a command unquoted, and '{home}' would not arrive. Install it in a "
            "folder whose path has neither spaces nor marks."
        )


def _launched(loop: asyncio.Runner, one: Listed, team: str, app: str, folder: Path) -> Any:
    """coremltools' ``Device``, with a session."""
    from coremltools.models.ml_program.experimental import remote_device as remote

    credentials = remote.AppSigningCredentials(development_team=team, bundle_identifier=app)
    try:
        with quietly():
            found = next((each for each in remote.Device.get_devices() if each.identifier == one.identifier), None)
            if found is None or found.state != remote.DeviceState.CONNECTED:
                raise WorldFailed(f"The device {one} went away. Connect it and run this again.")
            return loop.run(found.prepare_for_model_debugging(credentials, folder))
    except remote._AppBuilder.Error as error:
        workspace = remote._ModelRunnerAppBuilder._get_project_path() / "ModelRunner.xcworkspace"
        raise MissingToolchain(
            f"xcodebuild did not build coremltools' model runner (exit code {error.error_code}), mostly for want of a "
            f"signature. Open '{workspace}' in Xcode, choose team {team}, build it once for this device, and run this "
            "again."
        ) from error
    except remote._DeviceCtlError as error:
        raise WorldFailed(
            f"devicectl did not install the model runner on {one} ({_said(error)}). Unlock the device, and run this "
            "again."
        ) from error
    except ValueError as error:  # what it calls a tool or a folder that is not there
        raise MissingToolchain(f"coremltools cannot build its model runner: {first_line(error)}") from error


@dataclass(eq=False)
class Runner:
    """The app, running."""

    device: Any
    """coremltools' ``Device``."""
    listed: Listed
    loop: asyncio.Runner

    def load(self, package: Path, units: str, function: str | None) -> Loaded:
        """Compile a plain package here (:mod:`.plain`) and load it there, on one set of compute units.

        Raises ``RuntimeUnavailable`` where Core ML refuses it, ``WorldFailed`` where the device went away.
        """
        from coremltools.models.ml_program.experimental.async_wrapper import MLModelAsyncWrapper
        from coremltools.models.ml_program.experimental.remote_device import _DeviceCtlError

        for tried in range(1, LOADING_TRIES + 1):
            model = MLModelAsyncWrapper.from_spec_or_path(
                str(package),
                weights_dir="",
                compute_units=coremltools().ComputeUnit[units.upper()],
                function_name=function,
                device=self.device,
            )
            try:
                self.wait(model.load())
            except _DeviceCtlError as error:
                if error.error_code == _REFUSED_BY_CORE_ML:
                    raise RuntimeUnavailable(f"Core ML refuses {package.name}: {_said(error)}") from error
                continue
            return Loaded(self, model, tried)
        raise RuntimeUnavailable(
            f"the device was not done with loading {package.name} in {LOADING_TRIES} times the 20 s that coremltools "
            "waits"
        )

    def wait(self, asked: Coroutine[Any, Any, _T]) -> _T:
        with quietly():
            return self.loop.run(self._while_it_runs(asked))

    async def _while_it_runs(self, asked: Coroutine[Any, Any, _T]) -> _T:
        answer = asyncio.ensure_future(asked)
        while not (await asyncio.wait({answer}, timeout=_LOOKING_S))[0]:
            if not self.device.session.is_alive():
                answer.cancel()
                raise self._ended()
        return await answer

    def call(self, asked: Coroutine[Any, Any, _T]) -> _T:
        """The same, where the app is to answer at once. Raises as :meth:`load` does."""
        from coremltools.models.ml_program.experimental.remote_device import _DeviceCtlError

        try:
            return self.wait(asked)
        except _DeviceCtlError as error:
            if error.error_code == _REFUSED_BY_CORE_ML:
                raise RuntimeUnavailable(f"Core ML does not run it: {_said(error)}") from error
            raise RuntimeUnavailable(f"the model runner gave no answer ({_said(error)})") from error

    def _ended(self) -> WorldFailed:
        return WorldFailed(
            f"The model runner on {self.listed} ended. Keep the device unlocked and connected; if it never started, "
            "trust its developer in Settings > General > VPN & Device Management. Run this again."
        )


@dataclass(eq=False)
class Loaded:
    """A model on the device."""

    runner: Runner
    _model: Any
    tries: int
    """More than one: what was loaded in the end had been compiled before."""

    @property
    def load_ms(self) -> float:
        """By the device's clock."""
        return float(self._model.load_duration_in_nano_seconds) / 1e6

    def predict(self, given: Tensors) -> tuple[dict[str, Tensor], float]:
        """The answers, and the milliseconds that Core ML took for them by the device's clock."""
        answers = self.runner.call(self._model.predict(given))
        return answers, float(self._model.last_predict_duration_in_nano_seconds) / 1e6

    def plan(self) -> list[tuple[str, str, str]] | None:
        """Function, first output and device of each operation that ``MLComputePlan`` places; None before iOS 17.4.

        The runner's own list: coremltools' public class of a plan looks up what the compiled model holds with a library
        that Macs alone have, and all of that is read already.
        """
        try:
            plan = self.runner.call(self._model._remote_service.retrieve_compute_plan())
        except RuntimeUnavailable:
            return None
        return [
            (_function(path), path.components[-1].output_name, type(info.device_usage.preferred).__name__)
            for path, info in plan.infos.items()
        ]

    def unload(self) -> None:
        with suppress(RuntimeUnavailable, WorldFailed):
            self.runner.call(self._model.unload())


def _function(path: Any) -> str:
    return next((str(part.name) for part in path.components if type(part).__name__ == "Function"), "")


def _said(error: Any) -> str:
    """``_DeviceCtlError.message`` is bytes where a tool wrote it."""
    message = error.message
    text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it says nothing")
    return "".join(c for c in line if c.isprintable())[:400].rstrip(".")
