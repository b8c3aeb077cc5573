"""A device on a cable, driven through a stand-in for ``adb``: each trouble has its sentence, and no stand-in's figure
is ever a device's."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import sys
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("litert_torch")

import adb_stand_in
import unproven
import written_reports as written
from conftest import TINY
from vitexport import bundle as bundles
from vitexport import registry
from vitexport.bench import SOFTWARE_ADAPTER
from vitexport.bundle import read_golden
from vitexport.commands import COMMANDS
from vitexport.contract import Attachment, ExportRequest, Report, Result
from vitexport.devices import attached
from vitexport.errors import BadRequest, Interrupted, MissingToolchain, VitexportError, WorldFailed
from vitexport.manifest import decode, encode
from vitexport.proof import blank_result
from vitexport_targets.tflite.android import adb, measure, tool
from vitexport_targets.tflite.android.identity import described, is_emulated

#: As Android 15 answers on a phone; figures that are filed under such a name come from such a phone alone.
PHONE = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 9",
    "ro.build.version.release": "15",
    "ro.build.fingerprint": "google/tokay/tokay:15/AP3A.241005.015/12366759:user/release-keys",
    "ro.soc.model": "Tensor G4",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.hardware": "tokay",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export to LiteRT, not proven, with a report that knows its file and a page that shows no device yet."""
    home = tmp_path_factory.mktemp("made")
    request = ExportRequest(model=TINY, targets=("tflite",), precisions=("fp32",))
    (bundle,) = unproven.written(home / "tflite", request)
    report = written.report(blank_result(registry.target("tflite"), bundle, "fp32", "interpreter"))
    (home / "report.json").write_bytes(encode(report))
    (home / "report.html").write_text("as it was")
    (home / "answers").mkdir()
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(bundle.path(bundle.variant("fp32").files[0])))
    interpreter.allocate_tensors()
    (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
    for case in read_golden(bundle):
        value = np.ascontiguousarray(case.pixel_values.transpose(0, 2, 3, 1))
        interpreter.set_tensor(given["index"], value)
        interpreter.invoke()
        digest = hashlib.sha256(value.tobytes()).hexdigest()
        (home / "answers" / digest).write_bytes(interpreter.get_tensor(answer["index"]).tobytes())
    return home


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> Path:
    """The stand-in's folder; ``adb`` is on PATH, once the converter, whose PATH it is too, has ``made`` its file."""
    (tmp_path / "adb").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{adb_stand_in.__file__}" "$@"\n')
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("ADB_ROOT", str(tmp_path))
    monkeypatch.setenv("ADB_ANSWERS", str(made / "answers"))
    return tmp_path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return elf(tmp_path / "benchmark_model", 183)


def elf(path: Path, machine: int) -> Path:
    path.write_bytes(b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + machine.to_bytes(2, "little") + b"a stand-in")
    return path


def run(made: Path, program: Path | None, serial: str | None = None) -> tuple[Result, ...]:
    return attached.measure(made / "tflite", Attachment("adb", serial, program)).results


def calls(phone: Path) -> list[list[str]]:
    return [json.loads(line) for line in (phone / "calls").read_text().splitlines()]


# ----------------------------------------------------------------------------------------------------- what is filed


def test_a_file_is_timed_and_proven_there_and_filed_as_the_stand_ins_it_is(
    made: Path, phone: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(made), "--device", "adb", "--benchmark-model", str(program), "--threads", "1,4"]
    assert COMMANDS["bench"](words) == 0
    said = capsys.readouterr().out
    assert "Stand-in Model 1 (emulator)" in said
    assert f"Filed in {made / 'report.json'}." in said
    report = decode((made / "report.json").read_bytes(), Report)
    own, *added = report.results
    assert own.provider == "interpreter"
    assert [(r.provider, r.verdict, r.latency.facts.get("threads")) for r in added] == [
        ("xnnpack", "passed", "1"), ("xnnpack", "passed", "4"), ("gpu", "passed", None), ("nnapi", "not run", None)
    ]  # fmt: skip
    one, _, gpu, nnapi = added
    assert (one.latency.load_ms, one.latency.cold_ms, one.latency.median_ms, one.latency.runs) == (5.5, 9.0, 1.0, 30)
    assert (one.latency.p90_ms, one.latency.times_ms, one.latency.facts["p95_ms"]) == (None, (), "1.2")
    assert one.parity.images == bundles.GOLDEN_PHOTOS
    assert one.parity.drift is not None
    assert one.parity.drift < 1e-5
    assert gpu.placement is not None
    assert gpu.placement.nodes == {"gpu": 5, "cpu": 2}
    assert gpu.latency.warning == "2 of 7 operations ran on the CPU"
    assert nnapi.parity.reason == "benchmark_model failed (exit code 1): ERROR: Benchmarking failed"
    assert "no device’s figure" in (made / "report.html").read_text()
    # And again: the same cells are replaced.
    assert COMMANDS["bench"](words) == 0
    assert len(decode((made / "report.json").read_bytes(), Report).results) == 5


def test_nothing_that_a_stand_in_ran_is_a_devices(made: Path, phone: Path, program: Path) -> None:
    results = run(made, program)
    assert {r.device_verdict for r in results} == {"not run"}
    assert all(r.device_reason for r in results)
    assert all(SOFTWARE_ADAPTER in r.latency.device for r in results if r.latency.verdict == "passed")
    assert any(r.latency.verdict == "passed" for r in results)


def test_its_folder_is_removed_and_no_word_is_the_devices_shells(made: Path, phone: Path, program: Path) -> None:
    run(made, program)
    assert list((phone / "data" / "local" / "tmp").iterdir()) == []
    shells = [words[3] for words in calls(phone) if words[2:3] == ["shell"]]
    assert all(words[:2] == ["-s", adb_stand_in.SERIAL] for words in calls(phone)[1:])
    assert not [line for line in shells if re.search(r"[;&|<>$`\\()\"*?]", line)]


@pytest.mark.parametrize(
    ("trouble", "cell", "reason"),
    [
        ("crash", "xnnpack", "benchmark_model crashed (SIGSEGV): Segmentation fault"),
        ("garbage", "xnnpack", "benchmark_model ran, and it printed no timings"),
        ("old", "xnnpack", "benchmark_model ran, and it tells no median: take a newer benchmark_model"),
        ("slow", "xnnpack", "benchmark_model was not done in 2 s"),
        ("no gpu", "gpu", "LiteRT's GPU delegate takes nothing of this file"),
    ],
)
def test_what_does_not_run_there_says_why(
    made: Path, phone: Path, program: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, cell: str, reason: str
) -> None:
    monkeypatch.setenv("ADB_TROUBLE", trouble)
    if trouble == "slow":
        monkeypatch.setattr(measure, "LONGEST_S", 2.0)
    (found,) = (r for r in run(made, program) if r.provider == cell)
    assert (found.verdict, found.latency.verdict) == ("not run", "not run")
    assert found.parity.reason == found.latency.reason == reason
    assert list((phone / "data" / "local" / "tmp").iterdir()) == []


def test_what_ended_a_program_there_is_named_as_linux_numbers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Mac, 10 is SIGBUS and 12 SIGSYS."""
    monkeypatch.setattr(signal, "Signals", IntEnum("Signals", {"SIGEMT": 7, "SIGBUS": 10, "SIGSYS": 12}))
    assert [measure._how(code) for code in (135, 138, 159, 137, 1)] == [
        "crashed (SIGBUS)", "failed (exit code 138)", "crashed (SIGSYS)", "crashed (SIGKILL)", "failed (exit code 1)"
    ]  # fmt: skip


def test_a_delegate_that_computes_wrongly_fails_and_its_times_count_for_nothing(
    made: Path, phone: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADB_TROUBLE", "wrong")
    (gpu,) = (r for r in run(made, program) if r.provider == "gpu")
    assert (gpu.verdict, gpu.latency.reason) == ("failed", "parity failed")
    assert COMMANDS["bench"]([str(made), "--device", "adb", "--benchmark-model", str(program)]) == 5


def test_a_tool_that_writes_no_answers_times_alone(
    made: Path, phone: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADB_TROUBLE", "no answers")
    one = run(made, program)[0]
    assert (one.verdict, one.latency.verdict) == ("not run", "passed")
    assert "writes no answers (--output_filepath)" in one.parity.reason


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("trouble", "kind", "says"),
    [
        ("none", MissingToolchain, "No Android device is attached. Enable USB debugging"),
        ("unauthorised", MissingToolchain, "R5CT10XYZ has not allowed this computer. Unlock it, accept 'Allow USB"),
        ("offline", MissingToolchain, "R5CT10XYZ is offline. Reconnect its cable"),
        ("no permissions", MissingToolchain, "R5CT10XYZ may not be spoken to by this user."),
        (
            "two",
            BadRequest,
            "2 devices are attached (R5CT10XYZ Model_1, emulator-5554 Model_2). Name one with --serial.",
        ),
        ("broken", MissingToolchain, "adb lists no devices (* daemon not running; starting now at tcp:5037)"),
        ("nameless", BadRequest, "does not say what it is (no ro.product.model, ro.build.fingerprint in getprop)"),
        ("full", WorldFailed, "No space left on device). Free some space there."),
        (
            "unplugged",
            WorldFailed,
            "R5CT10XYZ went away (device 'R5CT10XYZ' not found). Connect it and run this again.",
        ),
    ],
)
def test_each_trouble_has_its_sentence_and_nothing_is_filed(
    made: Path,
    phone: Path,
    program: Path,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    kind: type[VitexportError],
    says: str,
) -> None:
    before = (made / "report.json").read_bytes()
    monkeypatch.setenv("ADB_TROUBLE", trouble)
    with pytest.raises(kind) as said:
        run(made, program)
    assert says in str(said.value)
    assert (made / "report.json").read_bytes() == before
    assert not list(phone.glob("data/local/tmp/*"))


@pytest.mark.parametrize("what", ["shell getprop", "shell chmod", "push", "pull"])
def test_a_device_that_no_longer_answers_is_said(
    made: Path, phone: Path, program: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("ADB_TROUBLE", f"hangs at {what.removeprefix('shell ')}")
    for limit in ("_ASKING_S", "_TRANSFER_S"):
        monkeypatch.setattr(adb, limit, 4.0)
    before = (made / "report.json").read_bytes()
    with pytest.raises(WorldFailed) as said:
        run(made, program)
    assert str(said.value) == (f"R5CT10XYZ did not answer `adb {what}` in 4 s. Look at its cable, and run this again.")
    assert (made / "report.json").read_bytes() == before
    assert not list(phone.glob("data/local/tmp/*"))


def test_what_one_bundle_gave_is_filed_before_the_device_goes_away_in_the_next(
    made: Path, phone: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = phone / "out"
    for name in ("one", "two"):
        shutil.copytree(made / "tflite", home / name)
    (known, *_) = decode((made / "report.json").read_bytes(), Report).results
    (home / "report.json").write_bytes(encode(written.report(known)))
    monkeypatch.setenv("ADB_TROUBLE", "unplugged later")
    with pytest.raises(WorldFailed, match="went away"):
        attached.measure(home, Attachment("adb", program=program))
    filed = decode((home / "report.json").read_bytes(), Report).results
    assert [r.provider for r in filed] == ["interpreter", "xnnpack", "gpu", "nnapi"]


def test_who_interrupts_is_told_how_many_bundles_are_filed(
    made: Path, phone: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(serial: str | None) -> adb.Adb:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(measure, "attached", interrupted)
    with pytest.raises(Interrupted, match=r"^Interrupted\. 0 of 1 bundles filed\.$"):
        run(made, program)


def test_one_of_two_is_named_and_an_unknown_one_is_said(
    made: Path, phone: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADB_TROUBLE", "two")
    assert run(made, program, "emulator-5554")[0].verdict == "passed"
    assert {words[1] for words in calls(phone)[1:]} == {"emulator-5554"}
    with pytest.raises(BadRequest, match=r"No device has the serial 'nobody'. Attached: R5CT10XYZ Model_1, emulator-"):
        run(made, program, "nobody")


def test_what_is_no_program_for_the_device_is_said(made: Path, phone: Path, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    for given, says in (
        (None, "--benchmark-model is missing: the path of LiteRT's benchmark_model. LiteRT's page"),
        (tmp_path / "nowhere", "cannot be read (No such file or directory). LiteRT's page on performance measurement"),
        (tmp_path / "script", "is no program for Android (ELF)"),
    ):
        with pytest.raises(BadRequest) as said:
            run(made, given)
        assert says in str(said.value)
    assert not (phone / "calls").exists(), "no device was looked for"
    with pytest.raises(BadRequest, match=r"is for x86_64, and the device is arm64-v8a\. Take the one for arm64-v8a\."):
        run(made, elf(tmp_path / "x86", 62))
    assert not [words for words in calls(phone) if words[2:3] == ["push"]]


def test_without_adb_its_absence_is_said(made: Path, monkeypatch: pytest.MonkeyPatch, program: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingToolchain, match=r"'adb' is not installed\. Install Android's platform-tools"):
        run(made, program)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device", "abd"], "Unknown device 'abd'. Did you mean 'adb'? Known: adb, browser, ios."),
        (["--serial", "x"], "--serial means nothing without --device adb or ios."),
        (["--device", "adb", "--vs", "other"], "--vs and --sustained are for this machine"),
    ],
)
def test_words_that_mean_nothing_together_are_said(made: Path, words: list[str], says: str) -> None:
    with pytest.raises(BadRequest) as said:
        COMMANDS["bench"]([str(made), *words])
    assert says in str(said.value)


def test_a_bundle_of_a_target_that_is_not_installed_is_said(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "tflite", tmp_path / "gone")
    manifest = tmp_path / "gone" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"target": "tflite"', b'"target": "gone"'))
    with pytest.raises(BadRequest, match=r"Unknown target 'gone'\. Known targets: coreml, "):
        attached.measure(tmp_path / "gone", Attachment("adb"))


# ------------------------------------------------------------------------------------------------------ its identity


def test_a_phone_is_called_by_its_name_and_an_emulator_by_what_it_is() -> None:
    device = described("R5", PHONE)
    assert (device.name, device.software) == ("Google Pixel 9", False)
    assert (device.facts["os"], device.facts["soc"]) == ("Android 15", "Tensor G4")
    twice = described("R5", PHONE | {"ro.product.manufacturer": "samsung", "ro.product.model": "Samsung S24"})
    assert twice.name == "Samsung S24"


@pytest.mark.parametrize(
    "said",
    [
        {"ro.kernel.qemu": "1"},
        {"ro.boot.qemu": "1"},
        {"ro.hardware": "ranchu"},
        {"ro.hardware": "cutf_cvm"},
        {"ro.build.characteristics": "nosdcard,emulator"},
    ],
)
def test_what_emulates_a_device_is_none(said: dict[str, str]) -> None:
    device = described("R5", PHONE | said)
    assert device.software
    assert device.name.endswith("(emulator)")


def test_the_stand_in_of_these_tests_says_what_it_is() -> None:
    assert is_emulated(adb_stand_in.SERIAL, adb_stand_in.PROPERTIES)
    assert is_emulated("emulator-5554", PHONE)
    assert not is_emulated("R5", PHONE)


@pytest.mark.parametrize("missing", ["ro.product.model", "ro.build.version.release", "ro.build.fingerprint"])
def test_a_device_without_a_name_is_refused(missing: str) -> None:
    with pytest.raises(BadRequest, match=f"does not say what it is .no {missing} in getprop"):
        described("R5", {key: value for key, value in PHONE.items() if key != missing})


def test_what_litert_prints_of_a_whole_graph_is_read() -> None:
    text = "INFO: Replacing 58 out of 58 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions."
    placed = tool.placement(text, "xnnpack")
    assert placed is not None
    assert placed.nodes == {"xnnpack": 58}
    assert tool.placement(text, "gpu") is None
    assert tool.refusal("", "gpu") == "LiteRT does not say that its GPU delegate took anything"
