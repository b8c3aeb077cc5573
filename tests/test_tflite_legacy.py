"""tflite-runtime 2.14, in its own environment: what it runs is proven, what it cannot run is a sentence."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from conftest import TESTS
from test_tflite_versions import unsealed
from vitexport import ExportRequest, bundle, capture, models, photos, proof, registry
from vitexport.contract import Bundle, Exam, Report, Result
from vitexport.errors import BadRequest, Interrupted, RuntimeUnavailable
from vitexport.pipeline import exit_code
from vitexport_targets.tflite import legacy

ROOMY = f"{TESTS / 'models.py'}:roomy"
TARGET = registry.target("tflite")
OLD = "tflite-runtime"


def _absent() -> str:
    try:
        legacy.interpreter()
    except RuntimeUnavailable as reason:
        return str(reason)
    return ""


needs_it = pytest.mark.skipif(bool(_absent()), reason=_absent())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Exam]:
    source = capture.capture(models.build(ExportRequest(model=ROOMY)), "made here", photos.probes(None))
    exam = proof.exam(source)
    folder = tmp_path_factory.mktemp("legacy")
    artifact = TARGET.lower((source,), ExportRequest(model=ROOMY, precisions=("fp32", "w8", "w8-dyn", "w4")), folder)
    (bundled,) = bundle.complete(folder, "tflite", (exam,), artifact)
    return bundled, exam


def proven(made: tuple[Bundle, Exam], precision: str) -> Result:
    return proof.prove(TARGET, made[0], precision, OLD, made[1].cases).result


def unversioned(made: tuple[Bundle, Exam], precision: str, folder: Path) -> tuple[Bundle, Exam]:
    """The same bundle, with a file as ai-edge-quantizer leaves it."""
    stale = Bundle(folder, made[0].manifest, made[0].rung)
    stale.path(f"model_{precision}.tflite").write_bytes(unsealed(ROOMY, precision))
    return stale, made[1]


@needs_it
@pytest.mark.parametrize("precision", ["fp32", "w8"])
def test_what_it_knows_is_proven_in_it(precision: str, made: tuple[Bundle, Exam]):
    result = proven(made, precision)
    assert (result.verdict, result.parity.runtime) == ("passed", "tflite-runtime 2.14.0")
    assert result.parity.images == len(made[1].cases)
    assert result.latency.runs > 1


@needs_it
@pytest.mark.parametrize(("precision", "version", "oldest"), [("w8-dyn", 12, "2.17.0"), ("w4", 14, "2.21.0")])
def test_what_it_would_compute_wrongly_it_refuses(precision: str, version: int, oldest: str, made: tuple[Bundle, Exam]):
    result = proven(made, precision)
    assert (result.verdict, result.parity.reason) == (
        "not run",
        f"tflite-runtime 2.14.0 refuses it: Didn't find op for builtin opcode 'FULLY_CONNECTED' version '{version}'; "
        f"the file says it needs TensorFlow {oldest}'s",
    )


@needs_it
@pytest.mark.parametrize("precision", ["w8-dyn", "w4"])
def test_without_versions_it_answers_nonsense_which_is_noticed(
    precision: str, made: tuple[Bundle, Exam], tmp_path: Path
):
    stale = unversioned(made, precision, tmp_path)
    case = made[1].cases[0]
    with TARGET.open(stale[0], precision, OLD) as session:
        answer = session.run(case.pixel_values).outputs["logits"]
    true = case.reference["logits"]
    assert np.sqrt(np.square(answer - true).mean() / np.square(true).mean()) > 0.9
    result = proven(stale, precision)
    assert result.verdict == "not run"
    assert result.parity.reason.startswith("tflite-runtime 2.14.0 computes it wrongly: ")


@needs_it
def test_its_crash_is_a_sentence(made: tuple[Bundle, Exam]):
    """As it does on some networks of 4 bits, whose weights it reads as twice as many."""
    with TARGET.open(made[0], "fp32", OLD) as session:
        os.kill(session.process_id, signal.SIGSEGV)
        with pytest.raises(RuntimeUnavailable, match=r"^tflite-runtime 2\.14\.0 crashes on it \(SIGSEGV\)$"):
            session.run(made[1].cases[0].pixel_values)


@needs_it
def test_intermediate_values_are_not_its_business(made: tuple[Bundle, Exam]):
    with pytest.raises(BadRequest, match="Ask the interpreter"):
        TARGET.open(made[0], "fp32", OLD, ("some tensor",))


def _stand_in(tmp_path: Path, does: str) -> Path:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{does}\n")
    script.chmod(0o755)
    return script


def _nothing_is_left() -> bool:
    """Neither a process of this one's, nor the thread that would end it in five minutes."""
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(5)
    processes = [child for child in psutil.Process().children() if child.name() in ("python", "sleep")]
    return not processes and not any(timer.is_alive() for timer in timers)


