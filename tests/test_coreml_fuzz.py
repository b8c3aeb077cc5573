"""A short slice of the fuzzer, and that it would notice."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("coremltools")

import fuzz_coreml_package as fuzzer
from vitexport_targets.coreml import package as reader


def test_harmed_packages_are_read_or_refused_with_a_sentence(tmp_path: Path):
    ends, wrong = fuzzer.fuzz(range(500), tmp_path)
    assert not wrong
    assert sum(ends.values()) == 500
    assert ends["ran"] >= 20, "harm so mild that it tests little, or so harsh that nothing is ever reached"
    assert ends["BadPackage"] >= 200


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        (lambda path: path.joinpath("Manifest.json").write_text("{}"), "wrote: open"),
        (lambda path: [][0], "IndexError"),
    ],
    ids=["a write", "a crash"],
)
def test_the_fuzzer_notices(fault: object, noticed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sound = reader.read

    def faulty(package: Path) -> object:
        fault(package)  # type: ignore[operator]
        return sound(package)

    monkeypatch.setattr(fuzzer, "read", faulty)
    _, wrong = fuzzer.fuzz(range(1), tmp_path)
    assert any(noticed in line for line in wrong)
