"""What float16 cannot hold of a network: found before a file is made, from what real photos make of it.

A sum that overflows float16 need not show: the variance of a token with one channel 800 from its mean is infinite, the
token divided by it 0, and the answer wrong without a NaN (https://github.com/microsoft/onnxruntime/issues/31626). So
the captured program is run on the calibration pictures, and looked into at each operation:

* the largest |x| of what it makes (a residual stream, a product) and of what a softmax is given;
* of a LayerNorm, the sum of squares of x - mean over what it normalises: a kernel that adds in float16 overflows there,
  and one that squares in float16 where |x - mean| is 256. ONNX Runtime's kernels add in float32 (1.27, CPU and WebGPU);
  a bundle meets others.

Targets keep in float32 what is in danger, by values of their own graphs, and only where there is any: a network without
danger is converted as if nobody had looked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vitexport.preprocess import preprocess
from vitexport.progress import step
from vitexport.quantize.calibration import calibration

if TYPE_CHECKING:
    import torch

    from vitexport.contract import SourceModel, Tensor

#: The largest finite float16 (IEEE 754 binary16).
END = 65_504.0

#: A quarter of it, for the photos that are not looked at. On 28 further views of four photos no figure of
#: digits_vit_tiny, ViT-Ti, Swin-T and the selfie network was more than 2.0 times what it was on the four: twice that is
#: kept free.
LARGEST = END / 4

#: Pictures that are looked at, where there are not more photos: the largest values settle sooner than ranges do.
PICTURES = 8

#: Of :func:`vitexport.capture.capture`'s wrapper, under which the module is traced.
_ROOT = "network"


@dataclass(frozen=True)
class Danger:
    layer: str
    """Path of the module, such as ``blocks.3.norm1``."""
    what: str
    figure: float
    """The largest on any picture."""
    stored: bool = False
    """A weight, not a value that is computed."""

    def __str__(self) -> str:
        bound = f"float16 ends at {END:,.0f}"
        if self.figure <= END:
            bound = f"others may pass float16's {END:,.0f}"
        return f"fp16: {self.layer} stays float32: {self.what} reaches {_number(self.figure)}, and {bound}"


def notes(sources: Sequence[SourceModel]) -> tuple[str, ...]:
    """What stays float32, and why, for the user to read."""
    return tuple(map(str, worst(sources)))


def worst(sources: Sequence[SourceModel]) -> tuple[Danger, ...]:
    """Each danger once, however many sizes of a network are in it."""
    found: dict[tuple[str, str], Danger] = {}
    for danger in (each for source in sources for each in dangers(source)):
        key = danger.layer, danger.what
        if key not in found or danger.figure > found[key].figure:
            found[key] = danger
    return tuple(found.values())


def beyond(figure: float) -> bool:
    """Whether a figure may leave float16. NaN may."""
    return not figure <= LARGEST


def pictures(source: SourceModel) -> tuple[Tensor, ...]:
    """What is looked at, here and in each target's own graph: photos, and the noise that a proof is taken on too."""
    noise = [preprocess(probe.image, source.preprocessing) for probe in source.probes if probe.kind == "noise"]
    return (*calibration(source.calibration or source.probes, source.preprocessing, PICTURES).pictures, *noise)


_found: WeakKeyDictionary[SourceModel, tuple[Danger, ...]] = WeakKeyDictionary()


def dangers(source: SourceModel) -> tuple[Danger, ...]:
    """Of each layer the worst of its kind, in the order in which they are computed; targets share the answer."""
    if source not in _found:
        with step("lower", "fp16 ranges"):
            _found[source] = _look(source)
    return _found[source]


def _look(source: SourceModel) -> tuple[Danger, ...]:
    import torch

    largest: dict[tuple[str, str], float] = {}

    class Watched(torch.fx.Interpreter):  # type: ignore[misc]  # torch ships no types for it
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            made = super().call_function(target, args, kwargs)
            node = self.n
            for what, figure in _figures(target, args, made):
                key = _layer(node), what
                largest[key] = max(largest.get(key, 0.0), figure)
            return made

        def run_node(self, n: Any) -> Any:
            self.n = n
            return super().run_node(n)

    watched = Watched(source.program.module())
    with torch.no_grad():
        for picture in pictures(source):
            watched.run(torch.from_numpy(picture))
    made = tuple(Danger(layer, what, figure) for (layer, what), figure in largest.items() if beyond(figure))
    return (*_weights(source), *made)


def _weights(source: SourceModel) -> Iterator[Danger]:
    """What is stored is the same for all photos, so nothing is kept free."""
    for name, value in {**source.program.state_dict, **source.program.constants}.items():
        figure = magnitude(value)
        if figure > END:
            layer, _, what = name.removeprefix(f"{_ROOT}.").rpartition(".")
            yield Danger(layer or what, f"its {what}'s largest |x|", figure, stored=True)


# ------------------------------------------------------------------------------------------------ figures


def _figures(target: Any, args: tuple[Any, ...], made: Any) -> Iterator[tuple[str, float]]:
    """What is looked at of one operation. A view holds nothing that what it views does not."""
    name = str(getattr(target, "overloadpacket", target)).rpartition(".")[2]
    if name == "layer_norm":
        yield "its sum of squares of x - mean", squares(args[0], range(-len(args[1]), 0))
    elif name == "softmax":
        yield "its softmax's largest |x|", magnitude(args[0])
    elif name == "scaled_dot_product_attention":
        yield "its softmax's largest |x|", _scores(*args[:2])
    if not getattr(target, "is_view", False):
        yield f"its {name}'s largest |x|", magnitude(made)


def magnitude(value: Any) -> float:
    """The largest finite |x|: float16 has an infinity of its own, which masks are made of. NaN is as bad as its end."""
    import torch

    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return 0.0
    low, high = (float(end) for end in value.detach().aminmax())
    largest = max(-low, high)
    return largest if largest < float("inf") else float(value.detach().abs().nan_to_num(nan=END, posinf=0.0).max())


def squares(x: torch.Tensor, axes: Sequence[int]) -> float:
    """The largest sum of squares of x - mean over ``axes``."""
    return float((x - x.mean(tuple(axes), keepdim=True)).square().sum(tuple(axes)).max())


def _scores(query: torch.Tensor, key: torch.Tensor) -> float:
    """Of attention, before its softmax and its mask; without the scale, which runtimes put on either side."""
    return magnitude(query @ key.transpose(-2, -1))


def _layer(node: Any) -> str:
    """Path of the module that an operation belongs to; the operation's own name outside all modules."""
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    path = paths[-1].removeprefix(_ROOT).removeprefix(".") if paths else ""
    return path or str(node.name)


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure < 1e6 else f"{figure:.1e}"
