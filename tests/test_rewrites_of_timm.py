"""What timm's modules go through before a target sees them: the same numbers by another way."""

from __future__ import annotations

import pytest
import torch

from vitexport.errors import LoweringFailed
from vitexport.models.reparameterise import reparameterised
from vitexport.models.timm_weights import import_timm
from vitexport.rewrites.hiera_attention import hiera_attention

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
    graph = torch.export.export(module, (tokens,)).graph
    return [node.meta["val"].ndim for node in graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]


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
