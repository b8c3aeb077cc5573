"""Does an artifact compute what PyTorch computes? Metrics and the verdict.

Drift is ``max|a-b| / max|b|`` per output: it sees a lost scale factor (a 1.9x output has cosine 1.0) and does not
explode near zero as element-wise relative error does. A mask is a probability, so its scale is 1 whatever the photo:
on one without a person, where both masks are empty, the largest difference is what counts. NaN propagates into every
metric, and NaN never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vitexport.contract import Meaning, Metric, OutputSpec, Parity, Variant

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vitexport.contract import Tensors

#: SNR reported for bit-identical outputs, where the true value is infinite. Above anything float32 can show:
#: rounding the result of one float32 operation leaves 20 log10(2^24) = 144 dB.
SNR_CEILING_DB = 200.0

#: From here on it is float32's rounding over a whole network, the order in which a processor adds up, and nobody's
#: fault: the presets have 110 to 160 dB of their own anywhere, and the mildest fault that the tests plant in a float32
#: file 85.
ROUNDING_DB = 100.0

#: A parity run proves nothing unless two photos' reference outputs differ by this many tolerances: below that, a
#: network that ignored its input altogether could pass. With fewer bits for its weights an answer may be far from
#: PyTorch's, but must be nearer to its own photo's than to another's.
CONTRAST_IN_TOLERANCES: Mapping[Metric, float] = {"drift": 100.0, "noise": 100.0, "loss": 2.0}

#: Least IoU between the masks of PyTorch and of an artifact at the 0.5 threshold. The project's own floors: for floats
#: above what annotators agree with each other to, 0.987 on person masks (Meet's model card); in fewer bits a mask that
#: one can still use. Of all pictures together, and in floats on each.
MASK_IOU_FLOOR: Mapping[Metric, float] = {"drift": 0.99, "noise": 0.99, "loss": 0.95}

#: In float16 the pixels of a picture count of which PyTorch is sure: its probabilities of both classes are further
#: apart. Of a cat ``selfie_landscape`` has 7 % in doubt. Five runs of PyTorch's own, rounded to float16 this way and
#: that, have IoUs of 0.961 to 0.994 with float32's, and all that differs is nearer to 0.5 than this.
SURE = 0.05


#: A runtime that sums in another order than PyTorch is as far from the exact answer as PyTorch is, on whichever side:
#: two roundings apart on average, and both vary by a factor of two between photos and kernels.
ROUNDINGS = 4.0

#: Of noise: at their worst two roundings, PyTorch's and the runtime's, add up.
ROUNDINGS_IN_NOISE = 2.0

#: Beyond this many tolerances, a network that loses itself in rounding is not to be excused by it.
LARGEST_ALLOWANCE = 10.0


#: A precision that loses bits is held to a tenth of its tolerance at the tightest, where photos differ little.
TIGHTEST = 0.1


def held_to(variant: Variant, rounding: float, spread: float, half_rounding: float = 0.0) -> Variant:
    """The variant with its tolerance as this network and these photos allow it.

    ``rounding`` is the drift between PyTorch's own float32 and float64. Most networks round away from float64 by 1e-6
    and are held to the precision's tolerance; the selfie networks' steep sigmoids by up to 5e-5 at a mask's edge, and
    no float32 runtime can be expected to be closer to PyTorch than PyTorch is to itself.

    ``half_rounding`` is the noise of PyTorch's own float16, see :func:`vitexport.rounding.float16_noise`, for a variant
    in float16, which is allowed twice as much.

    ``spread`` is the :func:`contrast` of the photos. Where it is less than ``CONTRAST_IN_TOLERANCES`` of a precision
    that loses bits, the tolerance is tightened until it is as many, so that agreement proves something, down to
    ``TIGHTEST``.
    """
    if variant.metric == "drift":
        allowance = min(ROUNDINGS * rounding, LARGEST_ALLOWANCE * variant.tolerance)
        return replace(variant, tolerance=max(variant.tolerance, allowance))
    provable = max(spread / CONTRAST_IN_TOLERANCES[variant.metric], TIGHTEST * variant.tolerance)
    return replace(variant, tolerance=min(noise_of_roundings(half_rounding, variant.tolerance), provable))


def noise_of_roundings(own: float, tolerance: float) -> float:
    """Noise that passes where PyTorch's own rounding leaves ``own``: at least ``tolerance``, at most
    :data:`LARGEST_ALLOWANCE` of it. NaN allows nothing more."""
    allowance = min(ROUNDINGS_IN_NOISE * own, LARGEST_ALLOWANCE * tolerance)
    return allowance if allowance > tolerance else tolerance


def drift(a: NDArray[np.floating], b: NDArray[np.floating], meaning: Meaning = "logits") -> float:
    """max|a-b| / max|b|, for a mask max|a-b|; b is the reference. Where b is all zero, max|a|. NaN and inf in ``a``
    give NaN or inf."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    if a64.size == 0:
        return float("nan")
    scale = 1.0 if meaning == "mask" else float(np.max(np.abs(b64)))
    return float(np.max(np.abs(a64 - b64))) / (scale or 1.0)


