"""What a device measured is filed by one rule, whichever way it came: in the report of the export that it ran, on the
page that is there, or nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import written_reports as written
from vitexport.contract import Result
from vitexport.devices.filing import file, filed, home_of
from vitexport.errors import BadRequest
from vitexport.manifest import encode
from vitexport.reports.file import read_report

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
