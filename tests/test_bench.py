"""Cold and steady are told apart, and each figure is the one its name says."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from vitexport import bench, host, spread
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
    assert measured.warning == "too few runs to tell how well the median is known"


def test_a_software_adapters_figure_says_that_it_is_no_devices() -> None:
    assert bench.measure(Clockwork([1.0] * 31, software=True), np.zeros(1)).device == (
        "a device (software adapter, not a device figure)"
    )


@pytest.mark.parametrize("percent", [0, 10, 50, 90, 100])
def test_percentiles_are_numpys(percent: int) -> None:
    times = [5.0, 1.0, 4.0, 2.5]
    assert bench.percentile(times, percent) == pytest.approx(np.percentile(times, percent))


def test_a_narrow_spread_says_nothing_and_a_wide_one_names_the_interval() -> None:
    calm = bench.measure(Clockwork([9.0, *[10.0, 10.1] * 15]), np.zeros(1))
    assert calm.warning == ""
    restless = bench.measure(Clockwork([9.0, *[8.0, 12.0] * 15]), np.zeros(1))
    assert restless.warning == "wide spread: the median is 8 to 12 ms (95% confidence)"


def test_one_outlier_is_no_wide_spread() -> None:
    assert bench.measure(Clockwork([9.0, *[10.0] * 29, 500.0]), np.zeros(1)).warning == ""


def test_sustained_is_the_median_of_the_last_half_minute() -> None:
    cool, warm = [1_000.0] * 60, [2_000.0] * 30  # two minutes: the clocks fall after the first
    measured = bench.measure(Clockwork([1.0, *[1_000.0] * 10, *cool, *warm]), np.zeros(1), sustained_s=120.0)
    assert (measured.median_ms, measured.sustained_ms, measured.sustained_after_s) == (1_000.0, 2_000.0, 120.0)


def test_facts_of_the_device_are_in_the_measurement() -> None:
    session = Clockwork([1.0] * 31)
    session.device = Device("d", "r", "p", facts={"threads": "2"})
    assert bench.measure(session, np.zeros(1)).facts == {"threads": "2"}


@pytest.mark.parametrize("n", range(6, 60))
def test_the_interval_of_a_median_is_the_sign_tests(n: int) -> None:
    """Against scipy's binomial: the widest rank whose tails leave at least 95 %."""
    found = spread.of_median([float(i) for i in range(n)])
    assert found is not None
    rank = int(found.low)
    assert found.high == n - 1 - rank
    assert found.confidence == pytest.approx(1 - 2 * binom.cdf(rank, n, 0.5))
    assert found.confidence >= 0.95 > 1 - 2 * binom.cdf(rank + 1, n, 0.5)


def test_five_runs_have_no_interval() -> None:
    assert spread.of_median([1.0, 2.0, 3.0, 4.0, 5.0]) is None


def test_the_interval_covers_a_skewed_distributions_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    found = [spread.of_median(generator.lognormal(0, 1, 30).tolist()) for _ in range(2000)]
    covered = np.mean([interval is not None and interval.low <= 1 <= interval.high for interval in found])
    assert covered == pytest.approx(0.957, abs=0.015)  # three standard errors


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, ""),
        ({"AC": ("Mains", "1"), "BAT0": ("Battery", "")}, "mains"),
        ({"AC": ("Mains", "0"), "BAT0": ("Battery", "")}, "battery"),
        ({"ucsi": ("USB", "1"), "BAT0": ("Battery", "")}, "mains"),
    ],
)
def test_the_power_source_is_read_where_linux_tells_it(
    supplies: dict[str, tuple[str, str]], expected: str, tmp_path: Path
) -> None:
    for name, (kind, online) in supplies.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(f"{kind}\n")
        if online:
            (tmp_path / name / "online").write_text(f"{online}\n")
    assert host._power_on_linux(tmp_path) == expected


@pytest.mark.parametrize(
    ("sysctl", "expected"),
    [
        ('[ "$*" = "-n machdep.cpu.brand_string" ] && echo "Apple M4 Pro"', "Apple M4 Pro"),
        ("exit 1", "arm"),
        ("", "arm"),
    ],
)
def test_a_mac_names_its_processor(sysctl: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "sysctl"
    script.write_text(f"#!/bin/sh\n{sysctl}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert host.cpu_name() == host.described()["cpu"] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a peak be forgotten")
def test_the_peak_is_what_was_taken_since_it_was_forgotten() -> None:
    np.ones(2**25)  # 256 MB, given back at once
    host.forget_peak_memory()
    before = host.peak_memory_bytes()
    np.ones(2**24)
    after = host.peak_memory_bytes()
    assert before is not None
    assert after is not None
    assert 2**27 * 0.9 < after - before < 2**27 * 1.5
