"""The gates between PyTorch and a package: each holds one link of the chain to what that link can bear.

One threshold for everything is too blunt: rounding the weights to float16 costs a ViT 62 dB, and beside that a GELU of
the wrong kind cannot be seen (61.95 dB). So the graph and the arithmetic are judged apart::

    PyTorch --A-- float32 package --B-- float16 package, exact arithmetic --C-- float16 package, float16 arithmetic

A and B differ by nothing but the order of float32 operations, and must agree to 110 dB; there the wrong GELU leaves 85.

Of a package in fewer bits, B cannot be measured: its weights are others. It has to hold the float32 package's
operations, on the same values and with the same constants; its packed weights must be those of the float32 package but
for what that many bits cannot tell; and they must unpack, bit for bit, to what coremltools unpacks them to (D).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vitexport import parity
from vitexport.contract import Case, Gate, OutputSpec, Parity, Verdict
from vitexport_targets.coreml import labels
from vitexport_targets.coreml.indicators import Indicators
from vitexport_targets.coreml.mil import Function, Operation, Package
from vitexport_targets.coreml.packed import Comparison, digest
from vitexport_targets.coreml.rounding import to_fp16

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors

#: Two float32 programs of the same graph: 120 to 135 dB on these networks, and the mildest planted fault leaves 85.
SAME_GRAPH_DB = 110.0

_FROM_PYTORCH = "float32 package against PyTorch"
_FROM_TWIN = "float16 package against the float32 one with its constants rounded, both in exact arithmetic"

#: The largest finite float16.
LARGEST_HALF = 65_504.0

#: Of float32 softmax over up to 21,841 classes (ImageNet-21k): each quotient is rounded once, 2^-24.
_PROBABILITY_ROUNDING = 1e-6

#: A Gaussian error passes four of its standard deviations once in 16,000 values: the two best scores of a picture must
#: be that far apart for their order to mean anything.
_DEVIATIONS = 4.0


def first_link(judged: Parity) -> Gate:
    """A, where the float32 package itself is judged: parity has compared it."""
    assert judged.snr_db is not None
    assert judged.tolerance is not None
    return _at_least("A", _FROM_PYTORCH, judged.snr_db, _decibels(judged.tolerance))


def from_pytorch(
    outputs: tuple[OutputSpec, ...], answers: Sequence[Tensors], references: Sequence[Tensors], tolerance: float
) -> Gate:
    """A, of the twin of the package that is judged; ``tolerance`` is the noise that it was held to when it was made."""
    return _at_least("A", _FROM_PYTORCH, _least_snr(outputs, answers, references), _decibels(tolerance))


def from_twin(outputs: tuple[OutputSpec, ...], answers: Sequence[Tensors], twins: Sequence[Tensors]) -> Gate:
    """B: the float16 package is the float32 one, but for its constants."""
    return _at_least("B", _FROM_TWIN, _least_snr(outputs, answers, twins), SAME_GRAPH_DB)


def same_operations(found: Comparison) -> Gate:
    """B, of a package in fewer bits: it is the float32 one, but for its packed weights."""
    claim = f"the float32 package's {found.operations} operations, on the same values, with the same constants"
    wrong = len(found.differences)
    reason = f"{wrong} differ, the first {found.differences[0]}" if wrong else ""
    return Gate("B", claim, "failed" if wrong else "passed", float(wrong), 0.0, "differences", reason)


def packed_weights(found: Comparison, bits: int) -> Gate:
    """Each is off its original by no more, on average, than evenly spaced values would be at most."""
    share = {weight.name: weight.noise / weight.half_a_step(bits) for weight in found.weights}
    worst = max(share, key=lambda name: np.nan_to_num(share[name], nan=np.inf), default="")
    value = share.get(worst, float("nan"))
    reason = "" if value <= 1 else f"'{worst}' is off by {value:.2f} of half a step" if worst else "none is packed"
    claim = f"{len(share)} packed weights, rms in halves of a step of {bits} bits"
    return Gate("weights", claim, "failed" if reason else "passed", value, 1.0, "", reason)


def unpacked(package: Package, function: str, recorded: str) -> Gate:
    """D: the constants that the program computes with are those of its twin that coremltools unpacked."""
    same = digest(package, function) == recorded
    reason = "" if same else "other constants than those that coremltools unpacked when the package was made"
    claim = "constants equal the decompressed twin's, bit for bit"
    return Gate("D", claim, "passed" if same else "failed", float(not same), 0.0, reason=reason)


def arithmetic(
    judged: Parity, outputs: tuple[OutputSpec, ...], cases: Sequence[Case], answers: Sequence[Tensors]
) -> Gate:
    """C: what rounding every result leaves, and whether it changes what the network says."""
    assert judged.snr_db is not None
    assert judged.tolerance is not None
    gate = _at_least(
        "C", "every result rounded to float16, against PyTorch", judged.snr_db, _decibels(judged.tolerance)
    )
    changed = [
        case.name
        for case, answer in zip(cases, answers, strict=True)
        for output in outputs
        if output.meaning == "logits" and _changed(answer[output.name], case.reference[output.name], judged.tolerance)
    ]
    if gate.verdict == "passed" and changed:
        return replace(gate, verdict="failed", reason=f"another class wins on {', '.join(changed)}")
    return gate


def _changed(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether another class wins, on a picture that PyTorch is not undecided about. One class alone has no other."""
    if b.shape[1] == 1:
        return False
    *_, second, best = np.sort(b[0])
    decided = best - second > 2 * _DEVIATIONS * tolerance * np.sqrt(np.mean(np.square(b[0], dtype=np.float64)))
    return bool(decided and np.argmax(a) != np.argmax(b))


