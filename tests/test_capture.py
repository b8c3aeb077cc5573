"""The captured program computes what the module computes, takes ``pixel_values`` and is of rank-4 attention."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vitexport import photos
from vitexport.capture import CAPTURE_TOLERANCE, capture
from vitexport.contract import Preprocessing, Probe, Size, SourceModel
from vitexport.errors import BadRequest, LoweringFailed
from vitexport.models import lively, weights
from vitexport.models.network import Network
from vitexport.preprocess import preprocess
from vitexport.rewrites.fold_attention import fold_attention
from vitexport.rewrites.unpack_qkv import unpack_qkv

PROBES = photos.probes(None)


class Answers(nn.Module):
    """A pooled projection, handed to ``answer``."""

    def __init__(self, answer: object = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, stride=4)
        self.answer = answer or (lambda y: y)

    def forward(self, x: torch.Tensor) -> object:
        return self.answer(self.conv(x).mean((2, 3)))  # type: ignore[operator]


def network(module: nn.Module) -> Network:
    return Network(module, Preprocessing(Size(32, 48)), "classify", "logits", "logits", tuple("abcde"), "a test", "MIT")


def program_answer(source: SourceModel, pixel_values: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return source.program.module()(torch.from_numpy(pixel_values)).numpy()


def inputs(source: SourceModel) -> np.ndarray:
    return np.concatenate([preprocess(p.image, source.preprocessing) for p in PROBES])


def test_a_source_model_says_all_that_is_known() -> None:
    module = Answers()
    source = capture(network(module), "small", PROBES)
    (output,) = source.outputs
    assert (output.name, output.meaning, output.shape, output.labels) == ("logits", "logits", (1, 5), tuple("abcde"))
    assert (source.name, source.task, source.size) == ("small", "classify", Size(32, 48))
    assert (source.provenance.origin, source.provenance.licence) == ("a test", "MIT")
    assert source.provenance.weights_sha256 == weights.sha256(module)
    assert [s.arg.name for s in source.program.graph_signature.input_specs if s.kind.name == "USER_INPUT"] == [
        "pixel_values"
    ]


@pytest.mark.parametrize(
    "answer", [lambda y: (y, y + 1), lambda y: {"logits": y, "more": y + 1}, lambda y: [(y,), y + 1]]
)
def test_the_first_tensor_of_a_richer_answer_is_the_output(answer: object) -> None:
    module = Answers(answer)
    source = capture(network(module), "small", PROBES)
    x = inputs(source)[:1]
    assert np.array_equal(source.forward(x)["logits"], program_answer(source, x))


def test_training_mode_and_half_precision_are_left_behind() -> None:
    module = nn.Sequential(Answers(), nn.Dropout(0.5)).half().train()
    source = capture(network(module), "small", PROBES)
    x = inputs(source)[:1]
    assert source.forward(x)["logits"].dtype == np.float32
    assert np.array_equal(source.forward(x)["logits"], source.forward(x)["logits"])


def test_a_dynamic_batch_takes_any_batch_and_a_static_one_only_one() -> None:
    dynamic = capture(network(Answers()), "small", PROBES, dynamic=("batch",))
    for n in (1, 2, 5):
        x = inputs(dynamic)[:n]
        assert np.abs(program_answer(dynamic, x) - dynamic.forward(x)["logits"]).max() <= CAPTURE_TOLERANCE
    assert dynamic.outputs[0].shape == (1, 5)
    static = capture(network(Answers()), "small", PROBES)
    with pytest.raises(AssertionError, match="Guard failed"):
        program_answer(static, inputs(static)[:2])


def test_weights_that_answer_with_nan_are_refused() -> None:
    module = Answers()
    module.conv.weight.data.fill_(float("nan"))
    with pytest.raises(BadRequest, match=r"^'small' answers 'astronaut' with NaN or infinity in PyTorch"):
        capture(network(module), "small", PROBES)


def test_a_size_that_the_module_cannot_take_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"cannot take a float32 input of shape \(1, 3, 32, 48\)"):
        capture(network(nn.Linear(7, 7)), "small", PROBES)


def test_control_flow_on_data_cannot_be_captured_and_says_so() -> None:
    module = Answers(lambda y: y if y.sum() > 0 else -y)
    with pytest.raises(
        LoweringFailed, match=r"^torch\.export cannot capture 'small': .*control flow is the usual cause"
    ):
        capture(network(module), "small", PROBES)


def test_a_module_that_answers_at_random_is_noticed() -> None:
    module = Answers(lambda y: y + torch.rand_like(y))
    with pytest.raises(LoweringFailed, match="does not compute what the module computes"):
        capture(network(module), "small", PROBES)


# ---------------------------------------------------------------------------------------------------------- rewrites


@pytest.mark.parametrize(
    ("leading", "mask"),
    [
        ((2,), None),
        ((2, 3), (5, 7)),
        ((2, 3, 4), None),
        ((2, 3, 4), (5, 7)),
        ((2, 3, 4), (4, 5, 7)),
        ((2, 3, 4), (3, 1, 5, 7)),
        ((2, 3, 4), (2, 1, 4, 1, 7)),
        ((2, 2, 3, 4), (3, 1, 5, 7)),
    ],
)
def test_attention_of_any_rank_is_folded_to_four_and_agrees(
    leading: tuple[int, ...], mask: tuple[int, ...] | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn((*leading, n, 8), generator=generator) for n in (5, 7, 7))
    bias = None if mask is None else torch.randn(mask, generator=generator)

    class Attention(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.7)

    with fold_attention():
        program = torch.export.export(Attention(), (query, key, value), strict=False)
    nodes = [n for n in program.graph.nodes if "scaled_dot_product_attention" in str(n.target)]
    assert [n.args[0].meta["val"].ndim for n in nodes] == [4]
    assert torch.allclose(program.module()(query, key, value), Attention()(query, key, value), atol=1e-6)


def test_hiera_exports_to_onnx_because_its_attention_was_folded(tmp_path: Path) -> None:
    """Windowed attention of rank 5: without the rewrite torch.onnx.export stops."""
    from vitexport import torchvision_schemas

    torchvision_schemas.declare()
    import timm

    module = timm.create_model("hiera_tiny_224", stages=(1, 1, 1, 1), num_classes=7, img_size=(96, 96)).eval()
    how = Preprocessing(Size(96, 96))
    lively.enliven_on_photos(module, how, seed=0)
    source = capture(replace(network(module), preprocessing=how), "hiera", PROBES)
    path = tmp_path / "hiera.onnx"
    torch.onnx.export(source.program, dynamo=True, external_data=False, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for x in np.split(inputs(source), len(PROBES)):
        (got,) = session.run(None, {"pixel_values": x})
        true = source.forward(x)["logits"]
        assert np.abs(got - true).max() / np.abs(true).max() <= 1e-4  # the tolerance of fp32 on every target


#: Small relatives of timm's and how many blocks they have, each with its own attention: plain, rotary, windows,
#: continuous windows, biased, pooled.
ATTENTIONS: dict[str, tuple[int, dict[str, Any]]] = {
    "vit_tiny_patch16_224": (2, {"embed_dim": 48, "num_heads": 3, "depth": 2, "img_size": 32}),
    "eva02_tiny_patch14_224": (2, {"embed_dim": 128, "num_heads": 2, "depth": 2, "img_size": 28}),
    "swin_tiny_patch4_window7_224": (4, {"embed_dim": 24, "depths": (2, 2), "num_heads": (1, 2), "img_size": 56}),
    "swinv2_tiny_window8_256": (4, {"embed_dim": 24, "depths": (2, 2), "num_heads": (1, 2), "img_size": 64}),
    "beit_base_patch16_224": (2, {"embed_dim": 48, "num_heads": 3, "depth": 2, "img_size": 32}),
    "hiera_tiny_224": (4, {"embed_dim": 24, "stages": (1, 1, 1, 1), "img_size": (96, 96)}),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["", "dynamic"])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_queries_keys_and_values_are_taken_apart_before_they_are_reshaped(name: str, dynamic: bool) -> None:
    from vitexport import torchvision_schemas

    torchvision_schemas.declare()
    import timm

    torch.manual_seed(0)
    blocks, arguments = ATTENTIONS[name]
    module = timm.create_model(name, num_classes=7, **arguments).eval()
    side = arguments["img_size"]
    pictures = torch.randn(2, 3, *((side, side) if isinstance(side, int) else side))
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    program = torch.export.export(module, (pictures,), dynamic_shapes=shapes, strict=False)
    with torch.no_grad():
        before = program.module()(pictures)
        assert unpack_qkv(program) == blocks
        assert torch.equal(program.module()(pictures), before)
    assert not [n for n in program.graph.nodes if n.target is torch.ops.aten.unbind.int]
    assert unpack_qkv(program) == 0


def test_a_bias_that_could_be_trained_does_not_change_attentions_strides() -> None:
    """BEiT's relative bias wants a gradient, and torch then traces another kernel than it runs when nothing does."""
    from vitexport import torchvision_schemas

    torchvision_schemas.declare()
    import timm

    module = timm.create_model("beit_base_patch16_224", num_classes=7, **ATTENTIONS["beit_base_patch16_224"][1])
    source = capture(replace(network(module), preprocessing=Preprocessing(Size(32, 32))), "beit", PROBES)
    torch.onnx.export(source.program, dynamo=True, external_data=False, verbose=False)


def test_a_stack_of_three_that_is_no_projection_is_left_alone() -> None:
    class Colours(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, _, last = x.reshape(2, 3, 4, 5).permute(1, 0, 2, 3).unbind(0)
            return first - last

    x = torch.randn(2, 3, 4, 5)
    program = torch.export.export(Colours(), (x,), strict=False)
    assert unpack_qkv(program) == 0
    assert torch.equal(program.module()(x), Colours()(x))


# ------------------------------------------------------------------------------------------------- torchvision schemas


def test_torchvision_is_importable_and_declaring_twice_is_free() -> None:
    code = (
        "from vitexport import torchvision_schemas as s; s.declare(); s.declare(); import torchvision, timm;"
        "assert torchvision.ops.nms"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_probes_may_be_one_and_the_batch_still_dynamic() -> None:
    one = (Probe("photo", "photo", PROBES[0].image),)
    assert capture(network(Answers()), "small", one, dynamic=("batch",)).outputs[0].shape == (1, 5)
