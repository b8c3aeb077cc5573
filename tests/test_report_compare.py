"""What became worse since an earlier report: each kind of regression is one, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import written_reports as written
from vitexport import spread
from vitexport.commands import COMMANDS
from vitexport.contract import FileEntry, Parity, Result
from vitexport.errors import BadRequest
from vitexport.manifest import encode
from vitexport.reports import comparison_table, markdown
from vitexport.reports.compare import Allowed, Comparison, compare

FP16 = written.result("onnx", "fp16")


def compared(old: Result, new: Result | None, allowed: Allowed | None = None) -> Comparison:
    """Beside another cell that stays as it is."""
    steady = written.result("onnx", "fp32")
    news = (steady,) if new is None else (steady, new)
    return compare(written.report(steady, old), written.report(*news), allowed or Allowed())


def parity(made: Result, **changed: object) -> Result:
    return replace(made, parity=replace(made.parity, **changed))  # type: ignore[arg-type]  # fields by name


def latency(made: Result, **changed: object) -> Result:
    return replace(made, latency=replace(made.latency, **changed))  # type: ignore[arg-type]  # fields by name


def sized(made: Result, count: int) -> Result:
    return replace(made, files=(FileEntry("onnx/m", count, "0"),))


def slower(made: Result, factor: float) -> Result:
    return replace(made, latency=written.measured(40.0 * factor))


def test_a_report_beside_itself_has_no_regression_and_every_figure_is_compared() -> None:
    made = compare(written.report(), written.report(), Allowed())
    assert (made.verdict, made.regressions, made.notes) == ("passed", (), ())
    (cell,) = (c for c in made.cells if c.name == "onnx fp16 on cpu, 224x224")
    assert [(c.figure, c.verdict) for c in cell.checks] == [
        ("verdict", "passed"), ("bytes", "passed"), ("drift", "passed"), ("snr_db", "passed"), ("agreement", "passed"),
        ("latency", "passed"),
    ]  # fmt: skip
    (unrun,) = (c for c in made.cells if c.now == "not run")
    assert [c.figure for c in unrun.checks] == ["verdict", "bytes"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: sized(r, 11_800_000), "11,630,000 bytes became 11,800,000, +1.5 %; 1 is allowed"),
        (lambda r: parity(r, drift=1e-2), "drift 1.6e-03 became 1.0e-02; 4 is allowed"),
        (lambda r: parity(r, snr_db=52.0), "SNR fell from 55.9 to 52.0 dB; 3 is allowed"),
        (lambda r: parity(r, agreement=0.99), "agreement fell from 1.0000 to 0.9900; 0.5 is allowed"),
        (lambda r: parity(r, snr_db=float("nan")), "SNR fell from 55.9 to nan dB; 3 is allowed"),
        (lambda r: slower(r, 1.4), "median 40.1 ms became 56.2, 1.40 times (1.32 to 1.49); 1.25 is allowed"),
        (lambda r: written.failed(r, "too far"), "was passed, is failed (too far)"),
        (lambda r: written.unrun(r, "no runtime"), "was passed, is not run (no runtime)"),
        (
            lambda r: replace(r, parity=Parity("not run", runtime=r.parity.runtime)),
            "was passed, is timed",
        ),
        (lambda r: None, "it was passed, and is gone"),
        (
            lambda r: replace(r, device_verdict="not run", device_reason="needs a Mac"),
            "a device passed it, none ran it now (needs a Mac)",
        ),
        (
            lambda r: latency(r, verdict="not run", median_ms=None, reason="no time"),
            "it was timed, and is not now (no time)",
        ),
    ],
)
def test_each_kind_of_regression_is_one(change: Callable[[Result], Result | None], says: str) -> None:
    made = compared(FP16, change(FP16))
    assert made.verdict == "failed"
    assert f"onnx fp16 on cpu, 224x224: {says}" in made.regressions


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (FP16, sized(FP16, 11_700_000)),
        (FP16, sized(FP16, 1_000)),
        (FP16, parity(FP16, snr_db=54.0, drift=5e-3, agreement=0.998)),
        (parity(FP16, snr_db=160.0, drift=1e-9), parity(FP16, snr_db=104.0, drift=9e-6)),  # float32's own rounding
        (FP16, slower(FP16, 1.15)),
        (slower(FP16, 3.0), FP16),
        (written.failed(FP16, "far"), FP16),
        (written.failed(FP16, "far"), written.unrun(FP16, "no runtime")),
        (written.unrun(FP16, "no runtime"), written.failed(FP16, "far")),
    ],
)
def test_what_is_within_its_bound_or_was_no_better_is_none(old: Result, new: Result) -> None:
    assert compared(old, new).regressions == ()


@pytest.mark.parametrize(
    ("new", "why"),
    [
        (latency(slower(FP16, 9), device="Another"), "another device: A processor, then Another"),
        (latency(slower(FP16, 9), runtime="runtime 2"), "another runtime: runtime 1.0, then runtime 2"),
        (latency(slower(FP16, 9), facts={"threads": "1"}), "another number of threads: any, then 1: median 40.1 ms"),
        (latency(slower(FP16, 9), warning="power was low; 9 runs; 30 tell more"), "power was low: median"),
        (latency(slower(FP16, 9), times_ms=(360.0,) * 5, warning="too few runs to tell"), "too few runs to tell"),
    ],
)
def test_latency_is_compared_on_one_device_in_one_runtime_alone_and_else_says_so(new: Result, why: str) -> None:
    made = compared(FP16, new)
    (check,) = (c for cell in made.cells for c in cell.checks if c.verdict == "not run")
    assert (check.figure, made.verdict) == ("latency", "passed")
    assert check.reason.startswith(why)
    assert (check.change is None) == why.startswith(("another device", "another runtime"))
    said = markdown.comparison(made)
    assert why in said.replace("\\", "")
    assert "✅ nothing became worse; latency of 1 cell was not compared" in said


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            {"os": "Darwin 24.1.0 arm64"},
            {"os": "Linux 6.8.0 x86_64"},
            "another operating system: Darwin arm64, then Lin",
        ),
        ({"cores": "4"}, {"cores": "2"}, "another number of cores: 4, then 2"),
        ({"os": "Android 15"}, {"os": "Android 16"}, "another operating system: Android 15, then Android 16"),
        ({"os": "Linux 6.8.0-45-generic x86_64"}, {"os": "Linux 6.11.0-1-azure x86_64"}, ""),
        ({}, {"os": "Linux 6.8.0 x86_64", "cores": "2"}, ""),
    ],
)
def test_a_device_is_its_system_and_its_cores_too(old: dict[str, str], new: dict[str, str], why: str) -> None:
    made = compared(latency(FP16, facts=old), latency(slower(FP16, 9), facts=new))
    (check,) = (c for cell in made.cells if cell.precision == "fp16" for c in cell.checks if c.figure == "latency")
    assert check.verdict == ("not run" if why else "failed")
    assert check.reason.startswith(why)


def test_a_stand_ins_times_are_nobodys() -> None:
    emulated = written.emulated(FP16)
    made = compared(emulated, latency(emulated, median_ms=1e6))
    (check,) = (c for cell in made.cells for c in cell.checks if c.figure == "latency" and c.verdict == "not run")
    assert check.reason == "no device's times (needs the hardware itself: software stood in for it)"


#: Sorted, the middle of 30 runs is their 10th to their 21st at 95 %: here 30 to 51 ms, half as wide as the median.
WIDE = tuple(20.0 + ms for ms in range(1, 31))


def noisy(factor: float) -> Result:
    """As shared machines time: with a warning on nearly every figure."""
    times = tuple(factor * ms for ms in WIDE)
    return latency(FP16, times_ms=times, median_ms=factor * 35.5, warning=spread.warning(times))


@pytest.mark.parametrize(
    ("factor", "most", "verdict", "says"),
    [
        (10.0, 1.25, "failed", "median 35.5 ms became 355.0, 10.00 times (7.32 to 13.67); 1.25 is allowed"),
        (1.3, 1.25, "not run", "too wide to tell: median 35.5 ms became 46.1, 1.30 times (0.95 to 1.78), and 1.25 is"),
        (1.0, 1.25, "not run", "too wide to tell: median 35.5 ms became 35.5, 1.00 times (0.73 to 1.37), and 1.25 is"),
        (1.0, 1.40, "passed", ""),
        (0.5, 1.25, "passed", ""),
    ],
)
def test_runs_that_spread_widely_are_judged_by_what_is_known_of_their_medians(
    factor: float, most: float, verdict: str, says: str
) -> None:
    old, new = noisy(1.0), noisy(factor)
    assert old.latency.warning.startswith("wide spread")
    made = compared(old, new, Allowed(latency_ratio=most))
    (cell,) = (c for c in made.cells if c.precision == "fp16")
    (check,) = (c for c in cell.checks if c.figure == "latency")
    assert (check.verdict, check.change) == (verdict, pytest.approx(factor))
    assert (check.low, check.high) == (pytest.approx(factor * 30 / 41), pytest.approx(factor * 41 / 30))
    assert check.reason.startswith(says)
    assert cell.verdict == ("failed" if verdict == "failed" else "passed")
    assert cell.said == {"failed": "worse", "not run": "all but latency", "passed": "within"}[verdict]


def test_medians_whose_runs_were_not_kept_are_compared_as_they_are() -> None:
    old, new = (latency(FP16, median_ms=ms, times_ms=()) for ms in (40.0, 80.0))
    assert "median 40.0 ms became 80.0, 2.00 times; 1.25 is allowed" in compared(old, new).regressions[0]


def test_a_row_of_which_nothing_that_ran_was_compared_does_not_look_passed(capsys: pytest.CaptureFixture[str]) -> None:
    phone = written.timed(FP16, "Pixel 9")
    wide = replace(phone, latency=replace(noisy(1.0).latency, device="Pixel 9", runtime="LiteRT 2"))
    unrun = written.unrun(written.result("onnx", "w8"), "no runtime")
    still = written.failed(written.result("onnx", "w4"), "far")
    made = compare(written.report(wide, unrun, still), written.report(wide, unrun, still), Allowed())
    assert [(c.verdict, c.said) for c in made.cells] == [
        ("not run", "not compared"), ("not run", "not run"), ("not run", "still failed")
    ]  # fmt: skip
    assert made.verdict == "not run"
    said = markdown.comparison(made)
    assert "✅" not in said
    assert "### Beside the last export: ⬜ nothing could be compared; latency of 1 cell was not compared" in said
    assert "| ⬜ not compared | onnx fp16 |" in said
    assert "| ×1.00 ⬜ |" in said
    comparison_table.render(made)
    shown = capsys.readouterr().out
    assert "x1.00?" in shown
    assert "Nothing could be compared." in shown


def test_the_same_cell_on_two_devices_is_two_cells_and_on_another_machine_one() -> None:
    phone = written.timed(FP16, "Pixel 9")
    both = compare(written.report(FP16, phone), written.report(phone, FP16), Allowed())
    assert [(c.device, c.was, c.now) for c in both.cells] == [
        ("A processor", "passed", "passed"), ("Pixel 9", "timed", "timed")
    ]  # fmt: skip
    gone = compare(written.report(FP16, phone), written.report(FP16), Allowed())
    assert [(c.was, c.now) for c in gone.cells] == [("passed", "passed"), ("timed", "missing")]
    (elsewhere,) = compare(written.report(FP16), written.report(latency(FP16, device="Other")), Allowed()).cells
    assert (elsewhere.was, elsewhere.now, elsewhere.verdict) == ("passed", "passed", "passed")


def test_what_only_a_device_can_make_again_is_no_regression_where_it_was_not_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A baseline keeps what phones measured; a CI has no phones, and another processor than the host's was."""
    ran, refused = written.on_phone(FP16), written.on_phone(written.unrun(FP16, "out of memory"), "iPhone15,2")
    old = written.report(FP16, ran, refused, written.unrun(written.result("onnx", "w4"), "no runtime"))
    made = compare(old, written.report(latency(FP16, device="Another")), Allowed())
    assert (made.verdict, made.regressions) == ("passed", ())
    assert [(c.name, c.was, c.now, c.said) for c in made.cells] == [
        ("onnx fp16 on cpu, 224x224, Another", "passed", "passed", "all but latency"),
        ("onnx fp16 on cpu, 224x224, Pixel 9", "passed", "missing", "not asked again"),
        ("onnx fp16 on cpu, 224x224, iPhone15,2", "not run", "missing", "gone"),
        ("onnx w4 on cpu, 224x224", "not run", "missing", "gone"),
    ]
    comparison_table.render(made)
    shown, said = capsys.readouterr().out, markdown.comparison(made).replace("\\", "")
    for each in (
        "verdict of onnx fp16 on cpu, 224x224, Pixel 9: it was passed, and this device was not asked again",
        "verdict of onnx w4 on cpu, 224x224: it was not run, and is gone",
    ):
        assert each in shown
        assert each in said
    assert "| ⬜ not asked again | onnx fp16 | cpu, Pixel 9 |" in said