def headroom(largest: Mapping[str, float]) -> Gate:
    """Every float16 value of the program, on every picture, against the range of its kind."""
    where = max(largest, key=lambda name: np.nan_to_num(largest[name], nan=np.inf), default="")
    value = largest.get(where, float("nan"))
    reason = "" if value <= LARGEST_HALF else f"'{where}' reaches {value:g}; float16 ends at {LARGEST_HALF:g}"
    claim = "largest |activation| fits float16"
    return Gate("range", claim, "failed" if reason else "passed", value, LARGEST_HALF, "", reason)


def labelled(answer: Tensors, output: OutputSpec) -> Gate:
    """The label is that of the largest score, and the probabilities are those of the scores."""
    scores = np.asarray(answer[output.name], np.float64)
    true = parity.probabilities(scores, output)[0]
    off = float(np.max(np.abs(np.ravel(answer[labels.PROBABILITIES]) - true)))
    wanted = labels.unique(output.labels)[int(scores[0].argmax())]
    said = str(answer[labels.LABEL])
    reason = f"it says '{said}' where '{wanted}' has the best score" if said != wanted else ""
    if not off <= _PROBABILITY_ROUNDING:
        reason = f"a probability is off by {off:g}"
    verdict: Verdict = "failed" if reason else "passed"
    claim = "label and probabilities are those of the scores"
    return Gate("labels", claim, verdict, off, _PROBABILITY_ROUNDING, "", reason)


def rounded_as(half: Package, single: Package) -> Package:
    """The float32 package with its constants rounded to float16, but for those that the float16 one keeps."""
    return replace(
        single,
        functions={name: _rounded(half.functions[name], function) for name, function in single.functions.items()},
    )


def _rounded(half: Function, single: Function) -> Function:
    kept = {
        output.name
        for operation in half.operations
        for output in operation.outputs
        if operation.kind == "const" and output.type.dtype == "float32"
    }
    operations = tuple(
        operation if operation.kind != "const" or operation.outputs[0].name in kept else _with_rounded_value(operation)
        for operation in single.operations
    )
    return replace(single, operations=operations)


def _with_rounded_value(operation: Operation) -> Operation:
    value = operation.attributes["val"]
    if value.data.dtype != np.float32:
        return operation
    return replace(operation, attributes={**operation.attributes, "val": replace(value, data=to_fp16(value.data))})


def laid_out(before: Indicators, after: Indicators) -> Gate:
    """What the other layout was asked for. It counts; what a device makes of it only a device can say."""
    claim = (
        f"layout ops {before.layout_ops} -> {after.layout_ops}, tensors of rank > 4 {before.high_rank_tensors} -> "
        f"{after.high_rank_tensors}, gathers {before.gathers} -> {after.gathers}, activation traffic "
        f"{before.traffic_bytes / 1e6:.1f} -> {after.traffic_bytes / 1e6:.1f} MB"
    )
    better = after.layout_ops < before.layout_ops and after.high_rank_tensors == 0
    reason = "" if better else "the layout has not become simpler"
    return Gate("layout", claim, "passed" if better else "failed", reason=reason)


def retyped(package: Package) -> Gate:
    """A second opinion: coremltools reads the program again and derives every type from its operation's inputs."""
    from vitexport_targets.coreml.second_opinion import ProgramRefused, disagreements

    claim = "types of all values, derived again by coremltools"
    try:
        compared, wrong = disagreements(package)
    except ProgramRefused as error:
        return Gate("types", claim, "failed", reason=f"coremltools refuses the program: {error}")
    reason = "" if not wrong else f"{len(wrong)} of {compared} differ, the first {wrong[0]}"
    return Gate("types", claim, "failed" if wrong else "passed", float(len(wrong)), 0.0, "values", reason)


def _at_least(name: str, claim: str, value: float, floor: float) -> Gate:
    passes = value >= floor  # NaN compares false, and must fail
    reason = "" if passes else f"{value:.1f} dB; at least {floor:.1f} passes"
    return Gate(name, claim, "passed" if passes else "failed", value, float(floor), "dB", reason)


def _least_snr(outputs: tuple[OutputSpec, ...], answers: Sequence[Tensors], references: Sequence[Tensors]) -> float:
    """In dB; NaN propagates."""
    pairs = list(zip(answers, references, strict=True))
    return float(np.min([parity.snr_db(a[o.name], b[o.name], o.meaning) for a, b in pairs for o in outputs]))


def _decibels(noise: float) -> float:
    return float(-20 * np.log10(noise))
