"""The main job, end to end: from a name to a proven bundle, through the command line and from Python."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import TINY, TINY_MASK, Command
from vitexport import ExportRequest, Size, export
from vitexport.bundle import read_golden
from vitexport.contract import Report
from vitexport.manifest import decode, read_bundle

RESULT = {"model", "target", "precision", "size", "files", "parity", "latency"}
PARITY = {"verdict", "drift", "snr_db", "cosine", "agreement", "images", "reason"}
LATENCY = {"verdict", "device", "runtime", "provider", "load_ms", "cold_ms", "median_ms", "p90_ms", "runs", "reason"}


def test_the_python_call_returns_what_report_json_holds(tmp_path: Path):
    out = tmp_path / "out"
    report = export(ExportRequest(model=TINY, targets=("reference", "onnx"), out=str(out)))
    stored = decode((out / "report.json").read_bytes(), Report)
    assert stored == report
    assert report.verdict == "passed"
    assert [r.target for r in report.results] == ["reference", "onnx"]
    assert report.results[0].size == Size(32, 32)


def test_report_json_has_the_documented_fields_and_true_hashes(vitexport: Command, tmp_path: Path):
    done = vitexport("--model", TINY, "--target", "onnx", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "out" / "report.json").read_text())
    (result,) = printed["results"]
    assert set(result) >= RESULT
    assert set(result["parity"]) >= PARITY
    assert set(result["latency"]) >= LATENCY
    for file in result["files"]:
        stored = (tmp_path / "out" / file["path"]).read_bytes()
        assert (len(stored), hashlib.sha256(stored).hexdigest()) == (file["bytes"], file["sha256"])
    assert result["latency"]["runs"] == len(result["latency"]["times_ms"]) >= 1
    assert result["latency"]["cold_ms"] > 0


def test_the_table_ends_with_the_next_command(vitexport: Command, tmp_path: Path):
    done = vitexport("--model", TINY, "--target", "onnx")
    assert done.returncode == 0, done.stderr
    for word in ("target", "precision", "drift", "SNR dB", "agreement", "cold ms", "median ms", "verdict", "passed"):
        assert word in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Next: python -m vitexport bench exports/tiny")
    for step in ("capture", "lower", "optimise", "parity", "bench"):
        assert f"  {step}" in done.stderr
    assert "\n\n" not in done.stderr, "a carriage return is for terminals"


def test_check_and_bench_need_nothing_but_the_bundle(vitexport: Command, tmp_path: Path):
    assert vitexport("--model", TINY, "--target", "onnx", "--out", "out").returncode == 0
    shutil.move(tmp_path / "out" / "onnx", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "out")
    checked = vitexport("check", "elsewhere", "--json")
    assert checked.returncode == 0, checked.stderr
    (proven,) = json.loads(checked.stdout)
    assert (proven["parity"]["verdict"], proven["parity"]["images"]) == ("passed", 2)
    timed = vitexport("bench", "elsewhere", "--json")
    assert timed.returncode == 0, timed.stderr
    assert json.loads(timed.stdout)[0]["latency"]["verdict"] == "passed"


def test_a_model_that_answers_otherwise_fails_the_check(vitexport: Command, tmp_path: Path):
    """Hashes intact, answers wrong: only running it can tell."""
    assert vitexport("--model", TINY, "--target", "onnx", "--out", "out").returncode == 0
    bundle = read_bundle(tmp_path / "out" / "onnx")
    golden = bundle.path(bundle.rung.golden[0].outputs["logits"])
    wrong = np.frombuffer(golden.read_bytes(), "<f4").copy()
    wrong[0] += 0.01 * np.abs(wrong).max()
    golden.write_bytes(wrong.tobytes())
    manifest = json.loads((bundle.directory / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == bundle.rung.golden[0].outputs["logits"]:
            file["sha256"] = hashlib.sha256(wrong.tobytes()).hexdigest()
    (bundle.directory / "manifest.json").write_text(json.dumps(manifest))
    done = vitexport("check", "out")
    assert done.returncode == 5
    assert "drift of output 'logits' on astronaut is 0.0" in done.stdout


def test_photos_of_ones_own_are_what_parity_is_judged_on(vitexport: Command, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name in ("one.png", "two.jpg", "three.webp"):
        Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(photos / name)
    done = vitexport("--model", TINY, "--target", "onnx", "--images", photos, "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["parity"]["images"] == 4  # three and the noise
    assert {case.name for case in read_bundle(tmp_path / "out" / "onnx").rung.golden} <= {"one", "two", "three"}


def test_the_selfie_network_finds_the_person_in_both_precisions(tmp_path: Path):
    out = tmp_path / "out"
    report = export(ExportRequest(model="selfie", targets=("onnx",), precisions=("fp32", "fp16"), out=str(out)))
    for result in report.results:
        assert result.verdict == "passed", result.parity
        assert result.parity.agreement > 0.99
    golden = read_golden(read_bundle(out / "onnx"))[0]
    assert golden.name == "astronaut"
    assert 0.3 < np.mean(golden.reference["mask"] > 0.5) < 0.8
    assert Image.open(out / "proof.png").size[0] > 600


def test_vit_tiny_seg_is_proven(tmp_path: Path):
    out = str(tmp_path / "out")
    report = export(ExportRequest(model="vit_tiny_seg", weights="random", targets=("onnx",), out=out))
    assert report.verdict == "passed", report.results
    assert report.results[0].parity.drift <= 1e-4


# -------------------------------------------------------------------------------------------------- in a real browser


@pytest.mark.browser
def test_a_mask_network_is_proven_in_the_browser_and_fp16_says_why_not(vitexport: Command, tmp_path: Path):
    arguments = ("--model", TINY_MASK, "--target", "webgpu", "--json")
    done = vitexport(*arguments, env={"VITEXPORT_GPU": "software"})
    assert done.returncode == 0, done.stderr
    results = {(r["precision"], r["provider"]): r for r in json.loads(done.stdout)["results"]}
    proven = results["fp32", "webgpu"]
    assert proven["parity"]["verdict"] == "passed"
    assert proven["placement"]["fallback"] == []
    assert "software adapter, not a device figure" in proven["latency"]["device"]
    assert results["fp32", "wasm"]["parity"]["verdict"] == "passed"
    assert results["fp16", "webgpu"]["parity"]["verdict"] == "not run"
    assert "adapter has no shader-f16" in results["fp16", "webgpu"]["parity"]["reason"]

    checked = vitexport("check", "exports/tiny_mask", env={"VITEXPORT_GPU": "software"})
    assert checked.returncode == 0, checked.stderr
    strict = vitexport("check", "exports/tiny_mask", "--require-proof", env={"VITEXPORT_GPU": "software"})
    assert strict.returncode == 5


@pytest.mark.browser
def test_without_an_adapter_webgpu_is_not_run_and_webassembly_still_proven(vitexport: Command, tmp_path: Path):
    arguments = ("--model", TINY_MASK, "--target", "webgpu", "--precision", "fp32")
    done = vitexport(*arguments, "--json", env={"VITEXPORT_GPU": "hardware"})
    assert done.returncode == 0, done.stderr
    webgpu, wasm = json.loads(done.stdout)["results"]
    assert wasm["parity"]["verdict"] == "passed"
    if webgpu["parity"]["verdict"] == "passed":
        pytest.skip("this machine has a GPU")
    assert webgpu["parity"]["verdict"] == "not run"
    assert "no hardware WebGPU adapter" in webgpu["parity"]["reason"]
    assert webgpu["latency"]["median_ms"] is None


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("model", ["selfie", "selfie_landscape"])
def test_the_selfie_network_is_proven_on_webgpu(model: str, tmp_path: Path):
    prove_in_the_browser(model, "pretrained", tmp_path)


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit_tiny", "vit_small", "dinov2_small", "swin_tiny", "vit_tiny_seg"])
def test_a_preset_is_proven_on_webgpu_and_onnx(model: str, tmp_path: Path):
    prove_in_the_browser(model, "random", tmp_path)


def prove_in_the_browser(model: str, weights: str, tmp_path: Path) -> None:
    request = ExportRequest(
        model=model,
        weights=weights,
        targets=("onnx", "webgpu"),
        precisions=("fp32", "fp16"),
        out=str(tmp_path / "out"),
    )
    report = export(request)
    assert report.verdict == "passed", report.results
    for result in report.results:
        if (result.precision, result.provider) == ("fp16", "webgpu"):
            assert result.verdict == "passed" or "adapter has no shader-f16" in result.parity.reason
            continue
        assert result.verdict == "passed", result.parity
        if result.precision == "fp32" and weights == "random":
            assert result.parity.drift <= 1e-4
        if result.provider == "webgpu":
            assert result.placement.fallback == ()
