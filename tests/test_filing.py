"""What a device measured is filed by one rule, whichever way it came: in the report of the export that it ran, on the
page that is there, or nowhere."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import unproven
import written_reports as written
from conftest import TINY
from vitexport import ExportRequest, export, proof
from vitexport.commands import COMMANDS
from vitexport.contract import Measurement, Parity, Result
from vitexport.devices.filing import file, filed, home_of
from vitexport.errors import BadRequest
from vitexport.manifest import encode
from vitexport.reports.file import read_report, timed_again

EXPORTED = written.result("onnx", "fp32")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With a page that shows no phone, and the folder of a bundle."""
    (tmp_path / "report.json").write_bytes(encode(written.report(EXPORTED)))
    (tmp_path / "report.html").write_text("as it was")
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "manifest.json").write_text("{}")
    return tmp_path


def on_a_phone(result: Result = EXPORTED) -> Result:
    return replace(result, parity=replace(result.parity, runtime="ORT on a phone"))


def test_the_report_has_it_and_the_page_shows_it(home: Path) -> None:
    assert filed([on_a_phone()], home) == (True, f"Filed in {home / 'report.json'}.")
    assert read_report(home).results == (EXPORTED, on_a_phone())
    assert "ORT on a phone" in (home / "report.html").read_text()


def test_where_there_is_no_page_none_is_made(home: Path) -> None:
    (home / "report.html").unlink()
    file([on_a_phone()], home)
    assert sorted(path.name for path in home.iterdir()) == ["onnx", "report.json"]


@pytest.mark.parametrize(
    "other",
    [
        replace(EXPORTED, model="another"),
        replace(EXPORTED, files=()),
        replace(EXPORTED, files=(replace(EXPORTED.files[0], sha256="00" * 32),)),
        written.result("tflite", "fp32"),
    ],
)
def test_what_ran_another_exports_files_is_filed_nowhere_nor_is_what_came_with_it(home: Path, other: Result) -> None:
    before = {path: path.read_bytes() for path in home.glob("report.*")}
    with pytest.raises(
        BadRequest, match=r"report\.json' is of another export\. Measure a bundle where it was written\."
    ):
        file([on_a_phone(), on_a_phone(other)], home)
    done, said = filed([on_a_phone(other)], home)
    assert (done, said.partition("'")[0]) == (False, "Not filed: ")
    assert {path: path.read_bytes() for path in home.glob("report.*")} == before


def test_without_a_report_that_is_said(tmp_path: Path) -> None:
    done, said = filed([on_a_phone()], tmp_path)
    assert not done
    assert said.startswith(f"Not filed: '{tmp_path}' has no report.json.")


def test_the_home_of_a_bundle_is_the_folder_above_from_wherever_it_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "link").symlink_to(home / "onnx")
    monkeypatch.chdir(home / "onnx")
    assert [home_of(Path(name)) for name in (".", "../onnx", "../link")] == [home.resolve()] * 3
    assert home_of(home) == home


def timed(ms: float, **facts: str) -> Result:
    """As ``vitexport bench`` times a cell on this machine."""
    latency = replace(written.measured(ms), facts=facts, peak_memory_bytes=7)
    return replace(EXPORTED, parity=Parity("not run", runtime=EXPORTED.parity.runtime), latency=latency)


def test_latency_that_is_measured_again_replaces_the_old_one_and_leaves_the_proof(home: Path) -> None:
    file([timed(5.0)], home, timed_again)
    (now,) = read_report(home).results
    assert (now.parity, now.latency.median_ms) == (EXPORTED.parity, pytest.approx(5.0, rel=0.05))
    assert now.latency.peak_memory_bytes == 7


def test_each_number_of_threads_has_its_own_row_whose_latency_is_replaced_in_turn(home: Path) -> None:
    file([timed(5.0, threads="1"), timed(3.0, threads="2")], home, timed_again)
    file([timed(4.0, threads="1")], home, timed_again)
    own, one, two = read_report(home).results
    assert own == EXPORTED
    assert [r.latency.median_ms for r in (one, two)] == pytest.approx([4.0, 3.0], rel=0.05)


def test_what_could_not_be_timed_again_stays_as_it_was(home: Path) -> None:
    file([replace(EXPORTED, latency=Measurement("not run", reason="away"))], home, timed_again)
    assert read_report(home).results == (EXPORTED,)


def test_bench_files_its_figures_with_what_was_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ExportRequest(model=TINY, targets=("onnx",), precisions=("fp32",), out=str(tmp_path / "out"))
    (before,) = export(asked).results
    assert COMMANDS["bench"]([str(tmp_path / "out" / "onnx"), "--file", "--sustained", "0.02"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"Filed in {tmp_path / 'out' / 'report.json'}.")
    (after,) = read_report(tmp_path / "out").results
    assert (after.parity, after.files) == (before.parity, before.files)
    assert after.latency.sustained_ms is not None
    assert (after.latency.peak_memory_bytes is None) == (sys.platform != "linux")
    assert " ms after 1 s" in (tmp_path / "out" / "report.html").read_text()


def test_a_folder_without_a_report_is_said_before_anything_is_timed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unproven.written(home / "bundle", ExportRequest(model=TINY, targets=("onnx",), precisions=("fp32",)))
    (home / "report.json").unlink()
    monkeypatch.setattr(proof, "time_only", lambda *_: pytest.fail("it was timed"))
    with pytest.raises(BadRequest, match=r"has no report\.json"):
        COMMANDS["bench"]([str(home / "bundle"), "--file"])
