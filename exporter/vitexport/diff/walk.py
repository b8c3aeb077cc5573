"""Along one bundle, beside PyTorch: which values are whose, and how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from vitexport import registry
from vitexport.bundle import damage, read_golden
from vitexport.contract import Bundle, Case, Exam, ExportRequest, Target, Transparent
from vitexport.diff import pytorch
from vitexport.diff.cells import Cell
from vitexport.diff.exported import EXACT, lowered
from vitexport.diff.finding import find
from vitexport.diff.match import SAME, Match, match
from vitexport.diff.places import Place, outputs, places
from vitexport.diff.trace import Photo, Row, Trace, measured
from vitexport.errors import RuntimeUnavailable
from vitexport.parity import noise, snr_db
from vitexport.progress import step

if TYPE_CHECKING:
    from vitexport.contract import Tensor, Tensors


@dataclass(eq=False)
class Walk:
    """One bundle at one size. What serves all of its variants is computed once."""

    bundle: Bundle
    request: ExportRequest
    exams: tuple[Exam, ...]
    """PyTorch's side, at all sizes of the export."""

    def trace(self, cell: Cell) -> Trace:
        manifest, size = self.bundle.manifest, self.bundle.rung.size
        notes = tuple(note for note in (cell.note, damage(self.bundle)) if note)
        blank = Trace(manifest.model, manifest.target, cell.precision, cell.provider, size, notes=notes)
        try:
            return self._traced(blank, cell)
        except RuntimeUnavailable as reason:
            return replace(blank, reason=str(reason))

    def _traced(self, blank: Trace, cell: Cell) -> Trace:
        if not isinstance(self.target, Transparent) or cell.runs_on is None:
            raise RuntimeUnavailable(f"the target '{blank.target}' shows nothing of what it computes on the way")
        values = self.target.values(self.bundle, cell.precision)
        names = {place: values[found.key].name for place, found in self.matches.items() if found.key in values}
        with (
            self.target.open(self.bundle, cell.precision, cell.runs_on, tuple(names.values())) as session,
            step("diff", blank.label),
        ):
            answers = [session.run(case.pixel_values).outputs for case in self.cases]
            rows = self._rows(names, answers)
            found = find(rows)
            return replace(
                blank, runtime=session.device.runtime, first=found.first, finding=found.sentence, rows=tuple(rows)
            )

    def _rows(self, names: Mapping[str, str], answers: Sequence[Tensors]) -> list[Row]:
        """``names``: the artifact's, by place."""
        theirs = [
            {place: self.matches[place].order.apply(answer[name]) for place, name in names.items()}
            for answer in answers
        ]
        alone = [self._pytorch(case, given) for case, given in zip(self.cases, theirs, strict=True)]
        rows = []
        given = ""
        for place in self.places:
            row = Row(place.name, place.repeated)
            if place.name in names:
                same = self.matches[place.name].same
                row = replace(row, matched="same" if same else "nearest", value=names[place.name])
                row = measured(row, self._photos(place.name, theirs, alone, given))
                given = place.name
            rows.append(row)
        for spec in self.bundle.rung.outputs:
            row = Row(spec.name, matched="same", value=spec.name)
            rows.append(measured(row, self._photos(spec.name, answers, alone), spec.meaning))
        return rows

    def _photos(self, place: str, theirs: Sequence[Tensors], alone: Sequence[Tensors], before: str = "") -> list[Photo]:
        """``before``: the place before, or none."""
        return [
            Photo(artifact[place], pytorch[place], itself[place], _like(artifact.get(before), artifact[place]))
            for artifact, pytorch, itself in zip(theirs, self.ours, alone, strict=True)
        ]

    # ---------------------------------------------------------------------------------------------- PyTorch

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        return read_golden(self.bundle)

    @cached_property
    def exam(self) -> Exam:
        return next(exam for exam in self.exams if exam.source.size == self.bundle.rung.size)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Without those that pass on what came before them (a dropout)."""
        seen = places(self.exam.source)
        values = pytorch.values(self.exam.source, self.cases[0].pixel_values, seen)
        new = [not at or not np.array_equal(values[p.name], values[seen[at - 1].name]) for at, p in enumerate(seen)]
        return tuple(place for place, is_new in zip(seen, new, strict=True) if is_new)

    @cached_property
    def ours(self) -> list[dict[str, Tensor]]:
        """Of each photo, at every place and at the outputs."""
        return [self._pytorch(case, {}) for case in self.cases]

    def _pytorch(self, case: Case, instead: Tensors) -> dict[str, Tensor]:
        everywhere = (*self.places, *outputs(self.exam.source))
        return pytorch.values(self.exam.source, case.pixel_values, everywhere, instead)

    # ------------------------------------------------------------------------------------------ the artifact

    @cached_property
    def target(self) -> Target:
        return registry.target(self.bundle.manifest.target)

    @cached_property
    def matches(self) -> Mapping[str, Match]:
        """Which values of the float32 file are PyTorch's. One that answers wrongly is not asked where another can be
        made: from where it goes wrong, nothing in it can be recognised."""
        if any(variant.precision == EXACT for variant in self.bundle.rung.variants):
            found, sound = self._matches_in(self.bundle)
            if sound:
                return {place: each for place, each in found.items() if each.same}
        with lowered(self.target, self.request, self.exams, self.bundle.rung.size) as made:
            return self._matches_in(made)[0]

    def _matches_in(self, single: Bundle) -> tuple[Mapping[str, Match], bool]:
        """Of a float32 bundle, and whether its outputs are PyTorch's."""
        assert isinstance(self.target, Transparent)
        quickest = self.target.traits.shows[0]
        latest: dict[str, Tensor] = {}

        def read(taps: tuple[str, ...]) -> Tensors:
            with self.target.open(single, EXACT, quickest, taps) as session:
                latest.update(session.run(self.cases[0].pixel_values).outputs)
            return latest

        wanted = {place.name: self.ours[0][place.name] for place in self.places}
        with step("match", f"{self.target.traits.name} {single.rung.size} {EXACT}"):
            found = match(wanted, self.target.values(single, EXACT), read)
        pairs = [(latest[o.name], self.ours[0][o.name]) for o in single.rung.outputs if o.name in latest]
        return found, all(noise(snr_db(*pair)) <= SAME for pair in pairs)


def _like(given: Tensor | None, made: Tensor) -> Tensor | None:
    return given if given is not None and given.shape == made.shape else None
