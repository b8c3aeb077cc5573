"""A size left open is proven at sizes it was not traced at, or refused with the line that ties it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from conftest import TESTS
from vitexport import ExportRequest, Size, export
from vitexport.dynamic import further_sizes, step
from vitexport.errors import BadRequest, LoweringFailed
from vitexport.manifest import read_bundle

ANY_SIZE = f"{TESTS / 'models.py'}:any_size"


def request(model: str, out: Path, **more: object) -> ExportRequest:
    return ExportRequest(model=model, targets=("onnx",), dynamic=("size",), out=str(out), **more)  # type: ignore[arg-type]


def test_further_sizes_are_others_and_one_is_of_another_shape():
    for size, every in ((Size(224, 224), 32), (Size(224, 224), 14), (Size(144, 256), 16), (Size(32, 32), 32)):
        first, second = further_sizes(size, every)
        assert len({size, first, second}) == 3
        assert second.height / second.width != size.height / size.width
        assert all(side % every == 0 for s in (first, second) for side in (s.height, s.width))


def test_the_step_is_the_networks_own_or_a_power_of_two():
    assert step(Size(224, 224), 14) == 14
    assert step(Size(224, 224), None) == 32
    assert step(Size(250, 250), None) == 2


def test_a_convolutional_network_takes_any_size_and_is_proven_at_two_further_ones(tmp_path: Path):
    report = export(request(ANY_SIZE, tmp_path / "out", sizes=(Size(64, 64),)))
    assert report.verdict == "passed", report.results
    assert report.results[0].parity.images == 5 + 2
    assert read_bundle(tmp_path / "out" / "onnx").rung.input_shape == (1, 3, 0, 0)
    session = onnxruntime.InferenceSession(tmp_path / "out/onnx/onnx/model.onnx")
    assert session.run(None, {"pixel_values": np.zeros((1, 3, 320, 96), np.float32)})[0].shape == (1, 32)


@pytest.mark.parametrize("model", ["vit_tiny", pytest.param("dinov2_small", marks=pytest.mark.slow)])
def test_a_vit_resamples_its_positions_in_the_graph(tmp_path: Path, model: str):
    """onnxruntime's antialiased cubic Resize is PyTorch's to 4e-7 (a = -0.5, exclude_outside)."""
    report = export(request(model, tmp_path / "out", weights="random", sizes=(Size(112, 112),)))
    (result,) = report.results
    assert result.verdict == "passed", result.parity
    assert result.parity.drift < 1e-5


def test_a_network_tied_to_its_size_is_refused_with_the_line_that_ties_it(tmp_path: Path):
    with pytest.raises(LoweringFailed) as refused:
        export(request(f"{TESTS / 'models.py'}:tied", tmp_path / "out", sizes=(Size(64, 64),)))
    assert "cannot leave its size open: it is tied to one by `if pixel_values.shape[-1] != 64:`" in str(refused.value)
    assert "tests/models.py:" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_target_with_fixed_sizes_says_so(tmp_path: Path):
    tied = ExportRequest(model=ANY_SIZE, targets=("webgpu",), dynamic=("size",), out=str(tmp_path / "out"))
    with pytest.raises(BadRequest, match="'webgpu' cannot honour --dynamic"):
        export(tied)
