"""ONNX, in the folder layout that Optimum and transformers.js read as it is.

::

    config.json  preprocessor_config.json  onnx/model.onnx  onnx/model_fp16.onnx  onnx/model_q4.onnx
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitexport.contract import (
    Artifact,
    Bundle,
    ExportRequest,
    Preprocessing,
    Session,
    Size,
    SourceModel,
    Traits,
    Value,
    Variant,
)
from vitexport.quantize import half
from vitexport_targets import _onnx_graph
from vitexport_targets._onnx_bits import in_precision
from vitexport_targets._precisions import FEWER_ONNX_BITS, FP16, FP32

#: transformers.js names files by what it calls dtypes (https://huggingface.co/docs/transformers.js/guides/dtypes):
#: ``q8``, its default on WebAssembly, is ``quantized``. It has none for calibrated activations.
_FILES = {
    "fp32": "onnx/model.onnx",
    "fp16": "onnx/model_fp16.onnx",
    "w8": "onnx/model_int8.onnx",
    "w8-dyn": "onnx/model_quantized.onnx",
    "w8a8": "onnx/model_w8a8.onnx",
    "w4": "onnx/model_q4.onnx",
}

#: Pillow's numbers, which transformers stores as ``resample``.
_RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}


class Onnx:
    traits = Traits(
        name="onnx",
        summary="one self-contained .onnx, laid out for ONNX Runtime, Optimum and transformers.js",
        precisions=(replace(FP32, default=True), FP16, *FEWER_ONNX_BITS),
        providers=("cpu",),
        options=("dynamic", "max_file_bytes"),
        shows=("cpu",),
        threaded=("cpu",),
    )

    def lower(self, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
        """Further sizes lie in folders of their own (``384x384/``), each complete: readers of this layout know nothing
        of ladders, and find one network in a folder."""
        folders = [into, *(into / str(source.size) for source in sources[1:])]
        variants = tuple(self._fill(*pair, request, into) for pair in zip(sources, folders, strict=True))
        notes = half.notes(sources) if "fp16" in request.precisions else ()
        return Artifact(variants, _onnx_graph.toolchain(), notes=notes)

    def _fill(self, source: SourceModel, folder: Path, request: ExportRequest, root: Path) -> tuple[Variant, ...]:
        (folder / "onnx").mkdir(parents=True)
        model = _onnx_graph.to_model(source)
        variants = []
        for precision in request.precisions:
            graph = in_precision(model, precision, source)
            path = folder / _FILES[precision]
            names = _onnx_graph.save(graph, path, request.max_file_bytes)
            files = tuple((path.parent / name).relative_to(root).as_posix() for name in names)
            held = self.traits.precision(precision)
            variants.append(Variant(precision, files, held.tolerance, metric=held.metric))
        _write_json(folder / "config.json", _config(source))
        _write_json(folder / "preprocessor_config.json", _preprocessor_config(source.preprocessing))
        return tuple(variants)

    def open(self, bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
        from vitexport_targets._onnx_host import open_on_host

        return open_on_host(bundle.path(bundle.variant(precision).files[0]), provider, taps)

    def open_threaded(self, bundle: Bundle, precision: str, provider: str, threads: int) -> Session:
        from vitexport_targets._onnx_host import open_on_host

        return open_on_host(bundle.path(bundle.variant(precision).files[0]), provider, threads=threads)

    def further_providers(self) -> tuple[str, ...]:
        from vitexport_targets._onnx_host import further_providers

        return further_providers()

    def values(self, bundle: Bundle, precision: str) -> dict[str, Value]:
        path = bundle.path(bundle.variant(precision).files[0])
        return _onnx_graph.values(path, (1, *bundle.rung.preprocessing.input_shape))


def _config(source: SourceModel) -> dict[str, Any]:
    """transformers' ``config.json``: the architecture's own where it has one, and the labels."""
    labels = source.outputs[0].labels
    own = {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    return {**source.hub_config, **(own if labels else {})}


def _preprocessor_config(how: Preprocessing) -> dict[str, Any]:
    """transformers' ``preprocessor_config.json`` for the same pixels."""

    def sides(size: Size) -> dict[str, int]:
        return {"height": size.height, "width": size.width}

    resize = how.resize or how.size
    fitting: dict[str, Any] = {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": min(resize.height, resize.width)},
        "do_center_crop": True,
        "crop_size": sides(how.size),
    }
    if how.fit == "squash":
        fitting |= {"image_processor_type": "DeiTImageProcessor", "size": sides(resize)}
        if resize == how.size:
            fitting |= {"image_processor_type": "ViTImageProcessor", "do_center_crop": False}
    if how.clip is not None:
        fitting["image_processor_type"] = "VideoMAEImageProcessor"  # the same steps, frame by frame
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": _RESAMPLE[how.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(how.mean),
        "image_std": list(how.std),
        **fitting,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


TARGET = Onnx()