def snr_db(a: NDArray[np.floating], b: NDArray[np.floating], meaning: Meaning = "logits") -> float:
    """-20 log10(rms(a-b) / rms(b)), for a mask -20 log10(rms(a-b)), at most ``SNR_CEILING_DB``; NaN propagates."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    noise = float(np.mean((a64 - b64) ** 2))
    signal = 1.0 if meaning == "mask" else float(np.mean(b64**2))
    if noise == 0.0:
        return SNR_CEILING_DB
    with np.errstate(divide="ignore"):  # infinite noise, or none of the signal: minus infinity
        return float(np.minimum(10.0 * np.log10(np.float64(signal) / noise), SNR_CEILING_DB))


def noise(snr: float) -> float:
    """rms(a-b) / rms(b) of an SNR in dB."""
    return float(10.0 ** (-np.float64(snr) / 20.0))


def cosine(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Cosine of the angle between the flattened tensors; 1.0 where both are zero."""
    a64, b64 = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    norms = float(np.linalg.norm(a64) * np.linalg.norm(b64))
    if norms == 0.0:
        return 1.0 if np.array_equal(a64, b64) else 0.0
    with np.errstate(invalid="ignore"):  # infinity over infinity is NaN, which is what is meant
        return float(np.dot(a64, b64) / norms)


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union; two empty masks agree perfectly (drift judges those)."""
    return _iou([_overlap(a, b)])


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int]:
    """Intersection and union, in pixels."""
    return int(np.count_nonzero(a & b)), int(np.count_nonzero(a | b))


def _iou(overlaps: Sequence[tuple[int, int]]) -> float:
    """Of all pictures at once, as PASCAL VOC counts it: where a mask is a few pixels of doubt, it weighs no more."""
    shared, covered = (sum(part) for part in zip(*overlaps, strict=True))
    return 1.0 if covered == 0 else shared / covered


def person_mask(scores: NDArray[np.floating], output: OutputSpec) -> NDArray[np.floating] | None:
    """The probability, (N, H, W) in 0..1, that a pixel shows a person, from an ``output`` (N, C, H, W) as its spec says
    it is to be read. None where it has no channel for people. What ``readout.js`` and shaders compute is this."""
    return None if output.person is None else probabilities(scores, output)[:, output.person]


def probabilities(scores: NDArray[np.floating], output: OutputSpec) -> NDArray[np.floating]:
    """Every class's, in the shape of ``scores`` (N, classes, ...), as the spec of an ``output`` says that they are to
    be read: as they are, by a softmax over the classes, of one class alone by a sigmoid."""
    if output.scores == "probabilities":
        return scores
    with np.errstate(over="ignore", invalid="ignore"):  # infinite scores: 0, or NaN, which is what is meant
        if scores.shape[1] == 1:
            lone: NDArray[np.floating] = 1 / (1 + np.exp(-scores))
            return lone
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: NDArray[np.floating] = powers / powers.sum(axis=1, keepdims=True)
        return shares


def _answer(scores: NDArray[np.floating], output: OutputSpec) -> NDArray[np.generic]:
    """(N,): the class with the best of ``scores`` (N, classes); of one class alone, whether it is likelier than not."""
    half = 0.5 if output.scores == "probabilities" else 0.0
    chosen: NDArray[np.generic] = np.argmax(scores, 1) if scores.shape[1] > 1 else scores[:, 0] > half
    return chosen


def agreement(a: NDArray[np.floating], b: NDArray[np.floating], output: OutputSpec) -> float | None:
    """Per image: 1 or 0 for the same top-1, of one class alone for the same side of a half; IoU with the reference's
    mask; None for features."""
    match output.meaning:
        case "logits":
            return float(np.mean(_answer(a, output) == _answer(b, output)))
        case "mask":
            return mask_iou(a > 0.5, b > 0.5)
        case "segmentation":
            chosen, true = np.argmax(a, 1), np.argmax(b, 1)
            classes = np.union1d(chosen, true)
            return float(np.mean([mask_iou(chosen == c, true == c) for c in classes]))
        case "features":
            return None


@dataclass(frozen=True)
class _Comparison:
    """One image, one output."""

    image: str
    output: str
    drift: float
    snr_db: float
    cosine: float
    agreement: float | None
    overlap: tuple[int, int] | None
    """Of a mask."""
    sure: tuple[int, int] | None
    """Of its pixels of which PyTorch is sure."""
    people: tuple[int, int] | None
    """Of the mask of people, where the output has a channel for them."""

    def off(self, metric: Metric) -> float:
        return self.drift if metric == "drift" else noise(self.snr_db)


def verify(
    outputs: tuple[OutputSpec, ...],
    references: Sequence[Tensors],
    answers: Sequence[Tensors],
    variant: Variant,
    images: Sequence[str],
    spread: float,
) -> Parity:
    """Judge an artifact's ``answers`` against PyTorch's ``references``, one mapping of outputs per image.

    Passes where every output has the right name, shape and dtype, is finite, and stays within the variant's tolerance;
    masks must also overlap, and in floats those of people, see :data:`MASK_IOU_FLOOR`. ``images`` names the pictures,
    for the reason of a failure; ``spread`` is PyTorch's own :func:`contrast` between photos.
    """
    compared: list[_Comparison] = []
    for name, reference, answer in zip(images, references, answers, strict=True):
        for output in outputs:
            if problem := _malformed(output.name, answer, reference):
                return Parity("failed", images=len(images), reason=f"{name}: {problem}")
            compared.append(_compare(name, answer[output.name], reference[output.name], output))
    reason = _fault(compared, variant) or ill_posed(spread, variant)
    return Parity(
        "failed" if reason else "passed",
        drift=_extreme(np.max, [c.drift for c in compared]),
        tolerance=variant.tolerance,
        metric=variant.metric,
        snr_db=_extreme(np.min, [c.snr_db for c in compared]),
        cosine=_extreme(np.min, [c.cosine for c in compared]),
        agreement=_agreement(compared),
        person_iou=_person_iou(compared),
        images=len(images),
        contrast=spread,
        reason=reason,
    )


def _agreement(compared: Sequence[_Comparison]) -> float | None:
    overlaps = [c.overlap for c in compared if c.overlap is not None]
    agreements = [c.agreement for c in compared if c.agreement is not None]
    return _iou(overlaps) if overlaps else float(np.mean(agreements)) if agreements else None


def _person_iou(compared: Sequence[_Comparison]) -> float | None:
    overlaps = [c.people for c in compared if c.people is not None]
    return _iou(overlaps) if overlaps else None


def contrast(outputs: tuple[OutputSpec, ...], references: Sequence[Tensors]) -> float:
    """Drift between PyTorch's answers to the first photo and to the one that differs most from it; the output that
    differs least counts. 0 where there is one photo only."""
    first, *others = references
    farthest = [_extreme(np.max, [0.0, *(drift(r[o.name], first[o.name], o.meaning) for r in others)]) for o in outputs]
    return _extreme(np.min, farthest)


def _extreme(pick: Callable[[list[float]], np.floating], values: list[float]) -> float:
    return float(pick(values))  # numpy's min and max propagate NaN; Python's do not


def _malformed(name: str, answer: Tensors, reference: Tensors) -> str:
    if name not in answer:
        return f"output '{name}' is missing; the artifact has {', '.join(answer) or 'none'}."
    got, true = answer[name], reference[name]
    if got.shape != true.shape:
        return f"output '{name}' has shape {got.shape}, PyTorch's has {true.shape}."
    if got.dtype != true.dtype:
        return f"output '{name}' is {got.dtype}, PyTorch's is {true.dtype}."
    return ""


def _compare(image: str, a: NDArray[np.floating], b: NDArray[np.floating], output: OutputSpec) -> _Comparison:
    meaning = output.meaning
    theirs, ours, sure = a > 0.5, b > 0.5, np.abs(2 * b - 1) > SURE
    return _Comparison(
        image,
        output.name,
        drift(a, b, meaning),
        snr_db(a, b, meaning),
        cosine(a, b),
        agreement(a, b, output),
        _overlap(theirs, ours) if meaning == "mask" else None,
        _overlap(theirs & sure, ours & sure) if meaning == "mask" else None,
        _people(a, b, output),
    )


def _people(a: NDArray[np.floating], b: NDArray[np.floating], output: OutputSpec) -> tuple[int, int] | None:
    theirs, ours = person_mask(a, output), person_mask(b, output)
    return None if theirs is None or ours is None else _overlap(theirs > 0.5, ours > 0.5)


def _fault(compared: list[_Comparison], variant: Variant) -> str:
    """Why the answers do not pass; empty where they do."""
    metric, tolerance = variant.metric, variant.tolerance
    worst = max(compared, key=lambda c: np.nan_to_num(c.off(metric), nan=np.inf))
    if not worst.off(metric) <= tolerance:  # NaN compares false, and must fail
        return (
            f"{metric} of output '{worst.output}' on {worst.image} is {worst.off(metric):.3g}; "
            f"at most {tolerance:.3g} passes."
        )
    floor = MASK_IOU_FLOOR[metric]
    people = _person_iou(compared)
    if metric != "loss" and people is not None and not people > floor:
        return f"IoU with PyTorch's masks of people is {people:.4f}; more than {floor} passes."
    overlaps = [c.overlap for c in compared if c.overlap is not None]
    if not overlaps:
        return ""
    found = _iou(overlaps)
    if metric != "loss":  # in fewer bits a picture where there is nobody, and few pixels are in doubt, may differ
        each = overlaps if metric == "drift" else [c.sure for c in compared if c.sure is not None]
        found = min(found, *(_iou([overlap]) for overlap in each))
    return "" if found > floor else f"mask IoU with PyTorch is {found:.4f}; more than {floor} passes."


def ill_posed(spread: float, variant: Variant) -> str:
    """Why agreement would prove nothing, of photos whose :func:`contrast` is ``spread``; empty where it does."""
    many = CONTRAST_IN_TOLERANCES[variant.metric]
    needed = many * variant.tolerance
    if spread >= needed:
        return ""
    return (
        f"ill-posed: PyTorch's own answers to two photos differ by {spread:.3g}, under {many:g} "
        f"tolerances ({needed:.3g}), so agreement proves nothing. Use trained weights or other --images."
    )