def test_a_device_is_compared_with_itself_alone_and_its_runtimes_are_told_apart() -> None:
    first, second = (written.on_phone(FP16, runtime=runtime) for runtime in ("ORT in Chrome 140", "ORT in Firefox 150"))
    slow = latency(second, **vars(replace(written.measured(400.0), device="Pixel 9", runtime="ORT in Firefox 150")))
    made = compare(written.report(FP16, first, second), written.report(slow, FP16, first), Allowed())
    assert len(made.cells) == 3
    assert [r.partition(": ")[0] for r in made.regressions] == [
        "onnx fp16 on cpu, 224x224, Pixel 9, ORT in Firefox 150"
    ]
    other = written.on_phone(FP16, "Galaxy S25")
    made = compare(written.report(first), written.report(other), Allowed())
    assert [(c.device, c.was, c.now) for c in made.cells] == [
        ("Pixel 9", "passed", "missing"), ("Galaxy S25", "missing", "passed")
    ]  # fmt: skip
    assert made.verdict == "not run"


def test_a_new_cell_is_no_regression_and_other_weights_are_told_of() -> None:
    new = replace(written.report(FP16, written.result("onnx", "w8")), vitexport="0.2.0")
    new = replace(new, provenance=replace(new.provenance, weights_sha256="other"))
    made = compare(written.report(FP16), new, Allowed())
    assert made.verdict == "passed"
    assert made.cells[1].was == "missing"
    assert made.cells[1].verdict == "not run"
    assert [note.split(",")[0] for note in made.notes] == ["The weights differ", "Exported by vitexport 0.1.0 then"]


