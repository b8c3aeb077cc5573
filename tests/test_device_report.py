"""What a device measured is taken back only where it can be true, and judged again by what is here."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from conftest import TINY, TINY_MASK, Command
from test_bad_input import expect
from vitexport import ExportRequest, export, pipeline
from vitexport.contract import (
    Bundle,
    Device,
    DeviceCell,
    DeviceReport,
    Measurement,
    Parity,
    Placement,
    Report,
    Result,
    Size,
)
from vitexport.devices import filing
from vitexport.devices.report import LARGEST_BYTES, LONGEST_TEXT, MOST_CELLS, MOST_ENTRIES, accept
from vitexport.errors import BadRequest, WorldFailed
from vitexport.manifest import decode, read_bundle
from vitexport.reports.file import with_results, write_report
from vitexport.reports.table import summary

PHONE = Device("iPhone15,2", "Core ML, iOS 18.5", "", facts={"thermal state": "nominal", "low-power mode": "off"})
TIMES = tuple(4.0 + 0.01 * i for i in range(40))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("device") / "out"
    export(ExportRequest(model=TINY, targets=("reference",), out=str(out)))
    return out


@pytest.fixture(scope="module")
def bundle(exported: Path) -> Bundle:
    return read_bundle(exported / "reference")


@pytest.fixture(scope="module")
def mask(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("mask") / "out"
    export(ExportRequest(model=TINY_MASK, targets=("reference",), out=str(out)))
    return read_bundle(out / "reference")


def measured(bundle: Bundle, device: Device = PHONE, **changed: Any) -> DeviceReport:
    """What a device writes that ran a bundle well; ``changed`` are fields of its one cell."""
    parity = Parity("passed", drift=1e-6, snr_db=120.0, cosine=1.0, agreement=1.0, person_iou=1.0, images=2)
    latency = Measurement("passed", load_ms=80.0, cold_ms=50.0, times_ms=TIMES, peak_memory_bytes=50_000_000)
    cell = DeviceCell("fp32", "cpu_and_ne", bundle.rung.size, parity, latency, Placement({"Neural Engine": 7}))
    digest = hashlib.sha256((bundle.directory / "manifest.json").read_bytes()).hexdigest()
    return DeviceReport(1, digest, device, (replace(cell, **changed),))


def accepted(bundle: Bundle, report: DeviceReport) -> Result:
    (result,) = accept(msgspec.json.encode(report), [bundle])
    return result


# --------------------------------------------------------------------------------------------------- what is made of it


def test_a_result_is_named_by_its_device_and_keeps_the_raw_times(bundle: Bundle):
    result = accepted(bundle, measured(bundle))
    assert (result.model, result.target, result.precision, result.provider) == (
        "models.py:tiny",
        "reference",
        "fp32",
        "cpu_and_ne",
    )
    assert (result.verdict, result.device_verdict) == ("passed", "passed")
    assert result.parity.runtime == "Core ML, iOS 18.5 on iPhone15,2"
    latency = result.latency
    assert (latency.device, latency.runtime, latency.provider) == ("iPhone15,2", "Core ML, iOS 18.5", "cpu_and_ne")
    assert (latency.load_ms, latency.cold_ms, latency.runs, latency.times_ms) == (80.0, 50.0, 40, TIMES)
    assert latency.facts == PHONE.facts
    assert result.placement == Placement({"Neural Engine": 7})
    assert result.files[0].path.startswith("reference/")


def test_medians_and_percentiles_are_taken_here_of_the_raw_times(bundle: Bundle):
    claimed = Measurement("passed", median_ms=0.001, p90_ms=0.001, p99_ms=0.001, runs=9, times_ms=TIMES)
    latency = accepted(bundle, measured(bundle, latency=claimed)).latency
    assert latency.median_ms == pytest.approx(np.median(TIMES))
    assert latency.p90_ms == pytest.approx(np.percentile(TIMES, 90))
    assert latency.p99_ms == pytest.approx(np.percentile(TIMES, 99))
    assert latency.runs == 40


def test_few_runs_say_so(bundle: Bundle):
    claimed = Measurement("passed", times_ms=TIMES[:4], warning="low-power mode is on")
    assert accepted(bundle, measured(bundle, latency=claimed)).latency.warning == (
        "low-power mode is on; 4 runs; 30 tell more"
    )


@pytest.mark.parametrize(
    ("claimed", "reason"),
    [
        (Parity("passed", drift=0.5, snr_db=120.0, images=2), "drift is 0.5; at most"),
        (Parity("passed", drift=None, snr_db=120.0, images=2), "no drift and SNR that are numbers"),
        (Parity("passed", drift=1e-6, snr_db=120.0, images=1), "the device compared 1 of 2 golden photos."),
        (Parity("failed", drift=1e-6, snr_db=120.0, images=2, reason="output 'logits' is missing."), "'logits' is mis"),
        (Parity("failed", drift=1e-6, snr_db=120.0, images=2), "does not say why"),
    ],
)
def test_a_pass_that_the_figures_do_not_bear_out_is_a_failure(bundle: Bundle, claimed: Parity, reason: str):
    result = accepted(bundle, measured(bundle, parity=claimed))
    assert (result.verdict, result.device_verdict) == ("failed", "failed")
    assert reason in result.parity.reason
    assert (result.latency.verdict, result.latency.reason) == ("not run", "parity failed")


def test_the_tolerance_is_the_manifests_and_not_the_devices(bundle: Bundle):
    claimed = Parity("passed", drift=0.5, snr_db=20.0, images=2, tolerance=1.0, metric="loss", contrast=9.0)
    parity = accepted(bundle, measured(bundle, parity=claimed)).parity
    assert parity.verdict == "failed"
    variant = bundle.variant("fp32")
    assert (parity.tolerance, parity.metric) == (variant.tolerance, "drift")


def test_a_precision_that_loses_bits_is_judged_by_its_noise(bundle: Bundle):
    noisy = replace(bundle.variant("fp32"), metric="noise", tolerance=1e-3)
    bundle = replace(bundle, rung=replace(bundle.rung, variants=(noisy,)))
    passing = Parity("passed", drift=0.5, snr_db=61.0, images=2)
    assert accepted(bundle, measured(bundle, parity=passing)).verdict == "passed"
    failing = accepted(bundle, measured(bundle, parity=replace(passing, snr_db=59.0)))
    assert "noise is 0.00112; at most 0.001 passes." in failing.parity.reason


def test_masks_must_overlap_whatever_the_drift(mask: Bundle):
    good = Parity("passed", drift=1e-6, snr_db=120.0, agreement=1.0, person_iou=1.0, images=2)
    assert accepted(mask, measured(mask, parity=good)).verdict == "passed"
    for claimed in (replace(good, agreement=0.9), replace(good, agreement=None)):
        assert "mask IoU" in accepted(mask, measured(mask, parity=claimed)).parity.reason


def test_photos_that_do_not_differ_prove_nothing_on_a_device_either(bundle: Bundle):
    lax = replace(bundle.variant("fp32"), tolerance=10.0)
    bundle = replace(bundle, rung=replace(bundle.rung, variants=(lax,)))
    assert accepted(bundle, measured(bundle)).parity.reason.startswith("ill-posed")


@pytest.mark.parametrize(
    "device",
    [
        replace(PHONE, software=True),
        replace(PHONE, name="google swiftshader"),
        replace(PHONE, name="iPhone15,2 (Simulator)"),
        replace(PHONE, name="llvmpipe (LLVM 15.0.7, 256 bits)"),
    ],
)
def test_a_stand_in_is_never_given_as_a_device(bundle: Bundle, device: Device):
    result = accepted(bundle, measured(bundle, device))
    assert result.verdict == "passed"
    assert result.device_verdict == "not run"
    assert result.latency.device.endswith("(software adapter, not a device figure)")


def test_a_runtime_that_stands_in_has_answers_and_no_times(bundle: Bundle):
    result = accepted(bundle, measured(bundle, replace(PHONE, software=True, needs="an iPhone: the simulator ran it")))
    assert (result.verdict, result.device_verdict) == ("passed", "not run")
    assert result.device_reason == "needs an iPhone: the simulator ran it"
    assert (result.latency.verdict, result.latency.times_ms) == ("not run", ())


def test_what_a_device_could_not_run_stays_not_run(bundle: Bundle):
    nothing = {"parity": Parity("not run", reason="no Neural Engine"), "latency": Measurement("not run", reason="same")}
    result = accepted(bundle, measured(bundle, **nothing))
    assert (result.verdict, result.device_verdict, result.latency.verdict) == ("not run", "not run", "not run")
    assert result.parity.reason == "no Neural Engine"


# ----------------------------------------------------------------------------------------------------- what is refused


def timed(**changed: Any) -> dict[str, Any]:
    return {"latency": Measurement("passed", **({"times_ms": TIMES} | changed))}


def judged(**changed: Any) -> dict[str, Any]:
    return {"parity": Parity("passed", **({"drift": 1e-6, "snr_db": 120.0, "images": 2} | changed))}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (timed(times_ms=(4.0, -1.0)), "no device measures -1"),
        (timed(load_ms=-0.5), "no device measures -0.5"),
        (timed(cold_ms=1e9), "no device measures 1e+09 where 3.6e+06 is the most"),
        (timed(sustained_after_s=1e9), "no device measures 1e+09"),
        (timed(peak_memory_bytes=2**60), "no device measures 1.15292e+18"),
        (timed(times_ms=()), "is timed, and gives no times"),
        (timed(times_ms=(1.0,) * (MOST_ENTRIES + 1)), "a list of 20,001 entries; 20,000 are the most"),
        (timed(warning="x" * (LONGEST_TEXT + 1)), "a text of 1,001 characters; 1,000 are the most"),
        (timed(warning="\x1b]0;owned\x07"), "a text with control characters"),
        (timed(facts={"right\u202eto left": ""}), "a text with control characters"),
        (judged(drift=-1.0), "its drift is -1"),
        (judged(images=3), "its images is 3"),
        (judged(snr_db=1e6), "its snr_db is 1e+06"),
        (judged(agreement=1.5), "its agreement is 1.5"),
        (judged(person_iou=-0.1), "its person_iou is -0.1"),
        ({"precision": "fp61"}, "it ran the precision 'fp61', and this export has fp32"),
        ({"precision": ""}, "it ran the precision ''"),
        ({"size": Size(64, 64)}, "it ran at 64x64, and this export has 32x32"),
        ({"provider": "<script>"}, "'<script>' is no provider's name"),
        ({"provider": "../../etc"}, "'../../etc' is no provider's name"),
    ],
)
def test_what_no_device_can_have_measured_is_refused(bundle: Bundle, changed: dict[str, Any], said: str):
    with pytest.raises(BadRequest) as refusal:
        accepted(bundle, measured(bundle, **changed))
    assert str(refusal.value).startswith("This device report is not taken: ")
    assert said in str(refusal.value)


def changed(key: str, value: Any) -> Callable[[DeviceReport], Any]:
    """The report as plain JSON values with one of them replaced: what the contract's types would not hold."""

    def change(report: DeviceReport) -> Any:
        document = msgspec.to_builtins(report)
        *path, last = key.split(".")
        at = document
        for step in path:
            at = at[int(step) if step.isdigit() else step]
        at[last] = value
        return document

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed("manifest_sha256", "0" * 64), "it is of another export (manifest 000000000000, here "),
        (changed("manifest_sha256", ""), "it is of another export"),
        (changed("cells", []), "it has 0 cells"),
        (lambda r: msgspec.to_builtins(r) | {"cells": msgspec.to_builtins(r)["cells"] * 2}, "at 32x32 twice"),
        (
            lambda r: msgspec.to_builtins(r) | {"cells": msgspec.to_builtins(r)["cells"] * (MOST_CELLS + 1)},
            "it has 513 cells",
        ),
        (
            changed("schema_version", 2),
            "another version of vitexport wrote it: its schema_version is 2, and this one reads 1",
        ),
        (changed("schema_version", "2"), "Expected `int`, got `str` - at `$.schema_version`"),
        (changed("device.name", " "), "it does not name the device and its runtime"),
        (changed("device", "iPhone"), "Expected `object`, got `str` - at `$.device`"),
        (changed("cells.0.parity.images", -1), "Expected `int` >= 0 - at `$.cells[0].parity.images`"),
        (changed("cells.0.parity.drift", "1e-6"), "Expected `float | null`, got `str`"),
        (changed("cells.0.parity.verdict", "great"), "Invalid enum value 'great'"),
        (changed("cells.0.latency.times_ms", {"0": 1.0}), "Expected `array`, got `object`"),
        (changed("cells.0.latency.times_ms", [True]), "Expected `float`, got `bool`"),
        (lambda r: [], "Expected `object`, got `array`"),
        (lambda r: None, "Expected `object`, got `null`"),
        (lambda r: {}, "Object missing required field"),
    ],
)
def test_what_is_not_in_the_form_of_a_report_is_refused(bundle: Bundle, change: Callable[..., Any], said: str):
    with pytest.raises(BadRequest) as refusal:
        accept(msgspec.json.encode(change(measured(bundle))), [bundle])
    assert said in str(refusal.value)


