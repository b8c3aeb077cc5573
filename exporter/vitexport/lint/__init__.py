"""Which operations an accelerated path would leave to another, before anybody owns the device: ``vitexport inspect
--placement``.

Nothing is run: each target examines its own files by what it knows of its users' runtimes (``Accelerated`` in
:mod:`vitexport.contract`). What a runtime says itself, in :class:`vitexport.contract.Placement`, is the truth; a lint
that disagrees with it is wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitexport import registry
from vitexport.contract import Accelerated, Bundle, ExportRequest, Lint, Size
from vitexport.errors import BadRequest, did_you_mean


@dataclass(frozen=True)
class Linted:
    """One variant at one size."""

    model: str
    target: str
    precision: str
    size: Size
    lint: Lint


def of_bundles(
    found: Sequence[Bundle], targets: Sequence[str] = (), precisions: Sequence[str] = ()
) -> tuple[Linted, ...]:
    """Every variant of ``found``; ``targets`` and ``precisions`` are names of those that are wanted, none: all. Targets
    whose users' runtime has but one path are left out.

    Raises ``BadRequest``: there is none of that name; ``LoweringFailed``: a file is not what it says.
    """
    wanted = [b for b in found if not targets or b.manifest.target in targets]
    _all_there("target", targets, {bundle.manifest.target for bundle in found})
    _all_there("precision", precisions, {v.precision for bundle in wanted for v in bundle.rung.variants})
    made = tuple(linted for bundle in wanted for linted in _of(bundle, precisions))
    if not made:
        names = ", ".join(sorted({bundle.manifest.target for bundle in wanted}))
        raise BadRequest(f"This is for {names}, which has no accelerated path to place operations on.")
    return made


def of_model(request: ExportRequest) -> tuple[Linted, ...]:
    """The same of a model that nobody has exported: lowered to a folder that is thrown away, never proven.

    Raises as an export does.
    """
    from vitexport import bundle as bundles
    from vitexport import pipeline

    names = request.targets or _accelerated()
    targets = registry.resolve(names)
    if deaf := [target.traits.name for target in targets if not isinstance(target, Accelerated)]:
        raise BadRequest(
            f"Target '{deaf[0]}' has no accelerated path to place operations on. "
            f"Those that have: {', '.join(_accelerated())}."
        )
    brought = any("runtime" in target.traits.options for target in targets)
    asked = replace(request, targets=names, runtime="none" if brought else request.runtime)
    with tempfile.TemporaryDirectory(prefix="vitexport-lint-") as folder:
        plan = pipeline.check(asked, Path(folder) / "out")
        exams = pipeline.captured(asked)
        made: list[Linted] = []
        for target, its in plan:
            into = Path(folder) / target.traits.name
            into.mkdir()
            artifact = target.lower(tuple(exam.source for exam in exams), its, into)
            for bundle in bundles.complete(into, target.traits.name, exams, artifact):
                made += _of(bundle, its.precisions)
        return tuple(made)


def _of(bundle: Bundle, precisions: Sequence[str]) -> Iterator[Linted]:
    manifest, rung = bundle.manifest, bundle.rung
    target = registry.target(manifest.target)
    if not isinstance(target, Accelerated):
        return
    for variant in rung.variants:
        if not precisions or variant.precision in precisions:
            found = target.lint(bundle, variant.precision)
            yield Linted(manifest.model, manifest.target, variant.precision, rung.size, found)


def _accelerated() -> tuple[str, ...]:
    return tuple(name for name in registry.names() if isinstance(registry.target(name), Accelerated))


def _all_there(what: str, asked: Sequence[str], there: set[str]) -> None:
    for name in asked:
        if name not in there:
            raise BadRequest(
                f"There is no {what} '{name}' here.{did_you_mean(name, there)} There is: {', '.join(sorted(there))}."
            )