# ------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    for name, report in (("old", written.report(FP16)), ("new", written.report(slower(sized(FP16, 12_000_000), 1.5)))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_bytes(encode(report))
    return str(tmp_path / "old"), str(tmp_path / "new" / "report.json")


def test_the_exit_code_is_that_of_a_failed_parity(pair: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    old, new = pair
    assert COMMANDS["report"](["--compare", old, new]) == 5
    said = capsys.readouterr().out
    assert "Regression: onnx fp16 on cpu, 224x224: 11,630,000 bytes became 12,000,000, +3.2 %; 1 is allowed" in said
    assert "2 regressions." in said
    assert COMMANDS["report"](["--compare", old, new, "--max-bytes", "5", "--max-latency", "2"]) == 0
    assert COMMANDS["report"](["--compare", new, old]) == 0


def test_json_and_markdown_say_the_same(pair: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS["report"](["--compare", *pair, "--json"]) == 5
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    checks = {check["figure"]: check for check in found["cells"][0]["checks"]}
    assert (found["verdict"], found["allowed"]["bytes_percent"]) == ("failed", 1.0)
    assert checks["bytes"]["change"] == pytest.approx(3.18, abs=0.01)
    assert checks["latency"]["change"] == pytest.approx(1.5)
    assert COMMANDS["report"](["--compare", *pair, "--markdown"]) == 5
    said = capsys.readouterr().out
    assert said.startswith("### Beside the last export: ❌ regression")
    assert "**+3.2 %**" in said
    assert "**×1.50**" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "Name the folder that vitexport wrote"),
        (["DIR", "--compare", "OLD", "NEW"], "--compare takes two reports and nothing else"),
        (["--html", "--compare", "OLD", "NEW"], "--compare takes two reports and nothing else"),
        (["DIR", "--max-bytes", "3"], "--max-bytes means nothing without --compare"),
        (["DIR", "--html", "--json"], "not allowed with argument"),
        (["--compare", "OLD"], "expected 2 arguments"),
        (["--compare", "nowhere", "NEW"], "'nowhere' has no report.json. Name the folder"),
        (
            ["--compare", "OLD", "NEW", "--max-latency", "0.5"],
            "0.5 is no bound for latency ratio: write a number from 1 on",
        ),
        (["--compare", "OLD", "NEW", "--max-bytes", "nan"], "nan is no bound for bytes percent"),
        (["--compare", "OLD", "NEW", "--max-drift", "inf"], "inf is no bound for drift ratio"),
        (["--compare", "EMPTY", "NEW"], "The old report has no results"),
    ],
)
def test_what_cannot_be_asked_is_said(pair: tuple[str, str], tmp_path: Path, words: list[str], says: str) -> None:
    (tmp_path / "empty.json").write_bytes(encode(replace(written.report(), results=())))
    places = {"DIR": pair[0], "OLD": pair[0], "NEW": pair[1], "EMPTY": str(tmp_path / "empty.json")}
    with pytest.raises(BadRequest) as said:
        COMMANDS["report"]([places.get(word, word) for word in words])
    assert says in str(said.value)
