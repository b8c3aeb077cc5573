"""Two artifacts of one kind beside each other, pair by pair: how many times as long does the one take?

A machine's speed drifts by more than most changes to a network are worth: clocks, heat, neighbours. So both are loaded
in one process and run in turn, which of a pair goes first alternating; what drifts slowly hits both halves of a pair
alike and leaves their ratio.

Where the two came to lie in memory is no property of theirs, but lasts as long as they are loaded (T. Mytkowicz et al.,
Producing Wrong Data Without Doing Anything Obviously Wrong!, ASPLOS '09), and neighbouring pairs are alike where a
neighbour on the machine is. So both are loaded ``ROUNDS`` times, the other one first each time. A round's ratio is the
median of its pairs'; the figure is the median of the rounds', with the interval that they give it
(:mod:`vitexport.spread`): of all that is measured they come nearest to being independent.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from vitexport import registry, spread
from vitexport.bundle import read_golden
from vitexport.contract import Bundle, Device, Session, Size, Target
from vitexport.errors import BadRequest, RuntimeUnavailable
from vitexport.progress import step
from vitexport.proof import Cell, cells, opened

#: "Faster" is said of an interval without 1 in it: of two files that are equal, wrongly once in a hundred times.
CONFIDENCE = 0.99

#: The fewest that give an interval of such confidence: from the least to the largest of them.
ROUNDS = 8

#: In each round, or as many as the time allows, at least one.
PAIRS = 16
BUDGET_S = 5.0

#: Inferences of each before its first pair: the cold one, and one that finds caches filled by the other.
WARMING = 2


@dataclass(frozen=True)
class Ratio:
    """How many times as long ``one`` takes as ``other``, in one cell."""

    target: str
    precision: str
    provider: str
    size: Size
    one: str = ""
    other: str = ""
    """The bundles' folders."""
    other_precision: str = ""
    """Empty: the same."""
    device: str = ""
    runtime: str = ""
    threads: int | None = None
    one_ms: float | None = None
    other_ms: float | None = None
    """Medians of all pairs."""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    """Of the true median's lying in ``low..high``."""
    rounds_ms: tuple[tuple[tuple[float, float], ...], ...] = ()
    """One's time and the other's, pair by pair, in order; both were loaded anew for each round."""
    reason: str = ""
    """Why there is no figure."""


@dataclass(frozen=True)
class Contest:
    """A cell of one bundle, and one of another on the same provider and as many threads."""

    one: Bundle
    other: Bundle
    cell: Cell
    other_cell: Cell


@dataclass(frozen=True)
class Chosen:
    """Of all cells, those that are asked for; None: every one."""

    threads: tuple[int, ...] = ()
    precision: str | None = None
    provider: str | None = None
    other_precision: str | None = None
    """None: the same."""


def contests(ones: Sequence[Bundle], others: Sequence[Bundle], chosen: Chosen = Chosen()) -> tuple[Contest, ...]:
    """Every pair of cells of the same target, size and provider, in the same precision unless another is ``chosen``.

    Raises ``BadRequest`` where there is none.
    """
    found = tuple(
        Contest(one, other, cell, replace(cell, precision=chosen.other_precision or cell.precision))
        for one in ones
        for other in others
        if _kind(one) == _kind(other)
        for cell in cells(one, chosen.threads, chosen.precision, chosen.provider)
        if (chosen.other_precision or cell.precision) in {variant.precision for variant in other.rung.variants}
    )
    if not found:
        raise BadRequest(
            f"'{ones[0].directory}' and '{others[0].directory}' have nothing of one kind to compare: the first holds "
            f"{_inventory(ones)}; the other {_inventory(others)}. Name two of the same target, size and precision, or "
            "two precisions with --precision and --vs-precision."
        )
    return found


def compare(contest: Contest) -> Ratio:
    """The ratio of one cell; where this host cannot run it, why."""
    target = registry.target(contest.one.manifest.target)
    cell = contest.cell
    other_precision = "" if contest.other_cell == cell else contest.other_cell.precision
    blank = Ratio(
        target.traits.name,
        cell.precision,
        cell.provider,
        contest.one.rung.size,
        str(contest.one.directory),
        str(contest.other.directory),
        other_precision,
        threads=cell.threads,
    )
    rounds: list[list[tuple[float, float]]] = []
    try:
        with step("versus", _cell(blank)):
            for number in range(ROUNDS):
                device, pairs = _round(target, contest, other_first=number % 2 == 1)
                rounds.append(pairs)
            return replace(judged(blank, rounds), device=device.name, runtime=device.runtime)
    except RuntimeUnavailable as reason:
        return replace(blank, reason=str(reason))


