"""Fewer bits in the browser: on the GPU where it has kernels, else on WebAssembly, and which a page is given."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

import headless
import web_bundles
from vitexport import parity
from vitexport.bundle import read_golden
from vitexport.contract import Site
from vitexport.errors import RuntimeUnavailable
from vitexport.serving import serve
from vitexport_targets.webgpu import TARGET
from vitexport_targets.webgpu.generate_types import RUNTIME

if TYPE_CHECKING:
    from vitexport.contract import Placement

pytestmark = pytest.mark.browser

#: SNR in dB that three random layers keep; ONNX Runtime's CPU provider has the same (tests/test_onnx_precisions.py).
LEAST = {"w8": 30.0, "w8-dyn": 25.0, "w8a8": 20.0, "w4": 8.0, "w4-fp16": 8.0}

#: As asked for; ``w4-fp16`` comes along with ``w4``.
PRECISIONS = ("fp32", "w8", "w8-dyn", "w8a8", "w4")


@cache
def run(precision: str, provider: str) -> tuple[float, Placement | None]:
    bundle = web_bundles.whole("roomy", PRECISIONS)
    golden = read_golden(bundle)[0]
    with TARGET.open(bundle, precision, provider) as session:
        answer = session.run(golden.pixel_values).outputs["logits"]
        return parity.snr_db(answer, golden.reference["logits"]), session.placement


@pytest.mark.parametrize("precision", LEAST)
def test_webassembly_runs_every_precision(precision: str) -> None:
    snr, placement = run(precision, "wasm")
    assert snr > LEAST[precision]
    assert placement is not None
    assert placement.nodes.keys() == {"CPUExecutionProvider"}


@pytest.mark.parametrize("precision", ["w8", "w4"])
def test_webgpu_runs_every_node_of_packed_weights(precision: str) -> None:
    """In float32, so that an adapter without shader-f16, as this one, has them too."""
    snr, placement = run(precision, "webgpu")
    assert snr > LEAST[precision]
    assert placement is not None
    assert placement.nodes.keys() == {"WebGpuExecutionProvider"}
    assert placement.fallback == ()


def test_w8_is_the_float_network_once_it_is_loaded() -> None:
    """As many nodes: what unpacks the weights is computed as the file is loaded."""
    _, true = run("fp32", "webgpu")
    _, placement = run("w8", "webgpu")
    assert true is not None
    assert placement == true


@pytest.mark.parametrize("precision", ["w8-dyn", "w8a8"])
def test_integers_are_not_run_on_the_gpu_and_the_reason_is_said(precision: str) -> None:
    bundle = web_bundles.whole("roomy", PRECISIONS)
    assert bundle.variant(precision).only == ("wasm",)
    with pytest.raises(
        RuntimeUnavailable, match=f"^{precision} on webgpu: made for wasm: the GPU has no kernels for its integers$"
    ):
        TARGET.open(bundle, precision, "webgpu")


def test_four_bits_come_in_float16_too_out_of_the_same_weights() -> None:
    bundle = web_bundles.whole("roomy", PRECISIONS)
    half, whole = bundle.variant("w4-fp16"), bundle.variant("w4")
    assert half.requires == ("shader-f16",)
    assert set(half.files[1:]) == set(whole.files[1:]) != set()
    names = [variant.precision for variant in bundle.rung.variants]
    assert names.index("w4-fp16") < names.index("w4"), "where the adapter has float16, it is taken"
    with pytest.raises(RuntimeUnavailable, match="shader-f16"):
        TARGET.open(bundle, "w4-fp16", "webgpu")


_RANK = """async ([variants, features]) => {
    const { rank } = await import('/vitexport/choose.js');
    const gpu = features === null ? 'no adapter' : new Set(features);
    const open = rank(variants, gpu, {}).filter(({ obstacle }) => obstacle === null);
    return open.map(({ variant, provider }) => `${variant.precision} ${provider}`);
}"""


def test_a_page_gets_floats_on_the_gpu_and_on_webassembly_what_was_made_for_it() -> None:
    def variant(precision: str, requires: tuple[str, ...] = (), only: tuple[str, ...] = ()) -> dict[str, Any]:
        return {"precision": precision, "requires": requires, "only": only}

    variants = [variant("fp16", ("shader-f16",)), variant("fp32"), variant("w4"), variant("w8-dyn", only=("wasm",))]
    with serve(Site(RUNTIME, pages={"/blank.html": b"<!doctype html>"})) as url, headless.page() as page:
        page.goto(f"{url}blank.html")
        wasm = ["w8-dyn wasm", "fp32 wasm", "w4 wasm", "fp16 wasm"]
        assert page.evaluate(_RANK, [variants, None]) == wasm
        assert page.evaluate(_RANK, [variants, []]) == ["fp32 webgpu", "w4 webgpu", *wasm]
        assert page.evaluate(_RANK, [variants, ["shader-f16"]])[0] == "fp16 webgpu"
