"""Folders appear whole or not at all, and a manifest cannot point outside its folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import written_reports as written
from vitexport import bundle
from vitexport.contract import Manifest
from vitexport.errors import BadRequest, Interrupted, WorldFailed
from vitexport.manifest import decode, encode, find_bundles, read_bundle
from vitexport.quantize import plan
from vitexport.reports.file import read_report
from vitexport.reports.stored import around


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_a_published_folder_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path):
    out = tmp_path / "out"
    write(out, "old", "old")
    with bundle.staging(out) as stage:
        write(stage, "new", "new")
        bundle.publish(stage, out)
    assert [p.name for p in out.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failure_half_way_leaves_the_old_folder_and_no_other(tmp_path: Path):
    out = tmp_path / "out"
    write(out, "old", "old")

    def fail_half_way(stage: Path) -> None:
        write(stage, "new", "new")
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError), bundle.staging(out) as stage:
        fail_half_way(stage)
    assert (out / "old").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_folders_change_places_waits_until_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
):
    """Whichever thread the system gives it to: libraries have theirs."""
    out, over = tmp_path / "out", threading.Event()
    rename = Path.rename

    def interrupted(path: Path, to: Path) -> Path:
        os.kill(os.getpid(), number)
        return rename(path, to)

    def handle(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    another, before = threading.Thread(target=over.wait), signal.signal(number, handle)
    another.start()
    try:
        with bundle.staging(out) as stage:
            (stage / "new").touch()
            out.mkdir()
            monkeypatch.setattr(Path, "rename", interrupted)
            with pytest.raises(Interrupted):
                bundle.publish(stage, out)
        assert signal.getsignal(number) is handle
    finally:
        signal.signal(number, before)
        over.set()
        another.join()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/new"]


def test_an_interruption_says_what_is_there(tmp_path: Path):
    def publish_and_be_interrupted(stage: Path) -> None:
        bundle.publish(stage, tmp_path / "out")
        raise Interrupted(signal.SIGINT)

    nothing = r"^Interrupted\. Nothing was written; what was there before is untouched\.$"
    with pytest.raises(Interrupted, match=nothing) as said, bundle.staging(tmp_path / "out"):
        raise Interrupted(signal.SIGTERM)
    assert said.value.exit_code == 143
    whole = r"^Interrupted\. What was made is written, whole\.$"
    with pytest.raises(Interrupted, match=whole), bundle.staging(tmp_path / "out") as stage:
        publish_and_be_interrupted(stage)
    assert str(Interrupted(signal.SIGINT)) == "Interrupted."


def test_a_full_disk_is_the_worlds_failure(tmp_path: Path):
    with pytest.raises(WorldFailed, match="is full"), bundle.staging(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["file/out", "/proc/vitexport"])
def test_a_place_that_cannot_be_written_is_a_bad_request(tmp_path: Path, where: str):
    (tmp_path / "file").write_text("a file where a folder would have to be")
    with pytest.raises(BadRequest, match="cannot be written"), bundle.staging(tmp_path / where):
        pass


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path):
    path = tmp_path / "report.json"
    with bundle.whole(path) as part:
        part.write_text("old")
        assert not path.exists()
    path.chmod(0o640)

    def fail_half_way(part: Path) -> None:
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), bundle.whole(path) as part:
        fail_half_way(part)
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])
    with bundle.whole(path) as part:
        part.write_text("new")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("new", [path])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_cannot_be_written_is_the_worlds_failure(tmp_path: Path):
    path = tmp_path / "absent" / "report.html"
    with pytest.raises(WorldFailed) as failure, bundle.whole(path) as part:
        part.write_text("new")
    assert str(failure.value) == (
        f"'{path}' could not be written (No such file or directory); it is as it was. Free some space, or see who else "
        "writes there."
    )


def test_what_vitexport_did_not_write_is_not_replaced_even_by_force(tmp_path: Path):
    write(tmp_path / "home", "thesis.tex", "years of work")
    with pytest.raises(BadRequest, match=r"is not empty\. Add --force"):
        bundle.claim(tmp_path / "home", force=False)
    with pytest.raises(BadRequest, match="was not written by vitexport"):
        bundle.claim(tmp_path / "home", force=True)


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path):
    for goal in ("real", "absent"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(goal)
        out = bundle.place(str(tmp_path / "link"))
        with bundle.staging(out) as stage:
            write(stage, "new", "new")
            bundle.publish(stage, out)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / goal / "new").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["absent", "link", "real"]
    assert bundle.place(str(tmp_path / "real" / "..")) == tmp_path


def test_the_folder_one_stands_in_is_not_pulled_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", "..", "/"):
        with pytest.raises(BadRequest, match="the folder you are in"):
            bundle.claim(bundle.place(out), force=False)
    with pytest.raises(BadRequest, match="--out is empty"):
        bundle.place("")


@pytest.mark.parametrize("name", ["a" * 300, "a" * 250])
def test_a_name_that_the_file_system_cannot_hold_is_a_bad_request(tmp_path: Path, name: str):
    def write_it() -> None:
        bundle.claim(tmp_path / name, force=False)
        with bundle.staging(tmp_path / name):
            pass

    with pytest.raises(BadRequest, match="cannot be written"):
        write_it()


def test_a_folder_that_is_taken_away_half_way_is_the_worlds_failure(tmp_path: Path):
    def lose_it(stage: Path) -> None:
        os.rmdir(stage)
        write(stage / "deep", "new", "new")
        os.rename(stage, stage / "inside")

    with pytest.raises(WorldFailed, match="can no longer be written"), bundle.staging(tmp_path / "out") as stage:
        lose_it(stage)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 3 EB")]
)
def test_memory_that_runs_out_is_the_worlds_failure(tmp_path: Path, error: Exception):
    with pytest.raises(WorldFailed, match="memory does not suffice"), bundle.staging(tmp_path / "out"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_an_empty_or_absent_folder_may_be_written(tmp_path: Path):
    bundle.claim(tmp_path, force=False)
    bundle.claim(tmp_path / "absent", force=False)


def test_a_folder_that_a_file_manager_looked_into_is_empty_all_the_same(tmp_path: Path):
    for name in (".DS_Store", "._.DS_Store", "Thumbs.db", "desktop.ini"):
        write(tmp_path, name, "where its icons lie")
    bundle.claim(tmp_path, force=False)
    write(tmp_path, "thesis.tex", "years of work")
    with pytest.raises(BadRequest, match="is not empty"):
        bundle.claim(tmp_path, force=False)


RUNG = {
    "input_shape": [1, 3, 8, 8],
    "preprocessing": {"size": {"height": 8, "width": 8}},
    "outputs": [{"name": "logits", "meaning": "logits", "shape": [1, 2]}],
    "variants": [{"precision": "fp32", "files": ["model.pt2"], "tolerance": 1e-5}],
    "golden": [{"name": "g", "photo": "g.png", "input": "g.in", "outputs": {"logits": "g.out"}}],
    "rounding": 1e-6,
}
MANIFEST = {
    "schema_version": 1,
    "target": "reference",
    "model": "m",
    "task": "classify",
    "input_name": "pixel_values",
    "rungs": [RUNG],
    "provenance": {"origin": "o", "licence": "l", "weights_sha256": "0"},
    "toolchain": {},
    "files": [
        {"path": path, "bytes": size, "sha256": "0"}
        for path, size in {"model.pt2": 1, "g.png": 1, "g.in": 4 * 3 * 8 * 8, "g.out": 4 * 2}.items()
    ],
}


def test_a_manifest_round_trips():
    manifest = decode(json.dumps(MANIFEST).encode(), Manifest)
    assert decode(encode(manifest), Manifest) == manifest


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", "a\\..\\b", ""])
def test_a_manifest_that_points_outside_is_refused(tmp_path: Path, path: str):
    variant = {"precision": "fp32", "files": [path], "tolerance": 1e-5}
    bad = {**MANIFEST, "rungs": [{**RUNG, "variants": [variant]}]}
    write(tmp_path, "manifest.json", json.dumps(bad))
    with pytest.raises(BadRequest, match="names a file outside its folder"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}', json.dumps({**MANIFEST, "rungs": 3})])
def test_a_manifest_that_cannot_be_read_is_said_in_a_sentence(tmp_path: Path, text: str):
    write(tmp_path, "manifest.json", text)
    with pytest.raises(BadRequest, match="is not a manifest this version reads"):
        read_bundle(tmp_path)


def test_a_manifest_of_another_version_is_said_to_be_one(tmp_path: Path):
    write(tmp_path, "manifest.json", '{"rungs": 3, "schema_version": 2}')
    with pytest.raises(BadRequest) as said:
        read_bundle(tmp_path)
    assert str(said.value) == (
        f"'{tmp_path / 'manifest.json'}' is not a manifest this version reads (another version of vitexport wrote it: "
        "its schema_version is 2, and this one reads 1). Export the model again."
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"variants": []}, "it has no variants"),
        ({"rungs": []}, "it lists no size to run at"),
        ({"golden": []}, "it has no variants, no outputs or no golden cases"),
        ({"files": MANIFEST["files"][1:]}, "its files do not list 'model.pt2'"),
        ({"input_shape": [1, 3, 9**9, 8]}, "is not that of its preprocessing"),
        ({"input_shape": [8, 8]}, "is not that of its preprocessing"),
        ({"outputs": [{"name": "other", "meaning": "logits", "shape": [1, 2]}]}, "'g' does not answer every output"),
        ({"outputs": [{"name": "logits", "meaning": "logits", "shape": [1, 3]}]}, "'g.out' does not hold a tensor"),
        (
            {"outputs": [{"name": "logits", "meaning": "segmentation", "shape": [1, 2, 1, 1], "person": 2}]},
            "output 'logits' has no channel 2 to tell of people",
        ),
    ],
)
def test_a_manifest_that_would_pass_anything_is_refused(tmp_path: Path, changed: dict[str, Any], said: str):
    write(tmp_path, "manifest.json", json.dumps(MANIFEST))
    assert read_bundle(tmp_path).manifest.model == "m"
    top = {**MANIFEST, **{k: v for k, v in changed.items() if k in MANIFEST}}
    rungs = [{**rung, **{k: v for k, v in changed.items() if k in RUNG}} for rung in top["rungs"]]
    write(tmp_path, "manifest.json", json.dumps({**top, "rungs": rungs}))
    with pytest.raises(BadRequest, match="was changed after the export") as refused:
        read_bundle(tmp_path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "data", [b'{"model": "\xff", "out": "\xff"}', b'{"x":' + b"[" * 100_000], ids=["not UTF-8", "nested too deeply"]
)
def test_stored_json_that_no_json_reader_takes_is_said_or_left_out(tmp_path: Path, data: bytes):
    folder = tmp_path / "onnx"
    folder.mkdir()
    for name in ("manifest.json", "report.json", "diff.json", "plan.json"):
        (folder / name).write_bytes(data)
    for place, read in ((folder, find_bundles), (folder, read_report), (folder / "plan.json", plan.read)):
        with pytest.raises(BadRequest, match=r"it is (not UTF-8|nested too deeply)"):
            read(place)
    report = written.report(written.result("onnx", "fp32"))
    assert not around(tmp_path, report).manifests
    assert not around(folder, report).traces


def test_a_manifest_that_is_a_folder_is_said(tmp_path: Path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(BadRequest, match="cannot be read"):
        read_bundle(tmp_path)


def test_a_folder_without_a_bundle_is_said(tmp_path: Path):
    with pytest.raises(BadRequest, match="holds no bundle"):
        find_bundles(tmp_path)
    with pytest.raises(BadRequest, match="is not a folder"):
        find_bundles(tmp_path / "absent")
