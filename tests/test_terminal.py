"""What standard error shows while steps run, on a terminal and elsewhere."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stderr
from io import StringIO

import pytest

from vitexport.commands import COMMANDS
from vitexport.errors import BadRequest
from vitexport.progress import step
from vitexport.terminal import progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: StringIO) -> list[str]:
    """Lines as they stand in the end, without times."""
    lines = stream.getvalue().split("\n")
    return [re.sub(r"\d+\.\d", "0.0", line.rpartition("\r")[2]).strip() for line in lines]


def test_a_steps_time_takes_the_place_of_its_dots() -> None:
    with redirect_stderr(Terminal()) as stream, progress(), step("capture", "net"):
        assert shown(stream)[0].endswith("...")
    line, end = shown(stream)
    assert re.fullmatch(r"capture +net +0\.0 s +0\.0 s in all", line)
    assert end == ""


def test_a_step_within_a_step_has_its_own_line() -> None:
    with redirect_stderr(Terminal()) as stream, progress(), step("outer"), step("inner"):
        pass
    outer, inner, again, _ = shown(stream)
    assert outer.endswith("...")
    assert (inner.split()[0], again.split()[0]) == ("inner", "outer")


@pytest.mark.parametrize("error", [BadRequest("no"), KeyboardInterrupt()])
def test_what_is_said_of_a_step_that_fails_begins_a_line(error: BaseException) -> None:
    with redirect_stderr(Terminal()) as stream:
        with pytest.raises(type(error)), progress(), step("capture", "net"):
            raise error
        print("vitexport: no", file=sys.stderr)
    assert shown(stream)[1] == "vitexport: no"


def test_elsewhere_a_step_is_told_of_once_when_it_is_done() -> None:
    with redirect_stderr(StringIO()) as stream, progress(), step("outer"), step("inner"):
        pass
    assert [line.split()[0] for line in shown(stream)[:-1]] == ["inner", "outer"]


def test_a_commands_mistake_names_that_commands_help() -> None:
    with pytest.raises(BadRequest, match=r"^Unrecognized arguments: --bogus\. See vitexport bench --help\.$"):
        COMMANDS["bench"](["somewhere", "--bogus"])
