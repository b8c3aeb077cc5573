"""``--layout ane``: the same answers in another layout, and what it changed, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vitexport import ExportRequest, Size, export
from vitexport.errors import LoweringFailed
from vitexport.models.timm_weights import import_timm
from vitexport_targets.coreml.ane import in_ane_layout
from vitexport_targets.coreml.indicators import Indicators
from vitexport_targets.coreml.package import read

import_timm()

#: What the plain ViTs of timm differ in, each once.
KINDS: dict[str, dict[str, Any]] = {
    "class token": {},
    "mean of the patches": {"global_pool": "avg", "fc_norm": True},
    "mean without class token": {"global_pool": "avg", "class_token": False},
    "registers": {"reg_tokens": 3},
    "positions before the prefix": {"reg_tokens": 2, "no_embed_class": True},
    "LayerScale": {"init_values": 0.3},
    "no qkv bias": {"qkv_bias": False},
    "norm before": {"pre_norm": True},
    "features": {"num_classes": 0},
    "not square": {"img_size": (32, 64)},
}


def vit(**changes: Any) -> torch.nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    how = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 5, **changes}
    module = VisionTransformer(**how).eval()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.3
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_layout_answers_the_same(kind: str):
    module = vit(**KINDS[kind])
    picture = torch.randn(2, 3, *module.patch_embed.img_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        true, got = module.double()(picture.double()), in_ane_layout(module.float(), kind)(picture)
    assert got.shape == true.shape
    assert float((got - true).abs().max() / true.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"qk_norm": True}, r"a LayerNorm at blocks\.0\.attn\.q_norm"),
        ({"global_pool": "map"}, "pooling by 'map'"),
        ({"dynamic_img_size": True}, "positions that are resampled in the graph"),
        ({"act_layer": torch.nn.SiLU}, r"a SiLU at blocks\.0\.mlp\.act"),
    ],
)
def test_a_part_that_it_does_not_know_is_named_and_refused(changes: dict[str, Any], part: str):
    with pytest.raises(LoweringFailed, match=f"'my_vit' has {part}. Leave --layout out"):
        in_ane_layout(vit(**changes), "my_vit")


def test_a_network_of_another_kind_is_refused():
    with pytest.raises(LoweringFailed, match="'net' has a Linear"):
        in_ane_layout(torch.nn.Linear(3, 4), "net")


def factory() -> torch.nn.Module:
    return vit()


def test_an_export_in_the_other_layout_passes_every_gate_and_counts_what_changed(tmp_path: Path):
    plain, laid_out = (
        export(
            ExportRequest(
                model=f"{__file__}:factory",
                targets=("coreml",),
                sizes=(Size(32, 32),),
                image_input=False,
                layout=layout,
                out=str(tmp_path / str(layout)),
            )
        )
        for layout in (None, "ane")
    )
    (result,) = laid_out.results
    assert result.verdict == "passed", result.parity
    gates = {gate.name: gate for gate in result.parity.gates}
    assert "layout ops" in gates["layout"].claim
    assert "layout" not in {gate.name for gate in plain.results[0].parity.gates}
    before, after = (
        Indicators.of(read(tmp_path / name / "coreml/model_fp16.mlpackage").functions["main"])
        for name in ("None", "ane")
    )
    assert after.layout_ops < before.layout_ops
    assert after.high_rank_tensors == 0
    assert f"layout ops {before.layout_ops} -> {after.layout_ops}" in gates["layout"].claim


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vit_tiny", "dinov2_small"])
def test_whole_vits_pass_every_gate_in_the_other_layout(model: str, tmp_path: Path):
    request = ExportRequest(model=model, weights="random", targets=("coreml",), layout="ane", out=str(tmp_path / "out"))
    (result,) = export(request).results
    assert result.verdict == "passed", result.parity