def test_what_is_no_answer_leaves_no_process(tmp_path: Path):
    python = _stand_in(tmp_path, "echo Welcome to my Python; exec sleep 60")
    with pytest.raises(RuntimeUnavailable) as refusal:
        legacy._Worker(python, tmp_path / "model.tflite")
    assert str(refusal.value) == f"'{python}' answers 'Welcome to my Python', which is no JSON"
    assert _nothing_is_left()


def test_an_interrupt_leaves_no_process(tmp_path: Path):
    def interrupt(number: int, frame: object) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(Interrupted):
            legacy._Worker(_stand_in(tmp_path, "exec sleep 60"), tmp_path / "model.tflite")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert _nothing_is_left()


UNFIT = {
    "numpy 2": (
        sys.executable,
        f"'{sys.executable}' cannot run tflite-runtime 2.14: it has numpy {np.__version__}, and tflite-runtime needs "
        "numpy < 2",
    ),
    "no Python": (
        "/nowhere/python",
        "VITEXPORT_TFLITE_RUNTIME names '/nowhere/python', which is no Python interpreter",
    ),
    "not set up": (
        "",
        "tflite-runtime 2.14 is not here: it needs an environment of its own (Linux, Python < 3.12, numpy < 2). Run: "
        "make setup, or set VITEXPORT_TFLITE_RUNTIME to the Python of one",
    ),
}


@pytest.mark.parametrize(("named", "said"), UNFIT.values(), ids=UNFIT)
def test_without_a_fit_environment_it_is_not_run_and_says_why(
    named: str, said: str, made: tuple[Bundle, Exam], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(legacy.VARIABLE, named)
    monkeypatch.setattr(legacy, "_DEFAULT", Path("/nowhere/else"))
    result = proven(made, "fp32")
    assert (result.verdict, result.parity.reason) == ("not run", said)


def test_nobody_is_required_to_have_it(made: tuple[Bundle, Exam], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(legacy.VARIABLE, "/nowhere/python")
    today = proof.prove(TARGET, made[0], "fp32", "interpreter", made[1].cases).result
    strict = ExportRequest(model=ROOMY, require_proof=True, require_device=True)
    report = Report(1, "0", strict, "out", made[1].source.provenance, {}, {}, (today, proven(made, "fp32")))
    assert (report.verdict, exit_code(report)) == ("passed", 0)


def test_the_manifest_states_the_oldest_runtime_that_each_precision_passed_in(made: tuple[Bundle, Exam]):
    results = [
        proof.prove(TARGET, made[0], precision, provider, made[1].cases).result
        for precision in ("fp32", "w8-dyn")
        for provider in ("interpreter", OLD)
    ]
    bundle.state_oldest(made[0], TARGET.traits, results)
    from vitexport.manifest import read_bundle

    stated = {v.precision: v.oldest_runtime for v in read_bundle(made[0].directory).rung.variants}
    assert stated["w8-dyn"].startswith("LiteRT 2.")
    assert stated["fp32"].startswith("LiteRT 2." if _absent() else "tflite-runtime 2.14.0")
    assert stated["w4"] == ""
