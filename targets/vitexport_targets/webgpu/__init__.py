"""A folder that any static server can serve: ONNX files, a page that proves itself, and onnxruntime-web.

::

    manifest.json  model_fp16.onnx  model_fp32.onnx  index.html  page.js  page.css  look.css
    vitexport.js  vitexport/  runtime/
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vitexport.contract import (
    Artifact,
    Bundle,
    ExportRequest,
    Lint,
    Precision,
    Session,
    Site,
    SourceModel,
    Traits,
    Value,
)
from vitexport_targets import _chromium
from vitexport_targets._precisions import FEWER_ONNX_BITS, FP16, FP32, W4_FP16
from vitexport_targets.webgpu import ort_web

#: Best first: float16 is half the download and, where the GPU computes it, up to twice the speed. What loses more than
#: rounding is taken where a page asks for it, or where there is nothing better.
PREFERENCE = ("fp16", "fp32", "w8", "w4-fp16", "w4", "w8-dyn", "w8a8")

#: Device features without which WebGPU cannot run a precision.
REQUIRES = {"fp16": ("shader-f16",), "w4-fp16": ("shader-f16",)}

#: What comes along with a precision, out of the same stored weights, for the adapters that have what it requires.
BESIDE = {"w4": ("w4-fp16",)}

#: Of the providers, those that a precision is for, where it is not for all: of integers, onnxruntime-web's WebGPU
#: provider knows DequantizeLinear alone, and leaves the rest (in ``w8-dyn`` all products) to the CPU.
ONLY = {"w8-dyn": ("wasm",), "w8a8": ("wasm",)}


def _offered(held: Precision) -> Precision:
    """With the providers that it is for, where it is not for all."""
    only = ONLY.get(held.name)
    return replace(held, because=f"{held.because}; {' and '.join(only)} alone") if only else held


class WebGpu:
    traits = Traits(
        name="webgpu",
        summary="a page that runs and checks the model in the browser, on WebGPU or WebAssembly",
        precisions=(
            replace(FP32, default=True),
            replace(FP16, default=True),
            *map(_offered, (*FEWER_ONNX_BITS, W4_FP16)),
        ),
        providers=("webgpu", "wasm"),
        needs=(
            ort_web.NEED,
            *_chromium.NEEDS,
        ),
        options=("runtime", "max_file_bytes"),
        shows=("wasm", "webgpu"),
        threaded=("wasm",),
    )

    def lower(self, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
        from vitexport_targets.webgpu.lowering import lower

        return lower(self.traits, sources, request, into)

    def open(self, bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
        from vitexport_targets.webgpu.session import open_in_browser

        return open_in_browser(bundle, precision, provider, taps)

    def open_threaded(self, bundle: Bundle, precision: str, provider: str, threads: int) -> Session:
        from vitexport_targets.webgpu.session import open_in_browser

        return open_in_browser(bundle, precision, provider, threads=threads)

    def device_site(self, bundle: Bundle, sustained_s: float | None = None) -> Site:
        from vitexport_targets.webgpu.site import device_site

        return device_site(bundle, sustained_s)

    def values(self, bundle: Bundle, precision: str) -> dict[str, Value]:
        from vitexport_targets._onnx_graph import values

        path = bundle.path(bundle.variant(precision).files[0])
        return values(path, (1, *bundle.rung.preprocessing.input_shape))

    def lint(self, bundle: Bundle, precision: str) -> Lint:
        from vitexport_targets.webgpu.lint import lint

        return lint(bundle, precision)


TARGET = WebGpu()
