"""Every bad input ends in one clear sentence and its documented exit code, and leaves nothing half written."""

from __future__ import annotations

import os
import pickle
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TESTS, TINY, Command
from vitexport.photos import images_in

REFERENCE = ("--target", "reference")


def expect(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """The exit code, and one line of error that says all of ``said`` and is no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("vitexport: ")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "vit_smal"), ("Unknown model 'vit_smal'.", "Did you mean 'vit_small'?")),
        (("--model", TINY, "--target", "webgp"), ("Unknown target 'webgp'.", "Did you mean 'webgpu'?")),
        (("--model", TINY, *REFERENCE, "--precision", "fp31"), ("no precision 'fp31'.", "It offers: fp32.")),
        (("--model", TINY, "--target", "ONNX"), ("Unknown target 'ONNX'.", "Did you mean 'onnx'?")),
        (("--model", TINY, "--size", "0"), ("'0' is not a size.", "such as 144x256")),
        (("--model", TINY, "--size", ""), ("'' is not a size.",)),
        (("--model", TINY, "--size", "1000000000"), ("'1000000000' is not a size.",)),
        (("--model", TINY, "--out", ""), ("--out is empty.",)),
        (("--model", TINY, "--out", "."), ("the folder you are in",)),
        (("--model", TINY, "--seed", "-1"), ("--seed -1 is not a whole number",)),
        (("--model", TINY, "--size", "1x2x3"), ("'1x2x3' is not a size.",)),
        (
            ("--model", "vit_tiny", "--weights", "random", "--size", "250", *REFERENCE),
            ("Image size 250 is not a multiple of vit_tiny's patch size 16. Try 240 or 256.",),
        ),
        (("--target", "onnx"), ("--model is missing.",)),
        (("--model", TINY, "--tsak", "classify"), ("Unrecognized arguments: --tsak", "See vitexport --help")),
        (("--model", TINY, "--task", "clasify"), ("invalid choice: 'clasify'",)),
        (("--model", TINY, *REFERENCE, "--max-file", "1MiB"), ("cannot honour --max-file",)),
        (("--model", TINY, *REFERENCE, "--runtime", "none"), ("--runtime means nothing to reference.",)),
        (("--model", TINY, "--max-file", "lots"), ("--max-file 'lots' is not a size.",)),
        (("--model", TINY, "--max-file", "²MiB"), ("--max-file '²MiB' is not a size.",)),
        (("--model", "hf:", *REFERENCE), ("'hf:' names no checkpoint. Write hf:ORG/NAME",)),
        (("--model", "absent.py:make", *REFERENCE), ("There is no file 'absent.py'.",)),
        (("--model", f"{TESTS / 'models.py'}:absent", *REFERENCE), ("'absent'",)),
        (("--model", f"{TESTS / 'models.py'}:not_a_module", *REFERENCE), ("not_a_module",)),
        (("--model", f"{TESTS / 'models.py'}:exits", *REFERENCE), ("failed to build a model: SystemExit: 3.",)),
        (("--model", f"{TESTS / 'models.py'}:wordy", *REFERENCE), ("failed to build a model: RuntimeError: first.",)),
        (("chek", "somewhere"), ("Unknown command 'chek'.", "Did you mean 'check'?")),
        (("check", "absent"), ("'absent' is not a folder.",)),
        (("bench", "."), ("holds no bundle",)),
    ],
)
def test_an_impossible_request_is_refused_with_2(vitexport: Command, tmp_path: Path, arguments, said):
    expect(vitexport(*arguments), 2, *said)
    assert list(tmp_path.iterdir()) == []


def test_out_that_is_not_empty_needs_force_and_keeps_what_is_not_ours(vitexport: Command, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    expect(vitexport("--model", TINY, *REFERENCE, "--out", "out"), 2, "is not empty. Add --force")
    expect(vitexport("--model", TINY, *REFERENCE, "--out", "out", "--force"), 2, "was not written by vitexport")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"


def test_out_that_cannot_be_written_is_refused(vitexport: Command):
    expect(vitexport("--model", TINY, *REFERENCE, "--out", "/proc/out"), 2, "cannot be written")


def test_images_without_an_image_are_refused(vitexport: Command, tmp_path: Path):
    photos = tmp_path / "photos"
    expect(vitexport("--model", TINY, *REFERENCE, "--images", photos), 2, "is not a folder")
    photos.mkdir()
    (photos / "notes.txt").write_text("no picture")
    expect(vitexport("--model", TINY, *REFERENCE, "--images", photos), 2, "holds no image")
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (photos / "empty.jpg").write_bytes(b"")
    expect(vitexport("--model", TINY, *REFERENCE, "--images", photos), 2, "broken.png", "cannot be read as an image")


def test_hidden_images_are_none(vitexport: Command, tmp_path: Path):
    """As ``._0.jpg``, which macOS writes beside ``0.jpg`` on a disk that keeps no extended attributes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("._0.jpg", ".1.png"):
        (photos / name).write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
    expect(vitexport("--model", TINY, *REFERENCE, "--images", photos), 2, "holds no image")
    for name in ("0.png", "1.png"):
        Image.effect_noise((8, 8), 50).save(photos / name)
    assert [path.name for path in images_in(photos, "--images", "")] == ["0.png", "1.png"]


def test_a_working_folder_that_was_deleted_is_told_of(tmp_path: Path):
    env = {name: value for name, value in os.environ.items() if name != "VITEXPORT_NODE_MODULES"}
    for arguments in (("--model", TINY, *REFERENCE, "--out", tmp_path / "out"), ("targets",)):
        command = shlex.join([sys.executable, "-m", "vitexport", *map(str, arguments)])
        done = subprocess.run(
            ["sh", "-c", f"mkdir gone && cd gone && rmdir ../gone && {command}"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        expect(done, 2, "The folder you are in was deleted.")


def test_sixteen_bit_images_are_refused_and_not_clipped_to_white(vitexport: Command, tmp_path: Path):
    (tmp_path / "photos" / "folder.png").mkdir(parents=True)  # not an image, whatever its name
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "photos" / "b.png")
    done = vitexport("--model", TINY, *REFERENCE, "--images", tmp_path / "photos")
    expect(done, 2, "b.png' has more than 8 bits a channel")


def test_truncated_weights_are_refused(vitexport: Command, tmp_path: Path):
    whole = tmp_path / "whole.pth"
    torch.save({"head.weight": torch.zeros(4, 4)}, whole)
    (tmp_path / "half.pth").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "half.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    for name in ("half.pth", "half.safetensors", "absent.pth", "weights.zip"):
        expect(vitexport("--model", TINY, *REFERENCE, "--weights", name), 2, name)


class Malice:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickle_that_wants_to_run_code_does_not_run_it(vitexport: Command, tmp_path: Path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Malice()))
    torch.save({"head.weight": Malice()}, tmp_path / "zip.pth")
    for name in ("evil.pth", "zip.pth"):
        expect(vitexport("--model", TINY, *REFERENCE, "--weights", name), 2, name)
    assert not (tmp_path / "pwned").exists()


def test_a_missing_browser_or_npm_package_is_3_before_any_work(vitexport: Command, tmp_path: Path):
    no_browser = vitexport("--model", TINY, "--target", "webgpu", env={"VITEXPORT_CHROMIUM": "/nowhere/chromium"})
    expect(no_browser, 3, "VITEXPORT_CHROMIUM names '/nowhere/chromium', which is no program.")
    no_npm = vitexport("--model", TINY, "--target", "webgpu", env={"VITEXPORT_NODE_MODULES": "/nowhere"})
    expect(no_npm, 3, "'onnxruntime-web@1.30.0' is not installed.", "npm install onnxruntime-web")
    no_selfie = vitexport("--model", "selfie", *REFERENCE, env={"VITEXPORT_NODE_MODULES": "/nowhere"})
    expect(no_selfie, 3, "'@mediapipe/selfie_segmentation' is not installed.")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_torch_cannot_capture_is_4(vitexport: Command, tmp_path: Path):
    done = vitexport("--model", f"{TESTS / 'models.py'}:untraceable", *REFERENCE, "--size", "32")
    expect(done, 4, "torch.export cannot capture")
    assert len(done.stderr.splitlines()) == 1, "torch's dump of the graph is not for the user"
    assert list(tmp_path.iterdir()) == []


def test_an_ill_posed_parity_is_5_and_keeps_the_last_good_bundle(vitexport: Command, tmp_path: Path):
    assert vitexport("--model", TINY, *REFERENCE, "--out", "out").returncode == 0
    good = (tmp_path / "out" / "report.json").read_bytes()
    done = vitexport("--model", f"{TESTS / 'models.py'}:deaf", *REFERENCE, "--out", "out", "--force")
    assert done.returncode == 5
    assert "ill-posed" in done.stdout
    assert "out.failed" in done.stdout
    assert (tmp_path / "out" / "report.json").read_bytes() == good


def test_the_second_of_two_exports_to_one_folder_does_not_replace_the_first(vitexport: Command, tmp_path: Path):
    """It found the folder absent when it started; what another process has put there since is kept all the same."""
    slow = f"{TESTS / 'models.py'}:tiny_once_there_is_a_report"
    command = [sys.executable, "-m", "vitexport", "--model", slow, *REFERENCE, "--out", "out"]
    second = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert vitexport("--model", TINY, *REFERENCE, "--out", "out").returncode == 0
    first = (tmp_path / "out" / "report.json").read_bytes()
    _, stderr = second.communicate(timeout=300)
    assert (second.returncode, "'out' is not empty" in stderr) == (2, True), stderr
    assert (tmp_path / "out" / "report.json").read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_damaged_bundle_is_5(vitexport: Command, tmp_path: Path):
    assert vitexport("--model", TINY, *REFERENCE, "--out", "out").returncode == 0
    model = tmp_path / "out" / "reference" / "model_32x32.pt2"
    model.write_bytes(model.read_bytes()[:-1])
    for command in ("check", "bench"):
        expect(vitexport(command, "out"), 5, "'model_32x32.pt2' is not the file that was exported")
    model.unlink()
    expect(vitexport("check", "out"), 5, "'model_32x32.pt2' is missing")


def test_a_full_disk_is_6_and_leaves_nothing(tmp_path: Path):
    """A file-size limit stands in for the disk's end: the kernel refuses the write either way (EFBIG, ENOSPC)."""
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from vitexport.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", limited, "--model", TINY, "--target", "reference"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    expect(done, 6, "is full")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_an_output_on_a_full_disk_is_6(tmp_path: Path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vitexport", "models"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr.startswith("vitexport: The disk is full")) == (6, True), done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_export_leaves_the_old_bundle_intact(
    vitexport: Command, tmp_path: Path, number: signal.Signals, code: int
):
    assert vitexport("--model", TINY, *REFERENCE, "--out", "out").returncode == 0
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    running = subprocess.Popen(
        [sys.executable, "-m", "vitexport", "--model", TINY, *REFERENCE, "--out", "out", "--force"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob(".out.staging-*")):
        assert running.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.02)
    running.send_signal(number)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == code, stderr
    assert stderr.endswith("vitexport: Interrupted. Nothing was written; what was there before is untouched.\n")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(("name", "code"), [("sigterm", 143), ("sigint", 130)])
def test_an_interruption_that_arrives_in_a_finaliser_is_not_lost(vitexport: Command, name: str, code: int):
    """Seen in CI: Ctrl-C came while an import's weak reference was called back, and the export went on to its end."""
    done = vitexport("--model", f"{TESTS / 'models.py'}:interrupted_by_{name}", *REFERENCE)
    expect(done, code, "Interrupted.")


def test_an_interruption_in_python_that_c_runs_ends_as_any_other(vitexport: Command):
    """Seen in a full run: the sentence was said, and then the interpreter ended itself by the signal (-2)."""
    done = vitexport("--model", f"{TESTS / 'models.py'}:interrupted_in_c", *REFERENCE)
    expect(done, 130, "Interrupted.")
