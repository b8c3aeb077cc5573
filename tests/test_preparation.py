"""Scales that change hands before quantisation: where they can, how far, and that the network answers as before."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TESTS, TINY
from seam_modules import WITH, WITHOUT, Block, Packed, Rectified, Separate, Windows, network
from vitexport import ExportRequest, capture, export, photos, pipeline
from vitexport.contract import Dynamic, Probe, SourceModel
from vitexport.preprocess import preprocess
from vitexport.quantize import calibration, prepare
from vitexport.quantize.migration import Migration
from vitexport.quantize.seams import seams

STACKED = f"{TESTS / 'models.py'}:stacked"


def captured(kind: type[Block], dynamic: tuple[Dynamic, ...] = ()) -> SourceModel:
    return capture.capture(network(kind), kind.__name__, photos.probes(None), dynamic)


def with_outliers(kind: type[Block], factor: float = 200.0) -> SourceModel:
    made = network(kind)
    with torch.no_grad():
        made.module.norm.weight[3] *= factor
        made.module.norm.bias[3] *= factor
        for name, layer in made.module.named_children():
            if name in ("qkv", "q", "k", "v"):
                layer.weight[:, 3] /= factor
    return capture.capture(made, kind.__name__, photos.probes(None))


# ------------------------------------------------------------------------------------------------------- the seams


@pytest.mark.parametrize(("kind", "producers"), WITH.items(), ids=[kind.__name__ for kind in WITH])
def test_seams_are_found_however_the_network_is_written(kind: type[Block], producers: tuple[str, ...]):
    found = seams(captured(kind).program)
    assert tuple(seam.producer.weight for seam in found) == tuple(f"{name}.weight" for name in producers)


@pytest.mark.parametrize("kind", WITHOUT, ids=[kind.__name__ for kind in WITHOUT])
def test_what_else_reads_a_channel_leaves_no_seam(kind: type[Block]):
    assert seams(captured(kind).program) == ()


@pytest.mark.parametrize("kind", WITH, ids=[kind.__name__ for kind in WITH])
def test_any_scale_and_offset_that_is_moved_at_a_seam_leaves_the_answers_as_they_are(kind: type[Block]):
    source = captured(kind)
    module, generator = copy.deepcopy(source.module).double(), torch.Generator().manual_seed(1)
    picture = torch.from_numpy(preprocess(source.probes[0].image, source.preprocessing)).double()
    with torch.no_grad():
        before = module(picture)
        values = dict(module.named_parameters())
        for seam in seams(source.program):
            scale = torch.where(seam.free, torch.rand(len(seam.free), generator=generator) * 9 + 0.1, 1.0)
            offset = torch.where(seam.shifts, torch.randn(len(seam.free), generator=generator), 0.0)
            prepare.move(seam, Migration(scale, offset), values)
        for name, value in values.items():
            module.get_parameter(name).data = value
        torch.testing.assert_close(module(picture), before, rtol=1e-9, atol=1e-12)


def test_queries_and_keys_keep_their_scale_where_they_share_a_layer_with_values():
    _, values = seams(captured(Packed).program)
    assert values.free.tolist() == [False] * 32 + [True] * 16


def test_offsets_are_left_where_they_would_not_survive():
    (rectified,) = seams(captured(Rectified).program)
    assert not rectified.shifts.any(), "a ReLU"
    _, written_out = seams(captured(Separate).program)
    assert not written_out.shifts.any(), "nobody knows that the weights of a product sum to one"
    _, attention = seams(captured(Packed).program)
    assert attention.shifts.tolist() == attention.free.tolist(), "those of attention do"


# --------------------------------------------------------------------------------------------------- what is moved


@pytest.mark.parametrize("kind", [Packed, Separate, Windows], ids=lambda kind: kind.__name__)
def test_an_outlier_is_taken_from_the_norm_and_the_answers_stay(kind: type[Block]):
    source = with_outliers(kind)
    (made,) = prepare.prepared([source])
    before, after = (each.module.norm.weight.detach().abs() for each in (source, made))
    assert before.max() / before.median() > 50
    assert after.max() / after.median() < 10
    assert made.forward is source.forward
    picture = preprocess(source.probes[1].image, source.preprocessing)
    answer = made.program.module()(torch.from_numpy(picture)).detach().numpy()
    np.testing.assert_allclose(answer, source.forward(picture)["logits"], rtol=1e-4, atol=1e-5)
    assert made.notes[-1].startswith("For eight-bit activations, scales of channels were moved from layer to layer at ")


def test_preparing_twice_gives_the_same_weights():
    source = with_outliers(Packed)
    one, other = (prepare.prepared([source])[0].module.state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_module_that_was_given_is_left_as_it_was():
    source = with_outliers(Packed)
    before = copy.deepcopy(source.module.state_dict())
    prepare.prepared([source])
    assert all(torch.equal(value, before[name]) for name, value in source.module.state_dict().items())


def test_black_pictures_move_nothing_that_is_not_a_number():
    black = (Probe("black", "photo", np.zeros((32, 32, 3), np.uint8)),)
    (made,) = prepare.prepared([replace(with_outliers(Packed), calibration=black)])
    assert all(bool(torch.isfinite(value).all()) for value in made.module.state_dict().values())


def test_a_channel_that_is_silent_in_all_pictures_moves_nothing_that_is_not_a_number():
    made = network(Packed)
    with torch.no_grad():
        made.module.norm.weight[5] = made.module.norm.bias[5] = 0
        made.module.qkv.weight[:, 6] = 0
    source = capture.capture(made, "silent", photos.probes(None))
    (ready,) = prepare.prepared([source])
    assert all(bool(torch.isfinite(value).all()) for value in ready.module.state_dict().values())


def test_an_open_batch_stays_open():
    (made,) = prepare.prepared([with_outliers(Packed)], ("batch",))
    assert made.program.module()(torch.zeros(7, 3, 32, 32)).shape == (7, 5)


def test_the_sizes_of_a_ladder_share_what_is_moved():
    source = with_outliers(Packed)
    other = replace(source, calibration=source.probes[:1])  # its own pictures would ask for other scales
    first, second = (made.module.state_dict() for made in prepare.prepared([source, other]))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    (alone,) = prepare.prepared([other])
    assert not torch.equal(alone.module.norm.weight, first["norm.weight"])


def test_a_network_that_strays_is_quantised_as_it_is_and_that_is_said(monkeypatch: pytest.MonkeyPatch):
    source = with_outliers(Packed)
    monkeypatch.setattr(prepare, "_divide", lambda *_: None)  # half a move: readers scaled, what they read not
    (made,) = prepare.prepared([source])
    assert made.program is source.program
    assert made.notes[-1].startswith("Quantised as it is, without moved scales: The captured program of 'Packed' does")


# ------------------------------------------------------------------------------------------------ the whole product


def test_only_precisions_that_quantise_activations_are_prepared_for():
    (exam,) = pipeline.captured(
        ExportRequest(model=STACKED, targets=("onnx",), precisions=("fp32", "fp16", "w8", "w4"))
    )
    assert exam.source.notes == ()


def test_a_network_without_seams_is_left_alone():
    (exam,) = pipeline.captured(ExportRequest(model=TINY, targets=("onnx",), precisions=("w8a8",)))
    assert exam.source.notes == ()
    assert len(calibration.of(exam.source).pictures) == calibration.PICTURES


def test_the_float_file_beside_them_still_agrees_with_pytorch(tmp_path: Path):
    asked = ExportRequest(
        model=STACKED, targets=("onnx",), precisions=("fp32", "w8a8", "w8-dyn"), out=str(tmp_path / "o")
    )
    report = export(asked)
    assert {result.precision: result.verdict for result in report.results}["fp32"] == "passed"
