"""What a package eats: a picture (an ``ImageType`` with the normalisation inside) or the normalised tensor.

A picture input has one scale for all channels and a bias for each; the standard deviations differ by channel, so what
is left of them is divided into the weights of the first convolution. The mean goes into the input's bias and never into
the convolution's: a padded convolution surrounds the picture with zeros, which are zeros of the *normalised* picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitexport.contract import INPUT_NAME, ExportRequest, Preprocessing, SourceModel
from vitexport.errors import LoweringFailed
from vitexport.preprocess import pixels
from vitexport_targets.coreml.mil import Feature, Package

if TYPE_CHECKING:
    from vitexport.contract import Tensor

Kind = Literal["image", "tensor"]

#: What an input of each kind is called, in the package and in the manifest.
NAMES: dict[Kind, str] = {"image": "image", "tensor": INPUT_NAME}


def kind(source: SourceModel, request: ExportRequest) -> Kind:
    """As asked; else a picture for what looks at pictures, and the tensor for features, which others compute with."""
    if request.image_input is None:
        return "tensor" if source.task == "features" else "image"
    return "image" if request.image_input else "tensor"


@dataclass(frozen=True)
class Normalisation:
    """``pixel * scale + bias[c]``, for pixels in 0..255, then each channel's share of ``1 / rest`` later."""

    scale: float
    bias: tuple[float, float, float]
    rest: tuple[float, float, float]
    """Standard deviations still to be divided by, one per channel; (1, 1, 1) where they are all equal."""

    @classmethod
    def of(cls, how: Preprocessing) -> Normalisation:
        if len(set(how.std)) == 1:
            (std,) = set(how.std)
            red, green, blue = (-mean / std for mean in how.mean)
            return cls(1 / (255 * std), (red, green, blue), (1.0, 1.0, 1.0))
        red, green, blue = (-mean for mean in how.mean)
        return cls(1 / 255, (red, green, blue), how.std)


def input_type(ct: Any, source: SourceModel, as_kind: Kind) -> Any:
    """coremltools' description of the input."""
    shape = (1, 3, source.size.height, source.size.width)
    if as_kind == "tensor":
        return ct.TensorType(name=NAMES["tensor"], shape=shape, dtype=np.float32)
    how = Normalisation.of(source.preprocessing)
    return ct.ImageType(
        name=NAMES["image"], shape=shape, scale=how.scale, bias=list(how.bias), color_layout=ct.colorlayout.RGB
    )


def divide_first_convolution(program: Any, rest: tuple[float, float, float]) -> Any:
    """The program for an input that has still to be divided by ``rest``, channel by channel.

    Raises ``LoweringFailed`` where the picture goes elsewhere than into one convolution over its three channels.
    """
    if rest == (1.0, 1.0, 1.0):
        return program
    import torch

    name = _first_weight(program)
    weight = program.state_dict[name]
    divided = (weight.detach().double() / torch.tensor(rest, dtype=torch.float64).view(1, 3, 1, 1)).to(weight.dtype)
    return torch.export.ExportedProgram(
        root=program.graph_module,
        graph=program.graph,
        graph_signature=program.graph_signature,
        state_dict={**program.state_dict, name: torch.nn.Parameter(divided, requires_grad=False)},
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def _first_weight(program: Any) -> str:
    import torch

    (picture,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    parameters = program.graph_signature.inputs_to_parameters
    readers = list(picture.users)
    while len(readers) == 1 and readers[0].target is torch.ops.aten.clone.default:  # another memory format
        readers = list(readers[0].users)
    takes_three = [
        parameters[reader.args[1].name]
        for reader in readers
        if reader.target in (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding)
        and reader.args[1].name in parameters
        and program.state_dict[parameters[reader.args[1].name]].shape[1] == 3
        and len(reader.args[1].users) == 1
    ]
    if len(takes_three) != len(readers) or len(readers) != 1:
        raise LoweringFailed(
            "A picture input needs the standard deviations divided into a first convolution, and this network's picture"
            f" goes into {', '.join(str(reader.target) for reader in readers)}. Export it with --tensor-input."
        )
    return str(takes_three[0])


def fed(feature: Feature, pixel_values: Tensor, how: Preprocessing) -> Tensor:
    """What the program takes for a float32 NCHW batch of photos: an image's pixels reach it as 0..255, NCHW."""
    if feature.kind != "image":
        return pixel_values
    return pixels(pixel_values, how).transpose(2, 0, 1)[None].astype(np.float32)


def feed(package: Package, function: str, pixel_values: Tensor, how: Preprocessing) -> dict[str, Tensor]:
    """``fed`` for the one input of a package's function, by its name."""
    (feature,) = package.interfaces[function].inputs
    return {feature.name: fed(feature, pixel_values, how)}
