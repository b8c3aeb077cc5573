"""Cold and steady are told apart, and each figure is the one its name says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vitexport import bench
from vitexport.contract import Device, Run


class Clockwork:
    """A session whose runs take the times it is given, and nothing else."""

    def __init__(self, times: list[float], *, software: bool = False) -> None:
        self.device = Device("a device", "a runtime", "a provider", software=software)
        self.load_ms, self.placement, self.times = 7.0, None, iter(times)

    def run(self, pixel_values: Any) -> Run:
        return Run({}, next(self.times))

    def __enter__(self) -> Clockwork:
        return self

    def __exit__(self, *error: object) -> None: ...


def test_the_first_run_is_cold_and_is_in_no_other_figure() -> None:
    steady = [float(ms) for ms in range(1, 31)]
    measured = bench.measure(Clockwork([500.0, *steady]), np.zeros(1))
    assert (measured.load_ms, measured.cold_ms, measured.runs, measured.times_ms) == (7.0, 500.0, 30, tuple(steady))
    assert measured.median_ms == np.median(steady)
    assert measured.p90_ms == pytest.approx(np.percentile(steady, 90))
    assert measured.p99_ms == pytest.approx(np.percentile(steady, 99))


def test_runs_that_parity_made_count_and_a_slow_device_is_not_asked_for_more() -> None:
    already = [Run({}, ms) for ms in (90_000.0, 6_000.0, 5_000.0)]
    measured = bench.measure(Clockwork([]), np.zeros(1), already)
    assert (measured.cold_ms, measured.times_ms) == (90_000.0, (6_000.0, 5_000.0))


def test_a_software_adapters_figure_says_that_it_is_no_devices() -> None:
    assert bench.measure(Clockwork([1.0] * 31, software=True), np.zeros(1)).device == (
        "a device (software adapter, not a device figure)"
    )


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 100])
def test_percentiles_are_numpys(percent: int) -> None:
    times = [5.0, 1.0, 4.0, 2.5]
    assert bench.percentile(times, percent) == pytest.approx(np.percentile(times, percent))
