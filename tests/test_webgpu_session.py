"""Opening a bundle as the proof does: headless Chromium, the bundle's own loader, onnxruntime-web."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

import web_bundles
from vitexport import host, toolchain
from vitexport.bundle import read_golden
from vitexport.contract import Bundle
from vitexport.errors import BadRequest, MissingToolchain, RuntimeUnavailable
from vitexport_targets.webgpu import TARGET, ort_web

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return web_bundles.whole("tiny")


def drift(bundle: Bundle, precision: str, provider: str) -> float:
    golden = read_golden(bundle)[0]
    pixel_values, expected = golden.pixel_values, golden.reference
    with TARGET.open(bundle, precision, provider) as session:
        actual = session.run(pixel_values).outputs
    assert actual.keys() == expected.keys()
    return max(float(np.abs(actual[n] - expected[n]).max() / np.abs(expected[n]).max()) for n in expected)


def test_webgpu_runs_every_node_and_names_its_software_adapter(bundle: Bundle) -> None:
    golden = read_golden(bundle)[0]
    pixel_values, expected = golden.pixel_values, golden.reference
    with TARGET.open(bundle, "fp32", "webgpu") as session:
        cold = session.run(pixel_values)
        steady = min(session.run(pixel_values).ms for _ in range(3))
        assert session.placement is not None
        assert session.placement.nodes.keys() == {"WebGpuExecutionProvider"}
        assert session.placement.fallback == ()
        assert session.device.provider == "webgpu"
        assert session.device.software
        assert "swiftshader" in session.device.name
        assert session.device.runtime.startswith("onnxruntime-web 1.30.0 (jspi) in Chromium ")
        assert session.load_ms > 0
    np.testing.assert_allclose(cold.outputs["logits"], expected["logits"], rtol=0, atol=1e-4)
    assert cold.ms > steady  # shaders are compiled once


def test_a_node_without_a_gpu_kernel_is_counted_as_a_fallback(bundle: Bundle, tmp_path: Path) -> None:
    planted = web_bundles.changed(bundle, tmp_path, web_bundles.with_attention, rehash=True)
    with TARGET.open(planted, "fp32", "webgpu") as session:
        placement = session.placement
    assert placement is not None
    assert placement.fallback == ("Attention (planted)",)
    assert placement.nodes["CPUExecutionProvider"] == 1
    assert placement.nodes["WebGpuExecutionProvider"] >= 3


def test_fp16_needs_an_adapter_that_has_it(bundle: Bundle) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"^fp16 on webgpu: adapter has no shader-f16$"):
        TARGET.open(bundle, "fp16", "webgpu")


def test_without_an_adapter_webgpu_is_unavailable_and_wasm_runs(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(Path("/dev/dri").glob("renderD*")) or Path("/dev/nvidia0").exists():
        pytest.skip("this machine has a GPU, so Chromium finds an adapter")
    monkeypatch.setenv("VITEXPORT_GPU", "hardware")
    with pytest.raises(RuntimeUnavailable, match=r"^Chromium found no hardware WebGPU adapter"):
        TARGET.open(bundle, "fp32", "webgpu")
    assert drift(bundle, "fp32", "wasm") < 1e-5


def test_wasm_names_the_cpu_and_its_threads(bundle: Bundle) -> None:
    with TARGET.open(bundle, "fp32", "wasm") as session:
        assert session.device.name.startswith(f"{host.cpu_name()} (WebAssembly, ")
        assert not session.device.software
        assert session.placement is not None
        assert session.placement.nodes.keys() == {"CPUExecutionProvider"}
        assert session.placement.fallback == ()


def test_fp16_on_wasm_computes_in_float32_with_float16_weights(bundle: Bundle) -> None:
    assert 1e-6 < drift(bundle, "fp16", "wasm") < TARGET.traits.precision("fp16").tolerance


def test_taps_return_intermediate_values_beside_the_outputs(bundle: Bundle) -> None:
    graph = onnx.load(bundle.path("model_fp32.onnx")).graph
    normed = next(node.output[0] for node in graph.node if node.op_type == "LayerNormalization")
    golden = read_golden(bundle)[0]
    pixel_values, expected = golden.pixel_values, golden.reference
    with TARGET.open(bundle, "fp32", "wasm", taps=(normed,)) as session:
        outputs = session.run(pixel_values).outputs
    assert outputs[normed].shape == (1, 16, 16)
    assert math.isfinite(outputs[normed].sum())
    np.testing.assert_allclose(outputs["logits"], expected["logits"], rtol=0, atol=1e-4)


def test_an_unknown_tap_is_a_bad_request(bundle: Bundle) -> None:
    with pytest.raises(BadRequest, match=r"'nowhere' is no value of model_fp32\.onnx"):
        TARGET.open(bundle, "fp32", "wasm", taps=("nowhere",))


def test_sharded_weights_are_fetched_and_verified(tmp_path: Path) -> None:
    sharded = web_bundles.whole("tiny", ("fp32",), max_file_bytes=13_000)
    _, *shards = sharded.variant("fp32").files
    assert len(shards) >= 2
    assert all(f.bytes <= 13_000 for f in sharded.manifest.files if f.path in shards)
    assert drift(sharded, "fp32", "wasm") < 1e-5
    damaged = web_bundles.changed(sharded, tmp_path, web_bundles.flip_a_bit(shards[1], 10))
    with pytest.raises(BadRequest, match=f"'{shards[1]}' is damaged"):
        TARGET.open(damaged, "fp32", "wasm")


def test_a_bundle_without_runtime_is_proven_with_the_installed_one() -> None:
    bare = web_bundles.whole("tiny", ("fp32",), runtime="none")
    assert not (bare.directory / "runtime").exists()
    assert bare.manifest.runtime is not None
    assert (bare.manifest.runtime.version, bare.manifest.runtime.builds) == ("1.30.0", {})
    assert drift(bare, "fp32", "wasm") < 1e-5


def test_every_file_stays_below_25_mib_and_fp16_comes_first(bundle: Bundle) -> None:
    assert max(f.bytes for f in bundle.manifest.files) < 25 * 2**20
    assert [v.precision for v in bundle.rung.variants] == ["fp16", "fp32"]
    assert bundle.variant("fp16").requires == ("shader-f16",)
    assert bundle.manifest.runtime is not None
    parts = bundle.manifest.runtime.builds["asyncify"].wasm
    joined = b"".join(bundle.path(part).read_bytes() for part in parts)
    assert len(parts) == 2
    assert joined == (ort_web.dist() / "ort-wasm-simd-threaded.asyncify.wasm").read_bytes()


def test_chromium_that_does_not_start_is_unavailable(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("VITEXPORT_CHROMIUM", str(broken))
    with pytest.raises(RuntimeUnavailable, match=r"^chromium does not start \("):
        TARGET.open(bundle, "fp32", "wasm")


def test_an_absent_chromium_says_how_to_get_one(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VITEXPORT_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain, "_CHROMIUM_APPS", ())
    with pytest.raises(MissingToolchain, match=r"'chromium' is not installed\. Install Chromium or Chrome"):
        TARGET.open(bundle, "fp32", "wasm")


@pytest.mark.parametrize("named", ["/nowhere/chromium", "/usr"])
def test_what_is_named_as_chromium_and_is_no_program_is_told_of(
    bundle: Bundle, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITEXPORT_CHROMIUM", named)
    with pytest.raises(MissingToolchain) as missing:
        TARGET.open(bundle, "fp32", "wasm")
    assert str(missing.value) == (
        f"VITEXPORT_CHROMIUM names '{named}', which is no program. Name Chromium or Chrome, or unset it."
    )


def test_another_version_of_onnxruntime_web_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "onnxruntime-web"
    package.mkdir()
    (package / "package.json").write_text('{"version": "1.29.0"}')
    monkeypatch.setenv("VITEXPORT_NODE_MODULES", str(tmp_path))
    with pytest.raises(MissingToolchain) as missing:
        ort_web.dist()
    assert str(missing.value) == (
        f"onnxruntime-web 1.29.0 is installed ({package}); 1.30.0 is wanted. Run: npm install onnxruntime-web@1.30.0"
    )


def test_an_unknown_choice_of_gpu_is_a_bad_request(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITEXPORT_GPU", "sofware")
    with pytest.raises(BadRequest, match=r"VITEXPORT_GPU is 'sofware'\. Did you mean 'software'\?"):
        TARGET.open(bundle, "fp32", "webgpu")


_INTERRUPTED = """
import signal, sys
from pathlib import Path
import numpy as np
from vitexport.errors import Interrupted
from vitexport.manifest import read_bundle
from vitexport_targets.webgpu import TARGET

def interrupt(number, frame):
    raise Interrupted(number)

signal.signal(signal.SIGTERM, interrupt)
with TARGET.open(read_bundle(Path(sys.argv[1])), "fp32", "wasm") as session:
    print("open", flush=True)
    while True:
        session.run(np.zeros((1, 3, 32, 32), np.float32))
"""


def test_sigterm_closes_the_browser(bundle: Bundle) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, str(bundle.directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    children = psutil.Process(process.pid).children(recursive=True)
    chromiums = [child for child in children if "chrom" in child.name().lower()]
    assert chromiums
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert complaint.rstrip().endswith("Interrupted: Interrupted.")
    _, alive = psutil.wait_procs(chromiums, timeout=15)
    assert not alive
