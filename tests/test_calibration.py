"""Pictures of the user's to measure activations on: few, broken or empty ones are told of, and stop no target."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import TESTS, Command
from vitexport import ExportRequest, capture, export, models, photos
from vitexport.contract import Preprocessing, Probe, Report, Size
from vitexport.errors import BadRequest
from vitexport.pipeline import check
from vitexport.quantize import calibration, pictures

ROOMY = f"{TESTS / 'models.py'}:roomy"

#: Each target that has a precision of calibrated activations, with what it needs beyond the base install.
TARGETS = [("onnx", "onnxruntime"), ("tflite", "ai_edge_quantizer"), ("coreml", "coremltools")]

Folder = Callable[[int], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def filled(count: int) -> Path:
        """With pictures of noise, each coarser than the last."""
        made = tmp_path / "pictures"
        made.mkdir()
        for index in range(count):
            rng = np.random.default_rng(index)
            coarse = Image.fromarray(rng.integers(0, 256, (4 + index, 5 + index, 3), dtype=np.uint8))
            coarse.resize((60, 48)).save(made / f"{index:02}.png")
        return made

    return filled


def blacken(folder: Path, *names: str) -> None:
    for name in names:
        Image.new("RGB", (40, 40)).save(folder / name)


def exported(target: str, folder: Path, out: Path, *precisions: str) -> Report:
    asked = ExportRequest(model=ROOMY, targets=(target,), precisions=precisions, calibration=str(folder), out=str(out))
    return export(asked)


# ------------------------------------------------------------------------------------------------- what is said


def test_enough_pictures_are_used_whole_and_without_a_word(folder: Folder):
    found = pictures.gather(str(folder(calibration.PICTURES)))
    assert found.notes == ()
    used = calibration.calibration(found.photos, Preprocessing(Size(8, 8)))
    assert (len(used.pictures), used.photos) == (calibration.PICTURES, calibration.PICTURES)


def test_few_pictures_are_filled_up_and_told_of(folder: Folder):
    found = pictures.gather(str(folder(8)))
    assert found.notes == (
        "8 calibration images: crops and mirror images fill up to 32, which show less than as many photos do. "
        "Give 32 or more.",
    )
    used = calibration.calibration(found.photos, Preprocessing(Size(8, 8)))
    assert (len(used.pictures), used.photos) == (32, 8)


def test_a_picture_that_cannot_be_read_is_skipped_and_named(folder: Folder):
    home = folder(8)
    (home / "03.png").write_bytes((home / "03.png").read_bytes()[:100])
    (home / "text.jpg").write_text("no picture")
    found = pictures.gather(str(home))
    assert [probe.name for probe in found.photos] == [f"{i:02}.png" for i in (0, 1, 2, 4, 5, 6, 7)]
    first, second, few = found.notes
    assert first.startswith("Calibration skipped an image: ")
    assert "03.png' cannot be read as an image" in first
    assert "text.jpg' cannot be read as an image" in second
    assert few.startswith("7 calibration images: ")


def test_many_broken_pictures_are_counted(folder: Folder):
    home = folder(1)
    for index in range(12):
        (home / f"broken{index}.png").write_bytes(b"")
    assert pictures.gather(str(home)).notes[5] == "Calibration skipped 7 images more that cannot be read."


def test_pictures_that_show_nothing_are_named(folder: Folder):
    home = folder(2)
    blacken(home, "black.png")
    Image.new("RGB", (40, 40), (10, 200, 30)).save(home / "green.jpg")
    assert pictures.gather(str(home)).notes[-1] == (
        "Of one colour, so that calibration learns nothing from it: black.png, green.jpg."
    )


def test_nothing_but_black_is_said_plainly(folder: Folder):
    home = folder(0)
    blacken(home, "a.png", "b.png")
    assert pictures.gather(str(home)).notes[-1].startswith("All calibration images are of one colour: ")


def test_a_folder_of_nothing_readable_is_refused(folder: Folder):
    home = folder(0)
    (home / "broken.png").write_bytes(b"PNG")
    with pytest.raises(BadRequest, match=r"holds no image that can be read\. '.*broken\.png' cannot be read"):
        pictures.gather(str(home))


@pytest.mark.parametrize(
    ("given", "precision", "said"),
    [
        ("absent", "w8a8", r"^--calibration 'absent' is not a folder\."),
        (".", "w8a8", r"^--calibration '\.' holds no image \(.*\)\. Put 32 photos or more there"),
        (".", "fp32", r"^--calibration means nothing to fp32, which leave activations as they are\."),
    ],
    ids=["absent", "empty", "needless"],
)
def test_what_cannot_be_calibrated_on_is_refused_before_torch_is_imported(
    given: str, precision: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    asked = ExportRequest(model=ROOMY, targets=("onnx",), precisions=(precision,), calibration=given)
    with pytest.raises(BadRequest, match=said):
        check(asked, tmp_path / "out")


def test_without_a_folder_the_photos_of_parity_are_measured_on():
    source = capture.capture(models.build(ExportRequest(model=ROOMY)), "roomy", photos.probes(None))
    assert (calibration.of(source).photos, len(calibration.of(source).pictures)) == (4, 32)
    own = Probe("own", "photo", np.zeros((9, 9, 3), np.uint8))
    assert calibration.of(replace(source, calibration=(own,))).photos == 1


# ---------------------------------------------------------------------------------------------- the whole product


@pytest.mark.parametrize(("target", "needs"), TARGETS, ids=[name for name, _ in TARGETS])
def test_eight_pictures_one_broken_and_one_black_calibrate_every_target(
    target: str, needs: str, folder: Folder, tmp_path: Path
):
    pytest.importorskip(needs)
    home = folder(6)
    blacken(home, "black.png")
    (home / "broken.png").write_bytes(b"PNG")
    report = exported(target, home, tmp_path / "out", "fp32", "w8a8")
    assert {result.verdict for result in report.results if result.precision == "fp32"} <= {"passed", "not run"}
    assert all(result.parity.snr_db > 0 for result in report.results if result.parity.snr_db is not None)
    said = "\n".join(report.notes)
    assert "broken.png' cannot be read" in said
    assert "7 calibration images: " in said
    assert "learns nothing from it: black.png" in said
    (rung,) = json.loads((Path(report.out) / target / "manifest.json").read_text())["rungs"]
    assert rung["calibration"].keys() == {"pictures", "photos", "sha256", "observer"}
    assert (rung["calibration"]["pictures"], rung["calibration"]["photos"]) == (32, 7)
    assert rung["calibration"]["observer"] == "mse"


@pytest.mark.parametrize(("target", "needs"), TARGETS, ids=[name for name, _ in TARGETS])
def test_black_pictures_alone_calibrate_every_target_without_a_crash(
    target: str, needs: str, folder: Folder, tmp_path: Path
):
    """Badly: what they measure is not what photos show, and the report says both."""
    pytest.importorskip(needs)
    home = folder(0)
    blacken(home, "a.png", "b.png")
    with np.errstate(divide="raise", invalid="raise"):
        report = exported(target, home, tmp_path / "out", "w8a8")
    assert any(note.startswith("All calibration images are of one colour: ") for note in report.notes)
    assert all(result.parity.snr_db is None or np.isfinite(result.parity.snr_db) for result in report.results)


def test_a_bundle_that_quantises_no_activations_names_no_pictures(tmp_path: Path):
    export(ExportRequest(model=ROOMY, targets=("onnx",), precisions=("fp32", "w8"), out=str(tmp_path / "out")))
    (rung,) = json.loads((tmp_path / "out" / "onnx" / "manifest.json").read_text())["rungs"]
    assert rung["calibration"] is None


def test_the_terminal_tells_of_few_pictures(vitexport: Command, folder: Folder):
    done = vitexport(
        "--model", ROOMY, "--target", "onnx", "--precision", "w8a8", "--calibration", folder(8), "--out", "out"
    )
    assert done.returncode == 0, done.stderr
    assert "Note: 8 calibration images: crops and mirror images fill up to 32" in done.stdout
