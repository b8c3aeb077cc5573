"""float32 constants to float16, exactly as coremltools rounds them for an fp16 package."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Below this many elements coremltools keeps a number that would vanish (an epsilon) at float16's least:
#: ``_check_underflow_to_zero`` in converters/mil/mil/passes/defs/quantization.py.
_KEPT_BELOW = 400
_LEAST = float(np.nextafter(np.float16(0), np.float16(1)))


def to_fp16(values: NDArray[np.float32]) -> NDArray[Any]:
    """Too large becomes infinite, which is what the evaluation is to show."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if values.size >= _KEPT_BELOW:
        return rounded
    vanished = (rounded == 0) & (values != 0)
    return np.where(vanished, np.copysign(np.float16(_LEAST), values).astype(np.float16), rounded)