def _round(target: Target, contest: Contest, *, other_first: bool) -> tuple[Device, list[tuple[float, float]]]:
    """Both loaded anew, and run in turn."""

    def load(bundle: Bundle, cell: Cell) -> tuple[Session, Callable[[], float]]:
        session = stack.enter_context(opened(target, bundle, cell))
        pixel_values = read_golden(bundle)[0].pixel_values
        return session, lambda: session.run(pixel_values).ms

    with ExitStack() as stack:
        if other_first:
            _, other = load(contest.other, contest.other_cell)
        session, one = load(contest.one, contest.cell)
        if not other_first:
            _, other = load(contest.other, contest.other_cell)
        if session.device.needs:
            raise RuntimeUnavailable(f"latency needs {session.device.needs}")
        return session.device, interleaved(one, other, other_first=other_first)
    raise AssertionError("unreachable: the block above returns or raises")


def interleaved(
    one: Callable[[], float], other: Callable[[], float], *, other_first: bool = False
) -> list[tuple[float, float]]:
    """Pairs of times in ms, the first that is run alternating. Until there are ``PAIRS``, or ``BUDGET_S`` is spent."""
    for _ in range(WARMING):
        one(), other()
    pairs: list[tuple[float, float]] = []
    while len(pairs) < PAIRS and sum(map(sum, pairs)) < BUDGET_S * 1000:
        if len(pairs) % 2 != other_first:
            second = other()
            pairs.append((one(), second))
        else:
            pairs.append((one(), other()))
    return pairs


def judged(blank: Ratio, rounds: Sequence[Sequence[tuple[float, float]]]) -> Ratio:
    """``blank`` with the figure of ``ROUNDS`` rounds. Raises ``RuntimeUnavailable`` where a run took no time."""
    if not all(one > 0 and other > 0 for pairs in rounds for one, other in pairs):
        raise RuntimeUnavailable("its clock is too coarse for so small a network: some runs took no time by it")
    ratios = [statistics.median(one / other for one, other in pairs) for pairs in rounds]
    found = spread.of_median(ratios, CONFIDENCE)
    assert found is not None, "ROUNDS are enough for an interval"
    return replace(
        blank,
        one_ms=statistics.median(one for pairs in rounds for one, _ in pairs),
        other_ms=statistics.median(other for pairs in rounds for _, other in pairs),
        ratio=statistics.median(ratios),
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        rounds_ms=tuple(map(tuple, rounds)),
    )


def sentence(ratio: Ratio, one: str, other: str) -> str:
    """For a person, who called them ``one`` and ``other``."""
    if ratio.ratio is None or ratio.low is None or ratio.high is None:
        return f"{_cell(ratio)}: not run ({ratio.reason})"
    if ratio.other_precision:
        one, other = f"{one} in {ratio.precision}", f"{other} in {ratio.other_precision}"
    unseen = max(1 / ratio.low, ratio.high) - 1
    told = f"{one if ratio.high < 1 else other} is faster"
    if ratio.low <= 1 <= ratio.high:
        told = f"no difference is shown, and one of less than {unseen:.0%} would not be"
    return (
        f"{_cell(ratio)}: {one} takes {ratio.ratio:.3f} times as long as {other} "
        f"({ratio.low:.3f}..{ratio.high:.3f} with {ratio.confidence:.1%} confidence, "
        f"{sum(map(len, ratio.rounds_ms))} pairs; medians {ratio.one_ms:.3g} and {ratio.other_ms:.3g} ms): "
        f"{told}. {ratio.device}, {ratio.runtime}"
    )


def _cell(ratio: Ratio) -> str:
    threads = f", {ratio.threads} thread{'' if ratio.threads == 1 else 's'}" if ratio.threads else ""
    beside = f" beside {ratio.other_precision}" if ratio.other_precision else ""
    return f"{ratio.target} {ratio.size} {ratio.precision}{beside} on {ratio.provider}{threads}"


def _kind(bundle: Bundle) -> tuple[str, Size]:
    return bundle.manifest.target, bundle.rung.size


def _inventory(bundles: Sequence[Bundle]) -> str:
    return ", ".join(f"{b.manifest.target} {b.rung.size} {v.precision}" for b in bundles for v in b.rung.variants)
