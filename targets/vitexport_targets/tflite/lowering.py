"""From captured programs to one ``.tflite`` per precision, with a signature for each size."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from vitexport import torchvision_schemas
from vitexport.contract import Artifact, ExportRequest, SourceModel, Traits, Variant
from vitexport.errors import LoweringFailed, root_line
from vitexport.manifest import metadata
from vitexport.progress import step
from vitexport_targets.tflite import half, quantisation
from vitexport_targets.tflite.biased_products import keep_constants_apart
from vitexport_targets.tflite.contiguous import make_contiguous
from vitexport_targets.tflite.joined_constants import join_constants
from vitexport_targets.tflite.layer_scale import fold_layer_scale
from vitexport_targets.tflite.learned_queries import keys_before_learned_queries
from vitexport_targets.tflite.quiet import quietly
from vitexport_targets.tflite.sealing import sealed
from vitexport_targets.tflite.signature import Interface, chosen

#: What litert_converter asks for, in tools/model_utils.
RECURSION_LIMIT = 100_000

#: What shapes a file.
TOOLCHAIN = ("torch", "litert-torch", "litert-converter", "ai-edge-quantizer")


def lower(traits: Traits, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
    interfaces = [chosen(source, request, ladder=len(sources) > 1) for source in sources]
    whole = _converted(sources, interfaces)
    said = metadata(sources[0])
    variants = []
    for name in request.precisions:
        path = into / f"model_{name}.tflite"
        with step("lower", f"tflite {name}"), quietly():
            made = quantisation.quantised(whole, name, sources, interfaces)
            path.write_bytes(sealed(made, said))
        held = traits.precision(name)
        variants.append(Variant(name, (path.name,), held.tolerance, metric=held.metric))
    toolchain = {name: version(name) for name in TOOLCHAIN}
    notes = half.notes(sources) if "fp16" in request.precisions else ()
    return Artifact((tuple(variants),) * len(sources), toolchain, input_name=interfaces[0].input_name, notes=notes)


#: What was converted for one plan serves the next: by the program of the first size.
_files: WeakKeyDictionary[Any, dict[tuple[Any, ...], bytes]] = WeakKeyDictionary()


def _converted(sources: Sequence[SourceModel], interfaces: Sequence[Interface]) -> bytes:
    known = _files.setdefault(sources[0].program, {})
    key = (*(id(source.program) for source in sources), *interfaces)
    if key not in known:
        with step("lower", "tflite"):
            known[key] = convert(sources, interfaces)
    return known[key]


def convert(sources: Sequence[SourceModel], interfaces: Sequence[Interface]) -> bytes:
    """The float32 file. Raises ``LoweringFailed`` with the converter's words."""
    torchvision_schemas.declare()
    with quietly(), _recursing():
        import litert_torch
        import torch

        converter: Any = litert_torch
        for source, interface in zip(sources, interfaces, strict=True):
            shape = (1, *source.preprocessing.input_shape)
            if interface.feed != "nchw":
                shape = (1, *shape[2:], 3)
            sample = torch.zeros(shape, dtype=torch.uint8 if interface.feed == "image" else torch.float32)
            module = _served(source, interface)
            converter = converter.signature(interface.signature, module, sample_kwargs={interface.input_name: sample})
        try:
            # Folding takes what does not depend on the input, such as RoPE's sines, out of the graph. LayerNorm stays
            # the operations that the converter makes of it, all on XNNPACK and on the GPU: a composite of the name
            # 'odml.layer_norm' is refused by the GPU delegate of LiteRT.js 2.5.3, taken out of XNNPACK's hands on the
            # CPU, and unknown to tflite-runtime 2.14.
            model = converter.convert(runtime_constant_folding=True)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.tflite"
                model.export(str(path))
                return path.read_bytes()
        except Exception as error:  # the converter raises whatever MLIR and torch raised
            raise LoweringFailed(f"litert-torch cannot take {sources[0].name}: {root_line(error)}.") from error


@contextmanager
def _recursing() -> Iterator[None]:
    """litert_converter raises Python's limit for good as it is imported, to where C's stack has long ended: whatever is
    nested without end, such as somebody's JSON, then ends the process instead of raising ``RecursionError``."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _served(source: SourceModel, interface: Interface) -> Any:
    """The captured program as a module whose input and outputs have names, in the layout of the file."""
    import torch

    program = source.program.module()
    fold_layer_scale(program)
    keys_before_learned_queries(program)
    join_constants(program)
    keep_constants_apart(program)
    how, names = source.preprocessing, [output.name for output in source.outputs]
    pictures = {o.name for o in source.outputs if o.meaning in ("mask", "segmentation")}

    class Served(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.program = program
            if interface.feed == "image":
                std = torch.tensor(how.std)
                self.register_buffer("scale", 1 / (255 * std))
                self.register_buffer("shift", -torch.tensor(how.mean) / std)

        def answer(self, x: Any) -> dict[str, Any]:
            if interface.feed == "image":
                x = x.to(torch.float32) * self.scale + self.shift
            if interface.feed != "nchw":
                x = x.permute(0, 3, 1, 2)
            made = self.program(x)
            values = made if isinstance(made, tuple) else (made,)
            return {
                name: value.permute(0, 2, 3, 1) if interface.outputs_last and name in pictures else value
                for name, value in zip(names, values, strict=True)
            }

    class ServedImage(Served):
        def forward(self, image: Any) -> dict[str, Any]:
            return self.answer(image)

    class ServedPixels(Served):
        def forward(self, pixel_values: Any) -> dict[str, Any]:
            return self.answer(pixel_values)

    served = ServedImage() if interface.feed == "image" else ServedPixels()
    type(served).__module__, type(served).__qualname__ = "vitexport", "Model"  # tensors are named for it
    make_contiguous(served)
    for part in served.modules():
        part.training = False  # an exported program refuses eval(), being nothing else already
    return served
