"""A plan that meets what accuracy may be lost: the fewest layers float, found by running the file itself.

All layers in fewer bits come first: mostly that is good enough. Where it is not, layers are made float again in the
order of what they cost the answer for each byte (:mod:`vitexport.quantize.sensitivity`), twice as many at each try, and
then as few of those as suffice. What decides is the artifact in its own runtime beside PyTorch's float32, on the
calibration pictures.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from vitexport import bundle as bundles
from vitexport import parity
from vitexport.contract import Bundle, Case, Exam, ExportRequest, Meaning, Parity, SourceModel, Target
from vitexport.errors import LoweringFailed, RuntimeUnavailable
from vitexport.progress import step
from vitexport.quantize import calibration, sensitivity
from vitexport.quantize.layers import LEAST_SIZE, Layer
from vitexport.quantize.plan import Cell, spared

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors

#: Points of agreement that may be lost where nothing else is asked: of classes half a point, which a user does not
#: notice; of masks one, which is less than people who draw the same mask differ by: 1.3 points of IoU among seven
#: (model card of Google Meet's segmentation, 2020).
MAX_DROP: dict[Meaning, float] = {"logits": 0.5, "mask": 1.0, "segmentation": 1.0}

#: Of all weights, the share that may stay float: a file that is mostly float is not what was asked for.
MOST_FLOAT = 0.5

#: Pictures that layers are ranked on; their order settles with a few.
RANKING_PICTURES = 4


def wanted(source: SourceModel, max_drop: float | None) -> bool:
    """Whether agreement tells anything: of random weights it does not, unless somebody asks for it; of features there
    is none."""
    random = source.provenance.origin.startswith("random")
    return source.outputs[0].meaning in MAX_DROP and (max_drop is not None or not random)


def search(target: Target, exam: Exam, asked: ExportRequest, precision: str) -> Cell:
    """The cell of ``precision``. ``reached`` is false where no choice of layers meets the goal: it holds the best."""
    source, name = exam.source, target.traits.name
    pictures = calibration.of(source).pictures
    goal = 1 - (MAX_DROP[source.outputs[0].meaning] if asked.max_drop is None else asked.max_drop) / 100
    trial = _Trial(target, exam, asked, precision, _cases(source, pictures), goal)
    with step("plan", f"{name} {precision}"):
        first = trial.of(())
        form = sensitivity.Form.of(precision)
        if first.reached is not False or form is None:
            return first
        module = source.program.module()
        found = sensitivity.sensitivities(module, pictures[:RANKING_PICTURES], form)
        costly = sorted(found, key=lambda s: s.noise / s.layer.weight.size, reverse=True)
        ranked = [s.layer for s in costly if s.layer.weight.size >= LEAST_SIZE]
        return _fewest(trial, _affordable(ranked), first)


def _affordable(ranked: Sequence[Layer]) -> list[Layer]:
    """As many from the front as may stay float."""
    left = MOST_FLOAT * sum(layer.weight.size for layer in ranked)
    taken = accumulate(layer.weight.size for layer in ranked)
    return [layer for layer, so_far in zip(ranked, taken, strict=True) if so_far <= left]


def _fewest(trial: _Trial, ranked: Sequence[Layer], first: Cell) -> Cell:
    """Twice as many until it suffices, then the fewest by halving. The more are float, the better it is, or nearly."""
    fails, best, count = 0, first, 1
    while ranked:
        cell = trial.of(ranked[:count])
        best = _better(best, cell)
        if cell.reached or count == len(ranked):
            break
        fails, count = count, min(2 * count, len(ranked))
    while best.reached and count - fails > 1:
        middle = (fails + count) // 2
        cell = trial.of(ranked[:middle])
        if cell.reached:
            best, count = cell, middle
        else:
            fails = middle
    return best


def _better(one: Cell, other: Cell) -> Cell:
    def worth(cell: Cell) -> tuple[bool, float, float]:
        snr = float("-inf") if cell.snr_db is None else cell.snr_db
        return bool(cell.reached), -1.0 if cell.agreement is None else cell.agreement, snr

    return max(one, other, key=worth)


@dataclass(frozen=True, eq=False)
class _Trial:
    """The file with some layers float, in its quickest runtime here: on ``cases``, the calibration pictures, and on the
    exam, which it is held to in the end."""

    target: Target
    exam: Exam
    asked: ExportRequest
    precision: str
    cases: tuple[Case, ...]
    goal: float

    def of(self, kept: Sequence[Layer]) -> Cell:
        cell = Cell(self.target.traits.name, self.precision, tuple(layer.name for layer in kept), reached=False)
        source = spared(self.exam.source, cell, kept)
        with tempfile.TemporaryDirectory() as folder:
            asked = replace(self.asked, precisions=(self.precision,))
            try:
                artifact = self.target.lower((source,), asked, Path(folder))
            except LoweringFailed:
                if kept:  # too little is left to be in fewer bits
                    return cell
                raise
            (made,) = bundles.complete(Path(folder), cell.target, (replace(self.exam, source=source),), artifact)
            return self._measured(cell, made)

    def _measured(self, cell: Cell, made: Bundle) -> Cell:
        traits, variant = self.target.traits, made.variant(self.precision)
        offered = [p for p in (*traits.shows, *traits.providers) if not variant.only or p in variant.only]
        size = sum(file.bytes for file in made.manifest.files if file.path in variant.files)
        try:
            with self.target.open(made, self.precision, offered[0]) as session:
                answers = [session.run(c.pixel_values).outputs for c in (*self.cases, *self.exam.cases)]
        except RuntimeUnavailable as reason:
            return replace(cell, total_bytes=size, measured_on=f"not run: {reason}", reached=None)
        many = len(self.cases)
        judged, exam = (
            self._judged(made, cases, found)
            for cases, found in ((self.cases, answers[:many]), (self.exam.cases, answers[many:]))
        )
        return replace(
            cell,
            agreement=judged.agreement,
            snr_db=judged.snr_db,
            total_bytes=size,
            images=many,
            measured_on=f"{session.device.runtime}, {offered[0]}",
            reached=exam.verdict == "passed" and judged.agreement is not None and judged.agreement >= self.goal,
        )

    def _judged(self, made: Bundle, cases: Sequence[Case], answers: Sequence[Tensors]) -> Parity:
        """Whether photos differ enough to prove anything is asked of the result, and no choice of layers changes it."""
        references, names = [case.reference for case in cases], [case.name for case in cases]
        return parity.verify(
            made.rung.outputs, references, answers, made.variant(self.precision), names, spread=float("inf")
        )


def _cases(source: SourceModel, pictures: Sequence[Tensor]) -> tuple[Case, ...]:
    return tuple(Case(f"picture {i}", "photo", each, source.forward(each)) for i, each in enumerate(pictures))