def test_an_exports_own_report_is_told_from_a_devices(exported: Path, bundle: Bundle):
    with pytest.raises(BadRequest) as refusal:
        accept((exported / "report.json").read_bytes(), [bundle])
    assert str(refusal.value) == (
        "This is an export's own report.json, and no device's. Name the JSON file that a device wrote, such as the one "
        "of a Core ML bundle's Swift package; for a browser's, run vitexport bench --device browser."
    )


def raw_texts(bundle: Bundle) -> Iterator[tuple[str, bytes, str]]:
    good = msgspec.json.encode(measured(bundle))
    yield "nothing", b"", "not in the form of one"
    yield "no JSON", b"<html>", "not in the form of one"
    yield "cut off", good[: len(good) // 2], "not in the form of one"
    yield "two of them", good + good, "not in the form of one"
    yield "no UTF-8", good.replace(b"iPhone", b"\xff\xfe\xff\xff\xff\xff"), "is not"
    yield "NaN", good.replace(b"120.0", b"NaN"), "not in the form of one"
    yield "Infinity", good.replace(b"120.0", b"Infinity"), "not in the form of one"
    yield "a number beyond float64", good.replace(b"120.0", b"1e999"), "is not taken"
    yield "a whole number of 5,000 digits", good.replace(b'"images":2', b'"images":' + b"9" * 5000), "is not taken"
    yield "10 MB", b'{"x":"' + b"a" * 10_000_000 + b'"}', "it is larger than 4 MiB"
    yield "10 MB of brackets", b"[" * 10_000_000, "it is larger than 4 MiB"
    yield "deep arrays", b'{"x":' * 1 + b"[" * (LARGEST_BYTES - 100), "is not"
    yield "deep objects", good[:-1] + b',"x":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "nested too deeply"


def test_whatever_is_sent_instead_is_refused_in_a_sentence(bundle: Bundle):
    for name, raw, said in raw_texts(bundle):
        with pytest.raises(BadRequest) as refusal:
            accept(raw, [bundle])
        assert said in str(refusal.value), name
        assert len(str(refusal.value)) < 500, name


def test_a_report_with_any_of_its_bytes_changed_is_taken_or_refused_and_nothing_else(bundle: Bundle):
    good = msgspec.json.encode(measured(bundle))
    generator = random.Random(0)
    refused = 0
    for _ in range(3000):
        raw = bytearray(good)
        for _ in range(generator.choice((1, 2, 8))):
            at = generator.randrange(len(raw))
            raw[at : at + generator.choice((0, 1, 3))] = generator.randbytes(generator.choice((0, 1, 3)))
        try:
            (result,) = accept(bytes(raw), [bundle])
        except BadRequest:
            refused += 1
        else:
            assert result.latency.verdict != "passed" or min(result.latency.times_ms) >= 0
    assert 1000 < refused < 3000


# --------------------------------------------------------------------------------------------------- into report.json


def test_the_command_adds_a_device_once_and_says_what_it_measured(exported: Path, tmp_path: Path, vitexport: Command):
    out = shutil.copytree(exported, tmp_path / "out")
    (out / "report.json").chmod(0o640)
    bundle = read_bundle(out / "reference")
    (tmp_path / "phone.json").write_bytes(msgspec.json.encode(measured(bundle)))
    for place in ("out", "out/reference"):
        done = vitexport("report", place, "--add", "phone.json")
        assert done.returncode == 0, done.stderr
    assert "iPhone15,2, Core ML, iOS 18.5, cpu_and_ne, 40 runs" in done.stdout
    assert f"Filed in {tmp_path / 'out' / 'report.json'}: 1 cell of iPhone15,2." in done.stderr
    report = decode((out / "report.json").read_bytes(), Report)
    assert [r.provider for r in report.results] == ["cpu", "cpu_and_ne"]
    assert stat.S_IMODE((out / "report.json").stat().st_mode) == 0o640
    slower = measured(bundle, latency=Measurement("passed", times_ms=(9.0,) * 30))
    newer = replace(measured(bundle), device=replace(PHONE, runtime="Core ML, iOS 26.0"))
    (tmp_path / "phone.json").write_bytes(msgspec.json.encode(slower))
    (tmp_path / "newer.json").write_bytes(msgspec.json.encode(newer))
    done = vitexport("report", "out", "--add", "phone.json", "--add", "newer.json", "--json")
    shown = json.loads(done.stdout)["results"]
    assert [r["latency"]["median_ms"] for r in shown][1:] == [9.0, pytest.approx(np.median(TIMES))]
    assert [r["latency"]["runtime"] for r in shown][1:] == ["Core ML, iOS 18.5", "Core ML, iOS 26.0"]


def test_a_device_that_fails_is_kept_and_ends_in_5(exported: Path, tmp_path: Path, vitexport: Command):
    out = shutil.copytree(exported, tmp_path / "out")
    wrong = measured(read_bundle(out / "reference"), parity=Parity("passed", drift=0.5, snr_db=6.0, images=2))
    (tmp_path / "phone.json").write_bytes(msgspec.json.encode(wrong))
    assert vitexport("report", "out", "--add", "phone.json").returncode == 5
    assert decode((out / "report.json").read_bytes(), Report).verdict == "failed"


@pytest.mark.parametrize(
    ("directory", "file", "code", "said"),
    [
        ("out", "absent.json", 2, "'absent.json' cannot be read (No such file or directory)."),
        ("out", "out", 2, "'out' cannot be read (Is a directory)."),
        ("out", "bad.json", 2, "This device report is not taken: it is not in the form of one"),
        ("out", "huge.json", 2, "it is larger than 4 MiB"),
        ("out/reference", "bad.json", 2, "This device report is not taken: it is not in the form of one"),
        ("absent", "bad.json", 2, "'absent' is not a folder. Name one that vitexport wrote."),
    ],
)
def test_a_bad_file_leaves_the_report_as_it_was(
    exported: Path, tmp_path: Path, vitexport: Command, directory: str, file: str, code: int, said: str
):
    out = shutil.copytree(exported, tmp_path / "out")
    (tmp_path / "bad.json").write_text("{")
    with (tmp_path / "huge.json").open("wb") as huge:
        huge.truncate(10_000_000_000)  # a hole: no disk is used
    before = (out / "report.json").read_bytes()
    expect(vitexport("report", directory, "--add", file), code, said)
    assert (out / "report.json").read_bytes() == before
    assert sorted(p.name for p in out.iterdir()) == ["proof.png", "reference", "report.html", "report.json"]


def test_one_bad_file_of_two_adds_neither(exported: Path, tmp_path: Path, vitexport: Command):
    out = shutil.copytree(exported, tmp_path / "out")
    (tmp_path / "good.json").write_bytes(msgspec.json.encode(measured(read_bundle(out / "reference"))))
    (tmp_path / "bad.json").write_text("[]")
    before = (out / "report.json").read_bytes()
    assert vitexport("report", "out", "--add", "good.json", "--add", "bad.json").returncode == 2
    assert (out / "report.json").read_bytes() == before


def test_a_bundle_whose_files_were_changed_takes_no_report(exported: Path, tmp_path: Path, vitexport: Command):
    out = shutil.copytree(exported, tmp_path / "out")
    bundle = read_bundle(out / "reference")
    (tmp_path / "good.json").write_bytes(msgspec.json.encode(measured(bundle)))
    golden = bundle.path(bundle.rung.golden[0].outputs["logits"])
    golden.write_bytes(bytes(golden.stat().st_size))
    expect(vitexport("report", "out", "--add", "good.json"), 5, "is not the file that was exported")


def test_a_report_that_cannot_be_written_stays_as_it_was(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = shutil.copytree(exported, tmp_path / "out")
    report = decode((out / "report.json").read_bytes(), Report)
    before = (out / "report.json").read_bytes()

    def full(part: Path, goal: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(WorldFailed, match=r"could not be written \(No space left on device\); it is as it was"):
        write_report(with_results(report, ()), out)
    assert (out / "report.json").read_bytes() == before
    assert sorted(p.name for p in out.iterdir()) == ["proof.png", "reference", "report.html", "report.json"]


# ------------------------------------------------------------------------------------------------ beside another export


def test_an_export_by_force_keeps_what_a_device_measured_of_the_same_files_and_says_what_it_drops(tmp_path: Path):
    request = ExportRequest(model=TINY, targets=("reference",), out=str(tmp_path / "out"), force=True)
    export(request)
    bundle = read_bundle(tmp_path / "out" / "reference")
    phone = accepted(bundle, measured(bundle))
    failing = Parity("passed", drift=0.5, snr_db=6.0, images=2)
    worse = accepted(bundle, measured(bundle, replace(PHONE, name="Pixel 9"), parity=failing))
    filing.file([phone, worse], tmp_path / "out")

    again = export(request)
    assert again.results[1:] == (phone, worse)
    assert again.notes[-1] == "2 results of devices kept: what was exported is what they ran, byte for byte"
    assert decode((tmp_path / "out" / "report.json").read_bytes(), Report) == again
    assert "iPhone15,2" in (tmp_path / "out" / "report.html").read_text()
    assert (again.out, pipeline.exit_code(again)) == (request.out, 0)  # what was exported now has passed
    assert "it is kept apart" not in summary(again)
    assert export(request).results[1:] == (phone, worse)

    other = export(replace(request, model=TINY_MASK))
    assert [r.provider for r in other.results] == ["cpu"]
    assert other.notes[-1] == (
        "2 results of devices dropped: they ran other files. Let the devices measure this export"
    )
    assert not any("of devices" in note for note in export(request).notes)


def test_an_old_report_that_nobody_can_read_is_told_of_and_replaced(tmp_path: Path):
    (tmp_path / "report.json").write_text("{")
    made = export(ExportRequest(model=TINY, targets=("reference",), out=str(tmp_path), force=True))
    assert made.notes[-1] == (
        f"'{tmp_path / 'report.json'}' was not a report this version reads: what devices measured before, if anything, "
        "was dropped"
    )
