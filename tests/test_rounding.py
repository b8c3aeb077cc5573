"""What rounding alone does to a network, in PyTorch: the floors that no runtime can be held below."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from test_capture import PROBES, Answers, network
from vitexport import parity, rounding
from vitexport.capture import capture
from vitexport.contract import SourceModel
from vitexport.preprocess import preprocess

STEEP = capture(network(Answers(lambda y: torch.sin(1e3 * y))), "steep", PROBES)
PLAIN = capture(network(Answers()), "small", PROBES)


def test_float32_rounding_is_measured_against_float64() -> None:
    assert 1e-8 < PLAIN.rounding < 1e-5
    assert STEEP.rounding > 10 * PLAIN.rounding
    assert 1e-8 < rounding.float32_noise(PLAIN) < 1e-5
    assert rounding.float32_noise(STEEP) > 10 * rounding.float32_noise(PLAIN)


def of_pytorchs_float16(source: SourceModel) -> list[float]:
    """Of each picture, in torch's own float16 kernels, which add up in float32 and round once, too."""
    half = copy.deepcopy(source.program.module()).half()
    (output,) = source.outputs
    found = []
    for probe in source.probes:
        pixel_values = preprocess(probe.image, source.preprocessing)
        with torch.no_grad():
            answer = half(torch.from_numpy(pixel_values).half()).float().numpy()
        found.append(parity.noise(parity.snr_db(answer, source.forward(pixel_values)[output.name], output.meaning)))
    return found


def test_float16_is_what_pytorchs_own_kernels_lose_on_the_worst_of_some_throws() -> None:
    measured, pytorchs = rounding.float16_noise(PLAIN), max(of_pytorchs_float16(PLAIN))
    assert 0.7 * pytorchs < measured < 3 * pytorchs
    assert 1e-5 < measured < 2e-3
    assert rounding.float16_noise(STEEP) > 10 * measured


def test_float16_is_measured_once_and_alike_each_time() -> None:
    again = replace(PLAIN)
    assert rounding.float16_noise(again) == rounding.float16_noise(PLAIN)
    assert again in rounding._half


def test_what_float16_cannot_hold_excuses_nothing() -> None:
    source = capture(network(Answers(lambda y: torch.tanh(1e6 * (y.abs() + 1)) * y)), "overflowing", PROBES)
    assert rounding.float16_noise(source) == 0.0


@pytest.mark.parametrize(
    "answer", [lambda y: torch.tanh(1e-9 * (y / (y.abs() * 1e-9))), lambda y: 1 / (y * 1e-9)], ids=["hidden", "shown"]
)
def test_a_divisor_that_float16_takes_for_zero_excuses_nothing(answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert rounding.float16_noise(capture(network(Answers(answer)), "dividing", PROBES)) == 0.0


def test_what_is_written_through_a_view_is_not_lost() -> None:
    def assigned(y: torch.Tensor) -> torch.Tensor:
        made = torch.zeros_like(y)
        made[:, :3] = y[:, :3]
        made[:, 3:] = 2 * y[:, 3:]
        return made

    source = capture(network(Answers(assigned)), "assigned", PROBES)
    assert any(node.target is torch.ops.aten.copy_.default for node in source.program.graph.nodes)
    assert 1e-5 < rounding.float16_noise(source) < 2e-3


def test_what_stands_for_infinity_may_be() -> None:
    def masked(y: torch.Tensor) -> torch.Tensor:
        mask = torch.tensor([0.0, 0.0, torch.finfo(torch.float32).min, 0.0, 0.0])
        return torch.softmax(y + mask, -1)

    assert 1e-5 < rounding.float16_noise(capture(network(Answers(masked)), "masked", PROBES)) < 1e-2


@pytest.mark.parametrize("values", [[1.0, -3.5, 1000.0], [0.0, 1e-7, 6e-8]])
def test_a_dithered_picture_is_the_same_to_float16_but_for_its_last_place(values: list[float]) -> None:
    given = torch.tensor(values)
    for seed in range(20):
        dithered = rounding._dithered(given, torch.Generator().manual_seed(seed))
        place = np.spacing(np.abs(given.numpy()).astype(np.float16)).astype(np.float64)
        assert np.all(np.abs((dithered - given).numpy()) <= 0.5 * place + 1e-12)
