"""What another library's error becomes in a sentence of ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vitexport.errors import LONGEST_LINE, first_line, root_line

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("It failed.", "It failed"),
        ("\n  It failed here.  \nand there", "It failed here"),
        ("", "OSError"),
        (" \n", "OSError"),
        ("x" * 999, "x" * LONGEST_LINE),
    ],
)
def test_a_librarys_error_is_its_first_line_without_a_full_stop(said: str, expected: str) -> None:
    assert first_line(OSError(said)) == root_line(OSError(said)) == expected


def test_the_root_line_is_the_innermost_causes() -> None:
    outer, inner = RuntimeError("Report this bug."), ValueError("An operator is unknown.")
    outer.__cause__ = inner
    assert (first_line(outer), root_line(outer)) == ("Report this bug", "An operator is unknown")


def test_nobody_else_shortens_errors() -> None:
    """But for the worker of the old runtime, which can import nothing of ours."""
    places = [path for folder in ("exporter", "targets") for path in (ROOT / folder).rglob("*.py")]
    made = {path.name for path in places if re.search(r"def \w*(first|root)_line\b", path.read_text())}
    assert made == {"errors.py"}
