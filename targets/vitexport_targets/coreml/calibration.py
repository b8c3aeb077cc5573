"""The ranges that a package's activations take on real pictures, for eight-bit activations.

coremltools 9.0 means to do this itself, in ``optimize.coreml.linear_quantize_activations``, and cannot:

* it needs Core ML to predict, hence macOS (``ModelDebugger.predict_intermediate_outputs``);
* it overwrites a range with the latest picture's before it takes the smaller and the larger of the two
  (``_update_tensor_range`` and ``record_intermediate_output``), so that of all pictures only the last one counts.

Both are mended by measuring here, in the MIL evaluator, and handing the ranges to coremltools' own graph passes.
tests/test_coreml_compression.py holds a test for each defect, which fails once it is gone upstream.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitexport.quantize.observers import Grid, Histogram, Range, observed
from vitexport_targets.coreml.evaluator import Evaluator
from vitexport_targets.coreml.package import read

if TYPE_CHECKING:
    from vitexport.contract import Observer, Tensor, Tensors

#: ``linear_symmetric``: -127 to 127.
_GRID = Grid(8, symmetric=True)


def ranges(package: Path, pictures: Iterable[Tensors], observer: Observer | None = None) -> dict[str, Range]:
    """Every float value of a package's one function, its inputs among them, in exact arithmetic, as ``observer`` has
    it.

    Raises ``RuntimeUnavailable`` where the evaluator cannot run it.
    """
    seen: defaultdict[str, Histogram] = defaultdict(Histogram)

    def note(name: str, value: Tensor) -> None:
        if value.dtype.kind == "f" and value.size:
            seen[name].add(value)

    evaluator = Evaluator(read(package))
    for picture in pictures:
        for name, value in picture.items():
            note(name, value)
        evaluator.run(picture, note)
    return observed(seen, observer, _GRID)


#: A value that is zero in all pictures, as everything may be in black ones, would get a step of 0, which coremltools
#: divides by. The step is stored as float16: of 2^-18 it holds 6 bits, of less fewer and fewer.
_LEAST = Range(-127 * 2.0**-18, 127 * 2.0**-18)


@contextmanager
def calibrated(measured: Mapping[str, Range]) -> Iterator[None]:
    """Inside, coremltools takes ``measured`` for what its own calibration would find."""
    from coremltools.optimize.coreml import _post_training_quantization as quantization
    from coremltools.optimize.coreml.experimental import _model_debugger as debugger
    from coremltools.optimize.coreml.experimental import _post_training_quantization as calibration

    def stats(model: Any, samples: Any, group_size: int = -1) -> dict[str, dict[str, float]]:
        wide = {name: r.wider(_LEAST) for name, r in measured.items()}
        found = {name: {"rmin": r.least, "rmax": r.largest} for name, r in wide.items()}
        # what is joined has one range, as in the function that this stands for
        joined = debugger.ModelDebugger(model)._get_concat_op_info()
        calibration._adjust_concat_surrounding_activation_stats(joined, found)
        return found

    original = quantization._get_activation_calibration_stats
    quantization._get_activation_calibration_stats = stats
    try:
        yield
    finally:
        quantization._get_activation_calibration_stats = original
