"""What PyTorch computes at the places that are looked at, and what each block alone would make of other inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.diff.places import Place

if TYPE_CHECKING:
    from vitexport.contract import SourceModel, Tensor


def values(
    source: SourceModel, pixel_values: Tensor, seen: Sequence[Place], instead: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The value at each of the places ``seen``, by its name.

    ``instead`` gives other values for some of them: everything after such a place is computed from that, while the
    place itself still shows what is computed there. With an artifact's values, each block is shown what the artifact
    gave it, and so is what it does itself told from what came in.
    """
    import torch

    names = {place.node: place.name for place in seen}
    shown: dict[str, Tensor] = {}

    class Looking(torch.fx.Interpreter):  # type: ignore[misc]  # torch ships no types for it
        def run_node(self, node: Any) -> Any:
            value = super().run_node(node)
            name = names.get(node.name) if node.op == "call_function" else None
            if name is None:
                return value
            shown[name] = value.detach().numpy().copy()  # a ReLU may be computed in its place
            other = None if instead is None else instead.get(name)
            return value if other is None else torch.from_numpy(np.array(other, np.float32)).reshape(value.shape)

    with torch.no_grad():
        Looking(source.program.graph_module).run(*_inputs(source.program, pixel_values))
    return shown


def _inputs(program: Any, pixel_values: Tensor) -> list[Any]:
    """Of the captured graph, which takes its parameters as inputs."""
    import torch

    held = {**program.constants, **program.state_dict}
    return [
        torch.from_numpy(np.array(pixel_values)) if spec.kind.name == "USER_INPUT" else held[spec.target]
        for spec in program.graph_signature.input_specs
    ]
