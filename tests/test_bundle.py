"""Folders appear whole or not at all, and a manifest cannot point outside its folder."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from vitexport import bundle
from vitexport.contract import Manifest
from vitexport.errors import BadRequest, WorldFailed
from vitexport.manifest import decode, encode, find_bundles, read_bundle


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


def test_a_full_disk_is_the_worlds_failure(tmp_path: Path):
    with pytest.raises(WorldFailed, match="is full"), bundle.staging(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["file/out", "/proc/vitexport"])
def test_a_place_that_cannot_be_written_is_a_bad_request(tmp_path: Path, where: str):
    (tmp_path / "file").write_text("a file where a folder would have to be")
    with pytest.raises(BadRequest, match="cannot be written"), bundle.staging(tmp_path / where):
        pass


def test_what_vitexport_did_not_write_is_not_replaced_even_by_force(tmp_path: Path):
    write(tmp_path / "home", "thesis.tex", "years of work")
    with pytest.raises(BadRequest, match=r"is not empty\. Add --force"):
        bundle.claim(tmp_path / "home", force=False)
    with pytest.raises(BadRequest, match="was not written by vitexport"):
        bundle.claim(tmp_path / "home", force=True)


def test_an_empty_or_absent_folder_may_be_written(tmp_path: Path):
    bundle.claim(tmp_path, force=False)
    bundle.claim(tmp_path / "absent", force=False)


MANIFEST = {
    "schema_version": 1,
    "target": "reference",
    "model": "m",
    "task": "classify",
    "input_name": "pixel_values",
    "input_shape": [1, 3, 8, 8],
    "preprocessing": {"size": {"height": 8, "width": 8}},
    "outputs": [{"name": "logits", "meaning": "logits", "shape": [1, 2]}],
    "variants": [{"precision": "fp32", "files": ["model.pt2"], "tolerance": 1e-5}],
    "golden": [],
    "provenance": {"origin": "o", "licence": "l", "weights_sha256": "0"},
    "toolchain": {},
    "rounding": 1e-6,
    "files": [],
}


def test_a_manifest_round_trips():
    manifest = decode(json.dumps(MANIFEST).encode(), Manifest)
    assert decode(encode(manifest), Manifest) == manifest


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", "a\\..\\b", ""])
def test_a_manifest_that_points_outside_is_refused(tmp_path: Path, path: str):
    bad = {**MANIFEST, "variants": [{"precision": "fp32", "files": [path], "tolerance": 1e-5}]}
    write(tmp_path, "manifest.json", json.dumps(bad))
    with pytest.raises(BadRequest, match="names a file outside its folder"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}', json.dumps({**MANIFEST, "variants": 3})])
def test_a_manifest_that_cannot_be_read_is_said_in_a_sentence(tmp_path: Path, text: str):
    write(tmp_path, "manifest.json", text)
    with pytest.raises(BadRequest, match="is not a manifest this version reads"):
        read_bundle(tmp_path)


def test_a_folder_without_a_bundle_is_said(tmp_path: Path):
    with pytest.raises(BadRequest, match="holds no bundle"):
        find_bundles(tmp_path)
    with pytest.raises(BadRequest, match="is not a folder"):
        find_bundles(tmp_path / "absent")
