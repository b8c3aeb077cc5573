"""Float16 packages with weights in fewer bits, and activations in eight: how each precision is made.

coremltools does the work (``coremltools.optimize.coreml``); here is what is asked of it, and what it passes over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.contract import CoremlTarget
from vitexport.errors import BadRequest, LoweringFailed, root_line
from vitexport.quantize.layers import LEAST_SIZE, Fingerprint, fingerprint
from vitexport_targets.coreml.apple import coremltools, counting_from_zero, quietly
from vitexport_targets.coreml.calibration import calibrated
from vitexport_targets.coreml.package import read

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors
    from vitexport.quantize.observers import Range

#: Weights that share a scale, along a row: Apple's own recommendation for 4 bits
#: (https://apple.github.io/coremltools/docs-guides/source/opt-quantization-perf.html).
BLOCK = 32

#: Output channels that share a palette.
GROUP = 16


#: Operations that coremltools would take through eight bits as well, and that stay float: the sum of a residual stream
#: has no weights. With eight-bit sums ``digits_vit_tiny`` has 23.4 dB and selfie IoU 0.912, without 36.1 and 0.932.
FLOAT_OPERATIONS = ("add",)

#: Names of operations whose weights stay as they are.
Spared = frozenset[str]


@dataclass(frozen=True)
class Recipe:
    bits: int
    """Of a weight."""
    since: CoremlTarget
    """The oldest system whose Core ML knows the form."""
    compress: Callable[[Any, Spared, CoremlTarget], Any]
    """``MLModel`` -> ``MLModel``, but for the weights that stay float."""
    instead: str = ""
    """What to ask for on an older system."""
    activations: bool = False
    """Whether activations are taken through eight bits as well, which needs their ranges."""


def _everywhere(config: Any, spared: Spared) -> Any:
    import coremltools.optimize.coreml as cto

    return cto.OptimizationConfig(global_config=config, op_name_configs=dict.fromkeys(spared))


def _reading(half: Path, chosen: Callable[[Tensor], bool]) -> Spared:
    """The operations of a float16 package that read a weight that is ``chosen``."""
    operations = read(half).functions["main"].operations
    held = {op.outputs[0].name: op.attributes["val"].data for op in operations if op.kind == "const"}
    weights = (
        (op, held.get(name)) for op in operations for name in op.inputs.get("weight", ()) if isinstance(name, str)
    )
    return frozenset(op.outputs[0].name for op, weight in weights if weight is not None and chosen(weight))


def _linear(model: Any, spared: Spared, **options: Any) -> Any:
    """Symmetric, one scale for each output channel unless ``options`` say otherwise."""
    import coremltools.optimize.coreml as cto

    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", **options)
    return cto.linear_quantize_weights(model, _everywhere(config, spared))


def _palette(model: Any, spared: Spared, bits: int, ios: CoremlTarget) -> Any:
    """The values that k-means finds; from iOS 18 on a palette for every few channels, before that one for a weight.
    What those groups do not divide gets one palette."""
    import coremltools.optimize.coreml as cto

    def palettes(model: Any, **options: Any) -> Any:
        config = cto.OpPalettizerConfig(mode="kmeans", nbits=bits, **options)
        return cto.palettize_weights(model, _everywhere(config, spared))

    if ios == "ios18":
        model = palettes(model, granularity="per_grouped_channel", group_size=GROUP)
    return palettes(model)


def _w8(model: Any, spared: Spared, ios: CoremlTarget) -> Any:
    return _linear(model, spared)


def _w4(model: Any, spared: Spared, ios: CoremlTarget) -> Any:
    """A patch embedding's three input channels are no block of 32: what cannot be cut becomes int8."""
    return _linear(_linear(model, spared, dtype="int4", granularity="per_block", block_size=BLOCK), spared)


RECIPES = {
    "w8": Recipe(8, "ios16", _w8),
    "w6p": Recipe(6, "ios16", lambda model, spared, ios: _palette(model, spared, 6, ios)),
    "w4p": Recipe(4, "ios16", lambda model, spared, ios: _palette(model, spared, 4, ios)),
    "w4": Recipe(4, "ios18", _w4, instead="w4p, a palette of 16 values"),
    "w8a8": Recipe(8, "ios17", _w8, instead="w8, whose arithmetic is float16", activations=True),
}


def check(precisions: Sequence[str], ios: CoremlTarget) -> None:
    """Raises ``BadRequest`` where a precision is newer than the system that is to be supported."""
    for name in precisions:
        recipe = RECIPES.get(name)
        if recipe and ios < recipe.since:
            raise BadRequest(
                f"Core ML has {name} since iOS {recipe.since[3:]}, and the package is to run on iOS {ios[3:]}. "
                f"Add --coreml-target {recipe.since}, or ask for {recipe.instead}."
            )


@dataclass(frozen=True, eq=False)
class Seen:
    """What activations were, for a precision that quantises them."""

    samples: Sequence[Tensors] = ()
    """Pictures by input name."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Of the float16 package's values on them (:func:`.calibration.ranges`)."""


def compress(
    half: Path, precision: str, ios: CoremlTarget, seen: Seen, kept: frozenset[Fingerprint], path: Path, twin: Path
) -> None:
    """The float16 package ``half`` in fewer bits at ``path``, and at ``twin`` what coremltools unpacks it to.

    ``kept``: fingerprints of weights, as float16 holds them, that stay as they are.
    Raises ``LoweringFailed`` with coremltools' words.
    """
    ct, recipe = coremltools(), RECIPES[precision]
    spared = _reading(half, lambda weight: fingerprint(weight.astype(np.float32)) in kept) if kept else frozenset()
    small = _reading(half, lambda weight: weight.size < LEAST_SIZE) if recipe.activations else frozenset()
    try:
        with quietly(), counting_from_zero():
            model = ct.models.MLModel(str(half), skip_model_load=True)
            if recipe.activations:
                with calibrated(seen.ranges):
                    model = _eight_bit_activations(model, list(seen.samples), spared | small)
            model = recipe.compress(model, spared, ios)
            model.save(str(path))
            ct.optimize.coreml.decompress_weights(model).save(str(twin))
    except Exception as error:  # coremltools raises whatever its passes raised
        raise LoweringFailed(f"coremltools cannot make {precision} of {half.name}: {root_line(error)}.") from error


def _eight_bit_activations(model: Any, samples: list[Tensors], spared: Spared) -> Any:
    import coremltools.optimize.coreml as cto

    config = cto.OptimizationConfig(
        global_config=cto.OpLinearQuantizerConfig(mode="linear_symmetric"),
        op_type_configs=dict.fromkeys(FLOAT_OPERATIONS),
        op_name_configs=dict.fromkeys(spared),
    )
    return cto.linear_quantize_activations(model, config, samples)
