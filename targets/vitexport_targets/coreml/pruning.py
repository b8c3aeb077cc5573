"""The smallest weights of a float16 package set to zero and left out of the file.

coremltools 9.0 skips most of them without a word: ``prune_weights.compress_by_magnitude`` asks numpy for a percentile
of float16 weights, which is NaN for more than 65,504 of them (their count overflows), and nothing is smaller than NaN.
No precision of this target prunes: without training afterwards, half the weights gone is most of the answer gone
(see the figures in tests/test_coreml_compression.py). It is here for those who have trained for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def prune(model: Any, sparsity: float) -> Any:
    """The ``MLModel`` with this share of each weight, 0..1, set to zero: its smallest."""
    import coremltools.optimize.coreml as cto

    config = cto.OptimizationConfig(global_config=cto.OpMagnitudePrunerConfig(target_sparsity=sparsity))
    with _whole_percentiles():
        return cto.prune_weights(model, config)


@contextmanager
def _whole_percentiles() -> Iterator[None]:
    from coremltools.optimize.coreml._quantization_passes import prune_weights

    original = prune_weights.compress_by_magnitude

    def compress_by_magnitude(val: Any, target_sparsity: float, block_size: Any = None, dim: Any = None) -> Any:
        kept = original(np.asarray(val, np.float32), target_sparsity, block_size, dim)
        return None if kept is None else kept._replace(nonzero_data=kept.nonzero_data.astype(val.dtype))

    prune_weights.compress_by_magnitude = staticmethod(compress_by_magnitude)
    try:
        yield
    finally:
        prune_weights.compress_by_magnitude = staticmethod(original)
