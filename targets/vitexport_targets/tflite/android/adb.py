"""Android's debug bridge, by subprocess: one device, its properties, files to it and from it, commands on it.

Words are passed as a list on this machine; on the device ``adb shell`` hands one string to its shell, so each word is
quoted for that. https://developer.android.com/tools/adb
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from vitexport.contract import the_one
from vitexport.errors import MissingToolchain, WorldFailed

#: The only folder that every Android lets its shell user write to and run programs from.
_TEMPORARY = "/data/local/tmp"

#: A model of 400 MB over USB 2 takes 20 s.
_TRANSFER_S = 600.0
_ASKING_S = 60.0

#: What ``adb devices`` calls a device that can be used.
_READY = "device"

_STATES = {
    "unauthorized": "has not allowed this computer. Unlock it, accept 'Allow USB debugging?', and run this again",
    "offline": "is offline. Reconnect its cable, and run this again; `adb kill-server` helps where that does not",
    "no permissions": "may not be spoken to by this user. See `adb devices` for the udev rule that it needs",
    "authorizing": "is being authorised. Wait a moment, and run this again",
    "recovery": "is in recovery mode. Start its system, and run this again",
    "sideload": "is in recovery mode. Start its system, and run this again",
    "bootloader": "is in its bootloader. Start its system, and run this again",
}


@dataclass(frozen=True)
class Said:
    """What a command on the device left: its exit code, and what it printed on either stream."""

    code: int
    text: str


@dataclass(frozen=True)
class Listed:
    serial: str
    state: str
    model: str

    def __str__(self) -> str:
        return f"{self.serial} {self.model}".strip()


class TookTooLong(Exception):
    """A program on the device was not done in its time; it was told to stop."""


class Adb:
    """One device. Raises ``WorldFailed`` where it goes away while it is used, or no longer answers."""

    def __init__(self, program: str, serial: str) -> None:
        self._program, self.serial = program, serial

    def properties(self) -> dict[str, str]:
        """What ``getprop`` tells: ``[name]: [value]``, a line each."""
        said = self.shell(["getprop"])
        return dict(re.findall(r"^\[([^\]\n]+)\]: \[([^\n]*)\]\r?$", said.text, re.MULTILINE))

    def shell(self, words: Sequence[str]) -> Said:
        """What takes a device no time. See :meth:`run` for what does."""
        return self._said(self._answered(f"shell {words[0]}", "shell", shlex.join(words), longest_s=_ASKING_S))

    def run(self, words: Sequence[str], longest_s: float) -> Said:
        """A program there. Raises :class:`TookTooLong`."""
        return self._said(self._call("shell", shlex.join(words), longest_s=longest_s))

    def push(self, here: Path, there: str) -> None:
        said = self._said(self._answered("push", "push", str(here), there, longest_s=_TRANSFER_S))
        if said.code:
            why = _first(said.text).rpartition(": ")[2]  # after the two paths, which are long
            raise WorldFailed(f"adb could not push '{here.name}' ({why}). Free some space there.")

    def pull(self, there: str, here: Path) -> bool:
        """False where the device has no such file."""
        said = self._said(self._answered("pull", "pull", there, str(here), longest_s=_TRANSFER_S))
        return said.code == 0 and here.is_file()

    @contextmanager
    def folder(self) -> Iterator[str]:
        """A new folder of ours, which is removed whatever happens."""
        path = f"{_TEMPORARY}/vitexport-{token_hex(8)}"
        made = self.shell(["mkdir", path])
        if made.code:
            raise WorldFailed(f"{self.serial} makes no folder in {_TEMPORARY} ({_first(made.text)}). Free some space.")
        try:
            yield path
        finally:
            with suppress(WorldFailed):
                self.shell(["rm", "-rf", path])

    def _said(self, done: subprocess.CompletedProcess[str]) -> Said:
        text = done.stdout + done.stderr
        gone = re.search(r"device '[^']*' not found|no devices/emulators found|device offline|error: closed", text)
        if done.returncode and gone:
            raise WorldFailed(f"{self.serial} went away ({gone[0]}). Connect it and run this again.")
        return Said(done.returncode, text)

    def _answered(self, what: str, *words: str, longest_s: float) -> subprocess.CompletedProcess[str]:
        try:
            return self._call(*words, longest_s=longest_s)
        except TookTooLong:
            late = f"{self.serial} did not answer `adb {what}` in {longest_s:.0f} s"
            raise WorldFailed(f"{late}. Look at its cable, and run this again.") from None

    def _call(self, *words: str, longest_s: float) -> subprocess.CompletedProcess[str]:
        try:
            return _run([self._program, "-s", self.serial, *words], longest_s)
        except subprocess.TimeoutExpired:
            raise TookTooLong from None


def attached(serial: str | None) -> Adb:
    """The device that is attached, or the one of this serial. Each trouble has its sentence."""
    program = shutil.which("adb")
    if program is None:
        raise MissingToolchain(
            "'adb' is not installed. Install Android's platform-tools (Debian: apt-get install adb) and put it on PATH."
        )
    found = _listed(program)
    chosen = [each for each in found if serial in (None, each.serial)]
    if not found:
        raise MissingToolchain(
            "No Android device is attached. Enable USB debugging in its developer options, connect it, and see that "
            "`adb devices` lists it."
        )
    one = the_one(found, chosen, serial)
    if one.state != _READY:
        what = _STATES.get(one.state, f"is in the state '{one.state}', in which nothing can be run")
        raise MissingToolchain(f"The device {one.serial} {what}.")
    return Adb(program, one.serial)


def _listed(program: str) -> list[Listed]:
    """From ``adb devices -l``: a heading, then a line each with serial, state and facts as ``key:value``."""
    try:
        done = _run([program, "devices", "-l"], _ASKING_S)
    except subprocess.TimeoutExpired:
        raise MissingToolchain("adb does not answer. Run `adb kill-server`, then this again.") from None
    _, heading, lines = done.stdout.partition("List of devices attached")
    if done.returncode or not heading:
        raise MissingToolchain(
            f"adb lists no devices ({_first(done.stdout + done.stderr)}). See that `adb devices` works."
        )
    return [_line(line) for line in lines.splitlines() if line.strip()]


def _line(line: str) -> Listed:
    serial, _, rest = line.strip().partition(" ") if " " in line.strip() else line.strip().partition("\t")
    state = "no permissions" if rest.strip().startswith("no permissions") else (rest.split() or ["unknown"])[0]
    model = re.search(r"\bmodel:(\S+)", rest)
    return Listed(serial, state, model[1] if model else "")


def _run(words: list[str], longest_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=longest_s,
            check=False,
        )
    except OSError as error:
        raise MissingToolchain(
            f"'{words[0]}' cannot be run ({error.strerror}). Install Android's platform-tools."
        ) from None


def _first(text: str) -> str:
    """The first line that says something, for a sentence."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "it says nothing")
    return "".join(c for c in line if c.isprintable())[:400].rstrip(".")
