"""The timing protocol, one for all runtimes and devices: load, cold, steady and, where it is asked for, sustained.

Cold is the first inference after loading, shader compilation included. Steady runs follow until there are
``STEADY_RUNS`` of them or they have taken ``BUDGET_S`` seconds. The runs that parity made are of the same shape and
count as well: a software GPU that needs seconds per inference is not asked twice. Sustained runs go on for minutes, by
which time a phone is warm and its clocks are lower; what counts is the last half minute of them. Every steady time is
kept, and a median that they do not tell well enough says so itself (:mod:`vitexport.spread`).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vitexport import spread
from vitexport.contract import Measurement, Run, Session

if TYPE_CHECKING:
    from vitexport.contract import Tensor

STEADY_RUNS = 30
BUDGET_S = 10.0

#: The end of a sustained run that its median is taken of.
SUSTAINED_TAIL_S = 30.0

SOFTWARE_ADAPTER = "software adapter, not a device figure"


def measure(
    session: Session, pixel_values: Tensor, already: Sequence[Run] = (), sustained_s: float | None = None
) -> Measurement:
    """Time a loaded session. ``already`` are the inferences made since it was loaded, the cold one first."""
    cold, *steady = [run.ms for run in already] or [session.run(pixel_values).ms]
    while len(steady) < STEADY_RUNS and sum(steady) < BUDGET_S * 1000:
        steady.append(session.run(pixel_values).ms)
    device = session.device
    measured = Measurement(
        "passed",
        device=f"{device.name} ({SOFTWARE_ADAPTER})" if device.software else device.name,
        runtime=device.runtime,
        provider=device.provider,
        load_ms=session.load_ms,
        cold_ms=cold,
        median_ms=statistics.median(steady),
        p90_ms=percentile(steady, 90),
        p99_ms=percentile(steady, 99),
        runs=len(steady),
        times_ms=tuple(steady),
        warning=spread.warning(steady),
        facts=dict(device.facts),
    )
    if sustained_s is None:
        return measured
    return replace(measured, sustained_ms=sustained(session, pixel_values, sustained_s), sustained_after_s=sustained_s)


def sustained(session: Session, pixel_values: Tensor, seconds: float) -> float:
    """Median, in ms, of the runs of the last ``SUSTAINED_TAIL_S`` of ``seconds`` of nothing but inferences.

    Seconds are the runtime's own, between inferences no time passes that counts: a browser's answers travel.
    """
    ended: deque[tuple[float, float]] = deque()  # when a run was over, and its ms
    spent = 0.0
    while spent < seconds * 1000 or not ended:
        ms = session.run(pixel_values).ms
        spent += ms
        ended.append((spent, ms))
        while ended[0][0] < spent - SUSTAINED_TAIL_S * 1000:
            ended.popleft()
    return statistics.median(ms for _, ms in ended)


def percentile(times: Sequence[float], percent: float) -> float:
    """Linear interpolation between the nearest ranks, as numpy's default does."""
    ordered = sorted(times)
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
