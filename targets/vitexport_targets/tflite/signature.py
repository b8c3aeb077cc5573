"""What a file takes and answers, by name and in its own layout; the lowering writes it, the sessions read it back.

LiteRT computes convolutions over NHWC. A convolutional network that takes and answers NHWC therefore needs no
transposition at either end; a ViT's patch embedding has one either way, and takes what PyTorch takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitexport.contract import INPUT_NAME, Bundle, ExportRequest, OutputSpec, Preprocessing, Rung, Size, SourceModel
from vitexport.errors import BadRequest
from vitexport.preprocess import pixels
from vitexport_targets.tflite.flatbuffer import BadFile
from vitexport_targets.tflite.structure import Structure

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors

#: ``image``: uint8 NHWC, normalised in the graph; ``nhwc`` and ``nchw``: normalised float32.
Feed = Literal["image", "nhwc", "nchw"]

_NAMES = {"image": "image", "nhwc": INPUT_NAME, "nchw": INPUT_NAME}

#: What numpy has and a parity can be taken of.
_NUMBERS = ("float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")

#: Attention, in torch's core operators and in those it is captured with.
_ATTENTION = ("scaled_dot_product_attention", "bmm", "matmul", "softmax")


@dataclass(frozen=True)
class Interface:
    """How one size of a network is called."""

    signature: str
    feed: Feed
    outputs_last: bool
    """Whether pictures among the outputs are (N, H, W, C)."""

    @property
    def input_name(self) -> str:
        return _NAMES[self.feed]


@dataclass(frozen=True)
class Entrance:
    """How a file is called at one size: the signature, and its one input."""

    signature: str
    input: str
    shape: tuple[int, ...]
    dtype: str


def chosen(source: SourceModel, request: ExportRequest, *, ladder: bool) -> Interface:
    """``--image-input`` and ``--tensor-input`` decide; else what suits the network. A clip is taken as PyTorch does."""
    if source.preprocessing.clip is not None:
        if request.image_input:
            raise BadRequest("A clip is no picture: --image-input is for networks of single pictures. Leave it out.")
        return Interface(signature_name(source.task, source.size, ladder=ladder), "nchw", outputs_last=False)
    feed: Feed = {True: "image", False: "nchw", None: "nhwc" if _likes_nhwc(source) else "nchw"}[request.image_input]
    return Interface(signature_name(source.task, source.size, ladder=ladder), feed, feed != "nchw")


def signature_name(task: str, size: Size, *, ladder: bool) -> str:
    return f"{task}_{size}" if ladder else task


def find(bundle: Bundle, signatures: Any) -> str:
    """The signature for the bundle's size. Raises ``BadFile``."""
    task, size = bundle.manifest.task, bundle.rung.size
    for name in (signature_name(task, size, ladder=True), signature_name(task, size, ladder=False)):
        if name in signatures:
            return name
    raise BadFile(f"The file has no signature '{task}'; it has {', '.join(signatures) or 'none'}")


def entrance(bundle: Bundle, file: str, structure: Structure) -> Entrance:
    """The way into ``file`` for the bundle's size. Raises ``BadFile`` where it is not what the manifest describes."""
    key = find(bundle, structure.signatures)
    signature = structure.signatures[key]
    if len(signature.inputs) != 1:
        raise BadFile(f"{file}: '{key}' takes {len(signature.inputs)} inputs, and vitexport's files take one")
    ((name, given),) = signature.inputs.items()
    own = (1, *bundle.rung.preprocessing.input_shape)
    takes = [("float32", own)]
    if bundle.rung.preprocessing.clip is None:
        nhwc = (1, *own[2:], 3)
        takes += [("float32", nhwc), ("uint8", nhwc)]
    if (given.dtype, given.shape) not in takes:
        raise BadFile(f"{file}: '{name}' is {given.dtype} {given.shape}, and the manifest describes {own}")
    for answer, tensor in signature.outputs.items():
        if tensor.dtype not in _NUMBERS:
            raise BadFile(f"{file}: '{answer}' is {tensor.dtype}, and vitexport's files answer numbers")
    return Entrance(key, name, given.shape, given.dtype)


def _likes_nhwc(source: SourceModel) -> bool:
    """Segmentation, whose masks are pictures, and networks without attention."""
    called = {str(node.target) for node in source.program.graph.nodes if node.op == "call_function"}
    return source.task == "segment" or not any(word in name for name in called for word in _ATTENTION)


# --------------------------------------------------------------------------------------------------- at both ends


def fed(pixel_values: Tensor, shape: tuple[int, ...], dtype: Any, how: Preprocessing) -> Tensor:
    """float32 NCHW, or clips, as the file's one input takes it: ``shape`` and ``dtype`` are those of its tensor."""
    if np.dtype(dtype) == np.uint8:
        return pixels(pixel_values, how)[None]
    if tuple(shape) == pixel_values.shape:
        return pixel_values
    return np.ascontiguousarray(pixel_values.transpose(0, 2, 3, 1))


def collected(raw: Tensors, rung: Rung) -> dict[str, Tensor]:
    """What the file answers, by name, in the shapes that PyTorch answers in; numbers as float32."""
    return {output.name: _as_pytorch(raw[output.name], output) for output in rung.outputs if output.name in raw}


def _as_pytorch(value: Tensor, output: OutputSpec) -> Tensor:
    if output.meaning in ("mask", "segmentation") and value.ndim == 4 and value.shape != output.shape:
        value = value.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(value, np.float32)
