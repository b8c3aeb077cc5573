"""The ops that the evaluator knows: one table, from MIL's name to the function that does it.

Parameters are named as the op set names them
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html); tensors are torch's, floats
in the evaluator's own width. An op raises ``NotImplementedError`` for an attribute's value that it does not know and
``ValueError`` for one that cannot be; neither is ever guessed.
"""

from __future__ import annotations

from collections.abc import Mapping

from vitexport_targets.coreml.ops import (
    activation,
    classify,
    conv,
    elementwise,
    index,
    linear,
    norm,
    pool,
    quantized,
    reduce,
    resize,
    shape,
)
from vitexport_targets.coreml.ops.signature import Op, op

_ROOMS = (activation, classify, conv, elementwise, index, linear, norm, pool, quantized, reduce, resize, shape)

TABLE: Mapping[str, Op] = {name: op(apply) for room in _ROOMS for name, apply in room.OPS.items()}
