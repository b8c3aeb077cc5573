"""What timm's modules go through before a target sees them: the same numbers by another way."""

from __future__ import annotations

from itertools import permutations
from math import prod
from typing import Any

import numpy as np
import pytest
import torch

from vitexport.errors import LoweringFailed
from vitexport.models.reparameterise import reparameterised
from vitexport.models.timm_weights import import_timm
from vitexport.rewrites import PROGRAM_REWRITES, rewriting
from vitexport.rewrites.hiera_attention import hiera_attention
from vitexport.rewrites.rotate_pairs import rotate_pairs
from vitexport.rewrites.split_permutations import merged, split_permutations, swaps
from vitexport.rewrites.squeeze_arithmetic import squeeze_arithmetic
from vitexport.rewrites.unpack_qkv import unpack_qkv

import_timm()


def attention(q_stride: int, *, windowed: bool) -> torch.nn.Module:
    from timm.models.hiera import MaskUnitAttention

    torch.manual_seed(0)
    return MaskUnitAttention(24, 48, 2, q_stride, window_size=4, use_mask_unit_attn=windowed).eval()


@pytest.mark.parametrize("q_stride", [1, 4])
@pytest.mark.parametrize("windowed", [True, False])
def test_hieras_attention_gives_the_same_bits_without_a_sixth_dimension(q_stride: int, windowed: bool):
    module = attention(q_stride, windowed=windowed)
    tokens = torch.randn(2, 4 * 4 * 3, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = module(tokens)
        with hiera_attention():
            rewritten = module(tokens)
            ranks = _ranks(module, tokens)
        assert torch.equal(rewritten, plain)
        assert max(ranks) <= 5
        assert max(_ranks(module, tokens)) == (6 if windowed else 5), (
            "the reason for the rewrite; without it, delete it"
        )


def _ranks(module: torch.nn.Module, tokens: torch.Tensor) -> list[int]:
    return _ranks_of(torch.export.export(module, (tokens,)))


def _ranks_of(program: Any) -> list[int]:
    nodes = program.graph.nodes
    return [node.meta["val"].ndim for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)]


@pytest.mark.parametrize("rank", range(1, 7))
def test_every_permutation_is_one_of_fewer_axes_or_several_of_four(rank: int):
    generator = np.random.default_rng(rank)
    for order in permutations(range(rank)):
        shape = generator.choice([1, 2, 3, 4], rank).tolist()
        values = np.arange(prod(shape)).reshape(shape)
        true = values.transpose(order)
        sizes, axes = merged(shape, order)
        np.testing.assert_array_equal(values.reshape(sizes).transpose(axes).reshape(true.shape), true)
        for outer, a, b, inner in swaps(sizes, axes):
            values = values.reshape(outer, a, b, inner).transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(values.reshape(true.shape), true)


#: A network of each kind, which is small -> what is rewritten in it.
RANKED: dict[str, tuple[dict[str, Any], set[Any]]] = {
    "swin_tiny_patch4_window7_224": (
        {"img_size": 56, "embed_dim": 24, "depths": (2, 1), "num_heads": (2, 2)},
        {unpack_qkv, split_permutations, squeeze_arithmetic},
    ),
    "swinv2_tiny_window8_256": (
        {"img_size": 64, "embed_dim": 24, "depths": (2, 1), "num_heads": (2, 2)},
        {unpack_qkv, split_permutations, squeeze_arithmetic},
    ),
    "hiera_tiny_224": ({"stages": (1, 1, 1, 1)}, {split_permutations}),
    "eva02_tiny_patch14_224": (
        {"img_size": 56, "depth": 2, "embed_dim": 64, "num_heads": 2},
        {unpack_qkv, rotate_pairs},
    ),
    "vit_base_patch16_siglip_224": (
        {"img_size": 64, "depth": 1, "embed_dim": 64, "num_heads": 2, "num_classes": 0},
        {unpack_qkv},
    ),
}


@pytest.mark.parametrize("name", RANKED)
def test_nothing_is_computed_at_a_rank_that_no_gpu_takes_and_every_bit_stays(name: str):
    """Reshapes of reshapes may pass through any rank: converters merge them."""
    from timm.models import create_model

    torch.manual_seed(0)
    settings, wanted = RANKED[name]
    module = create_model(name, pretrained=False, **settings).eval()
    side = settings.get("img_size", 224)
    picture = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), rewriting():
        true = module(picture)
        program = torch.export.export(module, (picture,), strict=False)
    before = max(_ranks_of(program))
    done = {rewrite for rewrite in PROGRAM_REWRITES if rewrite(program)}
    assert done == wanted
    assert before > 4
    reshape = torch.ops.aten.reshape.default
    assert {node.target for node in program.graph.nodes if _rank(node) > 4} <= {reshape}
    with torch.no_grad():
        assert torch.equal(program.module()(picture), true)


def _rank(node: Any) -> int:
    value = node.meta.get("val")
    return value.ndim if isinstance(value, torch.Tensor) else 0


def test_a_permutation_whose_shape_someone_needs_stays():
    class Needs(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(1, 2, 2, 3, 4).permute(0, 2, 1, 4, 3)

    program = torch.export.export(Needs(), (torch.rand(1, 48),))
    assert split_permutations(program) == 0


def test_an_open_batch_is_not_tied_to_a_number():
    class Windows(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = x.reshape(x.shape[0], 2, 3, 2, 3, 4).permute(0, 1, 3, 2, 4, 5)
            return parts.reshape(x.shape[0], 4, 9, 4)

    shapes = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(Windows(), (torch.rand(2, 6, 6, 4),), dynamic_shapes=shapes)
    for rewrite in PROGRAM_REWRITES:
        rewrite(program)
    pictures = torch.rand(5, 6, 6, 4)
    torch.testing.assert_close(program.module()(pictures), Windows()(pictures), rtol=0, atol=0)


def test_branches_are_folded_into_one_convolution_that_answers_the_same():
    from timm.models import create_model

    torch.manual_seed(0)
    module = create_model("repvit_m0_9", pretrained=False, num_classes=10).eval()
    folded = reparameterised(module, (64, 64))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        true, got = module(picture), folded(picture)
    assert float((got - true).abs().max() / true.abs().max()) < 1e-4
    assert _norms(folded) < _norms(module)


def test_a_module_without_branches_is_left_as_it_is():
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    assert reparameterised(module, (8, 8)) is module


def test_a_folding_that_answers_otherwise_is_refused():
    class Wrong(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        def fuse(self) -> torch.nn.Module:
            return torch.nn.Identity()

    with pytest.raises(LoweringFailed, match=r"folding of Sequential's branches changes its answers \(drift 5\.0e-01"):
        reparameterised(torch.nn.Sequential(Wrong()), (8, 8))


def _norms(module: torch.nn.Module) -> int:
    return sum(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())
