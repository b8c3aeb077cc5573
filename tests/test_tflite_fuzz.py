"""A short slice of the fuzzer and a longer one, and that it would notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("litert_torch")

from conftest import TESTS

FUZZER = TESTS / "fuzz_tflite_file.py"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import fuzz_tflite_file as fuzzer

    folder = tmp_path_factory.mktemp("exports") / "sound"
    fuzzer.exported(folder)
    return folder


def fuzzed(exports: Path, *options: str) -> str:
    """Its last words. In a process of its own, because one that has torch in it, as this may, forks slowly."""
    command = [sys.executable, str(FUZZER), "--exports", str(exports), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_harmed_files_answer_or_are_refused_with_a_sentence(exports: Path):
    said = fuzzed(exports, "--files", "100")
    for end in ("answered", "LiteRT refused", "we refused"):
        assert f"'{end}'" in said, "harm so mild that it tests little, or so harsh that nothing is ever reached"


@pytest.mark.slow
def test_many_harmed_files_answer_or_are_refused_with_a_sentence(exports: Path):
    assert "'LiteRT crashed'" in fuzzed(exports, "--files", "5000", "--seed", "1000000")


@pytest.mark.filterwarnings("ignore:os.fork")  # JAX's; what is forked here ends before it could miss a thread
@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        (lambda *_: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        (lambda *_: [][0], "IndexError"),
        (lambda *_: signal.pause(), "more than 1 s"),
    ],
    ids=["a crash", "a bug", "a hang"],
)
def test_the_fuzzer_notices(fault: object, noticed: str, exports: Path, monkeypatch: pytest.MonkeyPatch):
    import fuzz_tflite_file as fuzzer

    monkeypatch.setattr(fuzzer, "taken", fault)
    monkeypatch.setattr(fuzzer, "LONGEST_S", 1 / 3)
    (file, *_) = fuzzer.sound(exports)
    with pytest.raises((fuzzer.Died, AssertionError), match=noticed):
        fuzzer.outcome(file.bundles, file.precision)
