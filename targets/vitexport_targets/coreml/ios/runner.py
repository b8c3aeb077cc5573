"""coremltools' model runner on a device: an app that is built, signed, launched, spoken to by file, and taken away.

https://apple.github.io/coremltools/docs-guides/source/mlmodel-debugging-perf-utilities.html, experimental there. Its
classes for users (``Device.prepare_for_model_debugging``, ``MLModelBenchmarker``) are async shells around what is used
here. They give up after 20 looks for an answer, before a large model is compiled for the Neural Engine; take an app
that has ended for alive (``is_alive`` is a method that is read as a property); compile a model once for each set of
compute units; and leave files behind here for each prediction (on the device all stay, until the app is taken away).
So this module and :mod:`.loaded` use what coremltools calls private, which tests run whenever its pin moves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import IO, Any, TypeVar
from uuid import uuid4

from vitexport.errors import BadRequest, MissingToolchain, RuntimeUnavailable, VitexportError, WorldFailed, first_line
from vitexport.progress import step
from vitexport_targets.coreml.apple import coremltools
from vitexport_targets.coreml.ios import devicectl
from vitexport_targets.coreml.ios.devicectl import Listed, telling

_T = TypeVar("_T")

#: An Apple developer team.
_TEAM = re.compile(r"[A-Z0-9]{10}")

#: What a shell takes as it is, without quotes.
_PLAIN_PATH = re.compile(r"[\w@%+=:,./-]*")

#: Between two looks for an answer, each of which takes devicectl a second on a cable.
_LOOKING_S = 0.2

#: For an app that was just launched to say anything. It loses what comes before it listens, so it is asked again.
_GREETING_S, _GREETINGS = 15.0, 4

#: A large model's first load compiles it for the Neural Engine: tens of seconds were seen.
LONGEST_S = 300.0

_ENDING_S = 10.0

#: Where the runner itself refuses.
_REFUSED = -32001


class Refused(RuntimeUnavailable):
    """Core ML said no there, or the runner did; the message is the reason, in its words."""


class _TooLate(RuntimeUnavailable):
    pass


def checked(team: str | None) -> str:
    """The team that the app is signed by. Raises ``BadRequest``."""
    if team is None:
        raise BadRequest(
            "--team is missing: the ten characters of the Apple developer team that signs coremltools' model runner "
            "(developer.apple.com/account, under Membership details)."
        )
    if not _TEAM.fullmatch(team):
        raise BadRequest(f"--team '{team}' is no team: it has ten characters, A to Z and 0 to 9, such as A1B2C3D4E5.")
    return team


@contextmanager
def installed(one: Listed, team: str) -> Iterator[Runner]:
    """With the app on the device and running; afterwards it is gone.

    An app that never started stays: an entry of its developer, to be trusted in Settings, is there as long as it is.

    Raises ``MissingToolchain`` where it cannot be built, ``WorldFailed`` where it cannot be put there.
    """
    app = f"com.vitexport.modelrunner.{team.lower()}"  # an App ID is one team's for good: coremltools' own is taken
    runner, stays = None, False
    with (
        devicectl.on_path(),
        tempfile.TemporaryDirectory(prefix="vitexport-ios-", ignore_cleanup_errors=True) as folder,
    ):
        _expect_plain_paths(Path(folder))
        try:
            with step("device", f"building coremltools' model runner for {one.name}"):
                runner = Runner(_launched(one, team, app, Path(folder)), one, team, app, Path(folder))
                runner.greet()
            yield runner
        except VitexportError:
            stays = runner is None or not runner.greeted
            raise
        finally:
            try:
                if runner is not None:
                    runner.stop()
            finally:
                if not stays:
                    devicectl.uninstall(one, app)


def _expect_plain_paths(folder: Path) -> None:
    for path in (Path(coremltools().__file__).resolve().parent, folder.resolve()):
        if not _PLAIN_PATH.fullmatch(str(path)):
            raise MissingToolchain(
                f"coremltools puts '{path}' into a shell's command unquoted, and it would not arrive. Use a path that "
                "has neither spaces nor marks: an environment elsewhere, or another TMPDIR."
            )


def _launched(one: Listed, team: str, app: str, folder: Path) -> Any:
    """coremltools' ``Device``, with a session. What was built before in ``folder`` is not built again, and installing
    it again ends what runs of it."""
    from coremltools.models.ml_program.experimental import remote_device as remote

    try:
        found = next((each for each in remote.Device.get_devices() if each.identifier == one.identifier), None)
    except remote._DeviceCtlError as error:
        raise WorldFailed(f"devicectl lists no devices any more ({_said(error)}). Run this again.") from error
    if found is None:
        raise WorldFailed(f"The device {one} went away. Connect it and run this again.")
    credentials = remote.AppSigningCredentials(development_team=team, bundle_identifier=app)
    try:
        return replace(
            found, session=found._build_and_launch_model_runner_app(folder / "build", folder / "sent", credentials)
        )
    except remote._AppBuilder.Error as error:
        raise MissingToolchain(
            f"xcodebuild did not build coremltools' model runner ({_why_unbuilt(error)}). Xcode 16 or later builds it, "
            f"where the account of team {team} is signed in (Settings > Accounts) and the device is unlocked."
        ) from error
    except remote._DeviceCtlError as error:
        raise WorldFailed(
            f"devicectl did not install the model runner on {one} ({_said(error)}). Unlock the device, and run this "
            "again."
        ) from error
    except (ValueError, AttributeError) as error:  # a tool or a folder that is not there, an app that was not built
        raise MissingToolchain(f"coremltools cannot build its model runner: {first_line(error)}.") from error


def _why_unbuilt(error: BaseException) -> str:
    """What xcodebuild said, which coremltools keeps only in the exception before its own."""
    before = error.__context__
    said = before.stdout if isinstance(before, subprocess.CalledProcessError) else None
    return telling((said or str(error).encode()).decode(errors="replace"))


class _Console:
    """What devicectl prints while the app runs. It is read at once: nobody else would, and a pipe that is full holds
    up who writes to it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._lines: deque[bytes] = deque(maxlen=50)
        pipes = (process.stdout, process.stderr)
        self._readers = [Thread(target=self._read, args=(pipe,), daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with suppress(ValueError):  # closed
            self._lines.extend(pipe)

    def last_words(self) -> str:
        for reader in self._readers:
            reader.join(_ENDING_S)
        return telling(b"".join(self._lines).decode(errors="replace"))


@dataclass(eq=False)
class Runner:
    """The app on a device. It is launched anew for the next model where one has made it end, or hang."""

    device: Any
    """coremltools' ``Device``, with the session of the latest launch."""
    listed: Listed
    team: str
    app: str
    folder: Path
    """Of ours, for what is sent and what comes back."""
    greeted: bool = False
    """It has answered something."""
    _running: bool = True
    _socket: Any = field(init=False, repr=False)
    _console: _Console = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._listen()

    def _listen(self) -> None:
        """To what was just launched."""
        from coremltools.models.ml_program.experimental.remote_device import _DeviceCtlSocket

        self._socket = _DeviceCtlSocket(self.device, "Documents/modelrunnerd")
        self._console = _Console(self.device.session._process)

    def greet(self) -> None:
        """Wait until it answers. Raises ``WorldFailed`` where it does not."""
        for _ in range(_GREETINGS):
            try:
                self._ask("Unload", {"modelID": "none", "computeUnits": "ALL"}, None, _GREETING_S)
            except Refused:  # it has no such model: it listens
                self.greeted = True
                return
            except RuntimeUnavailable as reason:
                if not self._running:
                    raise WorldFailed(
                        f"The model runner does not run on {self.listed} ({reason}). Unlock the device; for a free "
                        "account trust its developer in Settings > General > VPN & Device Management; run this again."
                    ) from reason
        raise WorldFailed(f"The model runner on {self.listed} does not answer. Restart the device, and run this again.")

    def ask(self, method: str, params: dict[str, Any], resource: Path | None = None) -> tuple[Any, bytes]:
        """Its result, and its file's bytes. Raises ``RuntimeUnavailable``; :class:`Refused` where the app refuses."""
        if not self._running:
            raise RuntimeUnavailable("the model runner has ended")
        try:
            return self._ask(method, params, resource, LONGEST_S)
        except _TooLate:
            self.stop()  # it works on it still, and does one thing after the other
            raise

    def relaunched(self) -> Runner:
        """The same, running. Raises ``WorldFailed``."""
        if not self._running:
            self.device, self._running = _launched(self.listed, self.team, self.app, self.folder), True
            self._listen()
            self.greet()
        return self

    def stop(self) -> None:
        self._running = False
        process = self.device.session._process
        process.terminate()
        try:
            process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()

    def _ask(self, method: str, params: dict[str, Any], resource: Path | None, longest_s: float) -> tuple[Any, bytes]:
        from coremltools.models.ml_program.experimental.remote_device import _JSONRPCRequest

        request = _JSONRPCRequest(str(uuid4()), f"MLModelService.{method}", params)
        self._until(longest_s, lambda: self._socket.send(request, resource))
        response = self._until(longest_s, lambda: self._socket.receive(request.id))
        if response.error is not None:
            kind = Refused if response.error.code == _REFUSED else RuntimeUnavailable
            raise kind(telling(str(response.error.message)))
        held = b"" if response.resource is None else response.resource.read_bytes()
        for folder in (self._socket.requests_directory, self._socket.responses_directory):
            shutil.rmtree(folder / request.id, ignore_errors=True)
        return response.result, held

    def _until(self, longest_s: float, done: Callable[[], _T]) -> _T:
        """``done()``, again where devicectl could not copy a file, or the answer's is not there yet."""
        from coremltools.models.ml_program.experimental.remote_device import _DeviceCtlError

        until = time.monotonic() + longest_s
        while True:
            try:
                return done()
            except _DeviceCtlError as error:
                if not self.device.session.is_alive():
                    self._running = False
                    why = self._console.last_words()
                    raise RuntimeUnavailable(f"the model runner ended on the device: {why}") from error
                if time.monotonic() > until:
                    raise _TooLate(f"no answer came from the device ({_said(error)})") from error
            except (ValueError, TypeError, KeyError, OSError) as error:  # an answer that is none
                raise RuntimeUnavailable(f"the model runner's answer is not readable: {first_line(error)}") from error
            time.sleep(_LOOKING_S)


def _said(error: Any) -> str:
    """``_DeviceCtlError.message`` is bytes where a tool wrote it."""
    message = error.message
    return telling(message.decode(errors="replace") if isinstance(message, bytes) else str(message))
