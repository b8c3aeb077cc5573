"""Two artifacts in turn: equal ones are not told apart, unequal ones are, and what does not match is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import unproven
from conftest import TESTS
from vitexport import versus
from vitexport.contract import ExportRequest, Size
from vitexport.errors import BadRequest
from vitexport.manifest import read_bundles


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one`` and ``copy`` hold the same file, ``half`` the same network in another precision."""
    made = tmp_path_factory.mktemp("versus")
    asked = ExportRequest(f"{TESTS / 'models.py'}:roomy_and_large", ("onnx",), precisions=("fp32",))
    unproven.written(made / "one", asked)
    shutil.copytree(made / "one", made / "copy")
    unproven.written(made / "half", replace(asked, precisions=("fp16",)))
    return made


def drifting(factor: float, generator: np.random.Generator, clock: list[float]) -> Callable[[], float]:
    """Times with skewed noise on a machine that slows down run by run, by far more than ``factor``."""

    def run() -> float:
        clock[0] *= 1.01
        return float(factor * clock[0] * generator.lognormal(0, 0.1))

    return run


BLANK = versus.Ratio("onnx", "fp32", "cpu", Size(32, 32))


@pytest.mark.parametrize("factor", [1.0, 1.25])
def test_a_ratio_is_found_on_a_machine_that_slows_down(factor: float) -> None:
    generator, clock = np.random.default_rng(3), [1.0]
    runs = (drifting(factor, generator, clock), drifting(1.0, generator, clock))
    rounds = [versus.interleaved(*runs) for _ in range(versus.ROUNDS)]
    assert {len(pairs) for pairs in rounds} == {versus.PAIRS}
    assert clock[0] > 1.8
    found = versus.judged(BLANK, rounds)
    assert found.low <= factor <= found.high
    assert (found.low <= 1 <= found.high) == (factor == 1)


def test_the_interval_holds_where_the_pairs_of_a_round_are_alike() -> None:
    """Each round is off by 3 % as a whole, its pairs by 1 %: an interval of all pairs would miss half of the time."""
    generator, missed, of = np.random.default_rng(5), 0, 400
    for _ in range(of):
        offsets = generator.lognormal(0, 0.03, versus.ROUNDS)
        rounds = [[(float(generator.lognormal(0, 0.01) * off), 1.0) for _ in range(versus.PAIRS)] for off in offsets]
        found = versus.judged(BLANK, rounds)
        missed += not found.low <= 1 <= found.high
    assert missed <= 12, "0.8 % of 400 are 3; more than 12 of them are chance once in 46,000 times"


@pytest.mark.parametrize("other_first", [False, True])
def test_which_goes_first_alternates(other_first: bool) -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], float]:
        return lambda: order.append(name) or 1.0  # type: ignore[func-returns-value]  # None is what is wanted of it

    versus.interleaved(run("a"), run("b"), other_first=other_first)
    four = "baab" if other_first else "abba"
    assert "".join(order[2 * versus.WARMING :]) == four * (versus.PAIRS // 2)


def test_slow_ones_are_run_in_one_pair_a_round() -> None:
    assert len(versus.interleaved(lambda: 60_000.0, lambda: 60_000.0)) == 1


@pytest.mark.slow  # a timed test
def test_two_copies_of_one_file_take_1_00_times_as_long(folder: Path) -> None:
    """With 99 % confidence, so one try in a hundred may miss: two of three do, once in three thousand times."""
    (contest,) = versus.contests(read_bundles(folder / "one"), read_bundles(folder / "copy"))
    tries = [versus.compare(contest) for _ in range(3)]
    assert sum(r.low is not None and r.high is not None and r.low <= 1 <= r.high for r in tries) >= 2, tries
    for found in tries:
        assert found.confidence is not None
        assert found.confidence >= 0.99
        assert [len(pairs) for pairs in found.rounds_ms] == [versus.PAIRS] * versus.ROUNDS
        assert found.ratio == np.median([np.median([a / b for a, b in pairs]) for pairs in found.rounds_ms])


def test_the_command_tells_the_ratio_with_its_confidence(folder: Path) -> None:
    done = bench("--vs", folder / "copy", folder / "one", "--threads", "1", "--json")
    (found,) = json.loads(done.stdout)
    assert (found["target"], found["precision"], found["provider"], found["threads"]) == ("onnx", "fp32", "cpu", 1)
    assert 0.5 < found["low"] <= found["ratio"] <= found["high"] < 2


def test_one_precision_is_timed_beside_another(folder: Path) -> None:
    done = bench(folder / "one", "--vs", folder / "half", "--vs-precision", "fp16", "--threads", "1", "--json")
    (found,) = json.loads(done.stdout)
    assert (found["precision"], found["other_precision"]) == ("fp32", "fp16")
    assert (found["one"], found["other"]) == (str(folder / "one"), str(folder / "half"))
    pairs = np.array(found["rounds_ms"]).reshape(-1, 2)
    assert (found["one_ms"], found["other_ms"]) == pytest.approx(tuple(np.median(pairs, axis=0)))


def test_a_ratio_in_words_says_what_it_could_not_have_shown() -> None:
    told = replace(
        BLANK, ratio=0.9, low=0.8, high=1.1, confidence=0.992, one_ms=0.0881, other_ms=12.34, device="x", runtime="y"
    )
    said = versus.sentence(told, "a", "b")
    assert "medians 0.0881 and 12.3 ms): no difference is shown, and one of less than 25% would not be." in said
    clear = versus.sentence(replace(told, high=0.95, other_precision="fp16"), "a", "b")
    assert clear.startswith("onnx 32x32 fp32 beside fp16 on cpu: a in fp32 takes 0.900 times as long as b in fp16 (0.8")
    assert clear.endswith(": a in fp32 is faster. x, y")


def test_what_has_no_precision_in_common_is_refused(folder: Path) -> None:
    done = bench(folder / "one", "--vs", folder / "half")
    assert done.returncode == BadRequest.exit_code
    assert "have nothing of one kind to compare: the first holds onnx 32x32 fp32; the other onnx 32x32 fp16." in (
        done.stderr
    )


def test_each_number_of_threads_is_timed_and_stated(folder: Path) -> None:
    done = bench(folder / "one", "--threads", "1,2", "--json")
    results = json.loads(done.stdout)
    assert [r["latency"]["facts"]["threads"] for r in results] == ["1", "2"]
    assert all(r["latency"]["runs"] == 30 and r["latency"]["peak_memory_bytes"] > 10**7 for r in results)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threads", "0"), "--threads '0' is no list of whole numbers from 1 to 1024, such as 1,2,4."),
        (("--threads", "two"), "--threads 'two' is no list"),
        (("--sustained", "0"), "--sustained 0 is no number of minutes up to 120. Give one, such as 10."),
        (("--sustained", "nan"), "--sustained nan is no number of minutes up to 120. Give one, such as 10."),
        (("--sustained", "1", "--vs", "x"), "--sustained means nothing beside --vs"),
        (("--vs-precision", "fp16"), "--vs-precision means nothing without --vs."),
        (("--precision", "w4"), "has no such cell. It has fp32 on cpu. Name one of these, or none."),
        (("--precision", "fp16", "--device", "browser"), "--precision means nothing to --device, which runs all."),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(folder: Path, options: tuple[str, ...], said: str) -> None:
    done = bench(folder / "one", *options)
    assert (done.returncode, done.stdout) == (BadRequest.exit_code, "")
    assert said in done.stderr


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vitexport", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
