"""The plan of an export: given, made by measurement, or none; and what the user is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vitexport import spread
from vitexport.bench import SOFTWARE_ADAPTER
from vitexport.contract import Exam, ExportRequest, Result, Target
from vitexport.quantize import search
from vitexport.quantize.layers import layers
from vitexport.quantize.plan import Cell, Plan, read, spared
from vitexport.reports.cells import milliseconds

#: Names that a sentence can hold.
_SHOWN = 3

#: Medians of runs on a machine that does other things, too, differ by a few hundredths more than their runs tell.
_CLEARLY = 1.05


def decide(asked: Sequence[tuple[Target, ExportRequest]], exam: Exam, request: ExportRequest) -> Plan:
    """A cell for each precision in fewer bits that is asked of a target: out of ``request.plan``, or searched."""
    given = read(request.plan) if request.plan else None
    cells = []
    for target, wants in asked:
        for precision in wants.precisions:
            if target.traits.precision(precision).metric != "loss":
                continue
            cell = given.cell(target.traits.name, precision) if given else None
            if cell is None and search.wanted(exam.source, request.max_drop):
                cell = search.search(target, exam, wants, precision)
            if cell is not None:
                cells.append(cell)
    return Plan(1, exam.source.name, request.max_drop, tuple(cells))


def followed(plan: Plan, target: Target, exams: Sequence[Exam]) -> tuple[Exam, ...]:
    """``exams`` with the layers marked that the plan leaves float."""
    cells = [cell for cell in plan.cells if cell.target == target.traits.name and cell.keep_float]
    made = []
    for exam in exams:
        source = exam.source
        known = layers(source.program.module()) if cells else ()
        for cell in cells:
            source = spared(source, cell, known)
        made.append(replace(exam, source=source))
    return tuple(made)


def told(plan: Plan) -> Iterator[str]:
    """A sentence for each cell that does otherwise than asked, or cannot."""
    for cell in plan.cells:
        where = f"{cell.target} {cell.precision}"
        figure = "" if cell.agreement is None else f", with {cell.agreement:.1%} agreement on {cell.images} pictures"
        if cell.keep_float:
            yield f"{where}: {_named(cell)} float{figure}"
        if cell.reached is None:
            yield f"{where}: no plan was made, for its runtime cannot be asked ({cell.measured_on})"
        elif not cell.reached:
            yield (
                f"{where}: no choice of layers loses as little as was asked{figure}. "
                "Ask for more bits, or allow more with --max-drop."
            )


def _named(cell: Cell) -> str:
    shown, rest = ", ".join(cell.keep_float[:_SHOWN]), len(cell.keep_float) - _SHOWN
    return (
        f"{shown} and {rest} more stay" if rest > 0 else f"{shown} {'stays' if len(cell.keep_float) == 1 else 'stay'}"
    )


def not_worth_it(results: Sequence[Result]) -> Iterator[str]:
    """A sentence for each precision in fewer bits that a runtime is slower in than in floats: fp16 where it was
    exported as well, else fp32. Two noisy medians are no advice: their intervals must lie ``_CLEARLY`` apart."""
    devices = [result for result in results if SOFTWARE_ADAPTER not in result.latency.device]
    timed = {
        (r.target, r.size, r.provider, r.precision): (ms, r.latency.times_ms)
        for r in devices
        if (ms := r.latency.median_ms)
    }
    for (target, size, provider, precision), (ms, times) in timed.items():
        floats = [(p, timed.get((target, size, provider, p))) for p in ("fp16", "fp32")]
        known = next(((p, other) for p, other in floats if other), None)
        if precision in ("fp16", "fp32") or known is None:
            continue
        name, (others_ms, others_times) = known
        apart = spread.of_ratio(times, others_times)
        if apart is None or apart.low <= _CLEARLY:
            continue
        yield (
            f"{target} {precision} on {provider} takes {ms / others_ms:.2f} times as long as {name} at {size} "
            f"({milliseconds(ms)} against {milliseconds(others_ms)} ms, at least {apart.low:.2f} times by what the "
            f"runs tell): prefer {name} there unless it is the bytes that count"
        )
