"""What can be counted of a program without running it: no milliseconds, and no word on where it runs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from vitexport_targets.coreml.mil import Function, ValueType

#: Operations that compute nothing and copy everything.
_LAYOUT = frozenset({"reshape", "transpose"})
GATHERS = frozenset({"gather", "gather_along_axis", "gather_nd"})

#: Core ML's Neural Engine takes four dimensions; more are folded or go elsewhere.
MOST_DIMENSIONS = 4

_BYTES = {"float16": 2, "int16": 2, "uint16": 2, "float64": 8, "int64": 8, "int8": 1, "uint8": 1, "bool": 1}


@dataclass(frozen=True)
class Indicators:
    layout_ops: int
    high_rank_tensors: int
    """Of more than four dimensions."""
    gathers: int
    traffic_bytes: int
    """What all operations read and write, constants left out."""

    @classmethod
    def of(cls, function: Function) -> Indicators:
        types = {named.name: named.type for named in function.inputs}
        layout = ranks = gathers = traffic = 0
        for operation in function.operations:
            if operation.kind == "const" or operation.kind.startswith("constexpr_"):
                continue
            layout += operation.kind in _LAYOUT
            gathers += operation.kind in GATHERS
            for output in operation.outputs:
                types[output.name] = output.type
                ranks += len(output.type.shape) > MOST_DIMENSIONS
                traffic += _size(output.type)
            read = [name for bound in operation.inputs.values() for name in bound if isinstance(name, str)]
            traffic += sum(_size(types[name]) for name in read if name in types)
        return cls(layout, ranks, gathers, traffic)

    @classmethod
    def parse(cls, text: str) -> Indicators:
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))


def _size(of: ValueType) -> int:
    if of.kind != "tensor":
        return 0
    return math.prod(n or 1 for n in of.shape) * _BYTES.get(of.dtype, 4)
