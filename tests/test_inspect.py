"""``vitexport inspect``: what a model costs, counted on the real module without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import TINY, Command
from test_bad_input import expect
from vitexport.anatomy import FAR, Anatomy, inspect
from vitexport.anatomy.operations import count
from vitexport.anatomy.skeleton import skeleton
from vitexport.anatomy.table import render
from vitexport.contract import Size
from vitexport.errors import BadRequest

#: One of each family that this project exports; the smallest that timm has.
FAMILIES = [
    "vit_tiny",
    "vit_base_patch32",
    "deit_tiny_distilled_patch16_224",
    "dinov2_small",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_siglip_224",
    "flexivit_small",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "swin_tiny",
    "swinv2_tiny_window8_256",
    "hiera_tiny_224",
    "mvitv2_tiny",
    "xcit_tiny_12_p16_224",
    "levit_128s",
    "pvt_v2_b0",
    "convnext_atto",
    "mobilevit_xs",
    "mobilenetv4_conv_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "efficientvit_b0",
    "fastvit_t8",
    "repvit_m0_9",
    "tiny_vit_5m_224",
    "vit_tiny_seg",
]

#: Issue 3 asks for this; the two counters agree to the last product.
TOLERANCE = 0.01


def macs_and_torchs(model: str, size: Size | None = None) -> tuple[int, float]:
    """Ours, and those of torch's own op-level counter, which counts an addition beside each multiplication."""
    found = skeleton(model, size)
    pixel_values = torch.empty(1, 3, found.size.height, found.size.width, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        found.module(pixel_values)
    ours = count(found.module, pixel_values)
    return sum(operation.macs for operation, _ in ours.operations), counter.get_total_flops() / 2


def one(model: str, *size: int) -> Anatomy:
    (found,) = inspect(model, [Size(*size)] if size else ())
    return found


@pytest.mark.parametrize("model", FAMILIES)
def test_macs_agree_with_torchs_counter(model: str):
    ours, torchs = macs_and_torchs(model)
    assert ours == pytest.approx(torchs, rel=TOLERANCE)


def test_a_vit_base_has_the_figures_of_its_papers():
    """Dosovitskiy et al. 2021 (arXiv:2010.11929): 86 M; Touvron et al. 2021 (arXiv:2012.12877): 17.6 GFLOPs."""
    found = one("vit_base")
    assert (found.grid, found.tokens, found.size) == ((14, 14), 197, Size(224, 224))
    assert round(found.parameters / 1e6, 1) == 86.6
    assert round(found.macs.total / 1e9, 1) == 17.6


def test_a_vits_attention_and_mlp_follow_their_formulas():
    """Per block of dimension d over n tokens: 4 n d^2 + 2 n^2 d and, four times as wide inside, 8 n d^2."""
    found, tokens, dim, blocks, heads = one("vit_tiny"), 197, 192, 12, 3
    assert found.macs.attention_products == blocks * 2 * tokens**2 * dim
    assert found.macs.attention == blocks * (4 * tokens * dim**2 + 2 * tokens**2 * dim)
    assert found.macs.mlp == blocks * 8 * tokens * dim**2
    assert found.attention_entries == blocks * heads * tokens**2
    assert found.attention_bytes == 4 * found.attention_entries


def test_a_larger_size_has_more_tokens_and_a_longer_position_table_and_nothing_else():
    small, large = inspect("vit_tiny", [Size(224, 224), Size(144, 256)])
    assert (large.grid, large.tokens) == ((9, 16), 145)
    assert small.parameters - large.parameters == (197 - 145) * 192
    assert (small.macs.mlp / 197) == (large.macs.mlp / 145)


@pytest.mark.parametrize(
    ("model", "grid", "tokens"),
    [
        ("deit_tiny_distilled_patch16_224", (14, 14), 198),
        ("dinov2_small", (16, 16), 257),
        ("vit_base_patch16_siglip_224", (14, 14), 196),
        ("swin_tiny", (56, 56), 3136),
        ("hiera_tiny_224", (56, 56), 3136),
        ("mobilevit_xs", (32, 32), 1024),
        ("efficientformer_l1", (7, 7), 49),
        ("convnext_atto", None, None),
    ],
)
def test_grid_and_tokens_are_those_that_the_first_attention_sees(model: str, grid: object, tokens: object):
    found = one(model)
    assert (found.grid, found.tokens) == (grid, tokens)


def test_peak_activations_are_what_is_alive_at_the_widest_moment():
    with torch.device("meta"):
        mlp, x = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 8)), torch.empty(5, 8)
    assert count(mlp, x).peak_bytes == 4 * 5 * (8 + 32 + 32)  # the input, the hidden layer before and after GELU


def test_weight_bytes_per_precision():
    found = one("vit_base").weight_bytes
    assert found.fp32 == 4 * 86_567_656
    assert found.fp16 == found.fp32 / 2
    assert 0.25 < found.w8 / found.fp32 < 0.26
    assert 0.14 < found.w4 / found.fp32 < 0.15  # 4 bits and a 16-bit scale for 32 of them: 4.5 of 32


def test_attention_past_half_of_the_cost_is_warned_of():
    calm, wall = inspect("vit_small", [Size(224, 224), Size(768, 768)])
    assert 2 * calm.macs.attention < calm.macs.total
    assert calm.warnings == ()
    assert 2 * wall.macs.attention > wall.macs.total
    assert wall.warnings[0].startswith("768x768: attention is 6")


def test_windowed_attention_has_no_wall():
    small, large = inspect("swin_tiny", [Size(224, 224), Size(896, 896)])
    assert large.macs.attention / large.macs.total == pytest.approx(small.macs.attention / small.macs.total, rel=0.02)


def test_a_size_far_from_the_training_grid_is_warned_of():
    assert FAR == 1.5
    near, far = inspect("vit_tiny", [Size(336, 336), Size(352, 352)])
    assert not any("trained at" in warning for warning in near.warnings)
    assert any("352x352 is 1.6 times off the 224x224" in warning for warning in far.warnings)
    assert any("224x224 is 2.3 times off the 518x518" in warning for warning in one("dinov2_small").warnings)


@pytest.mark.parametrize(("kind", "tokens"), [("ViT", 197), ("Dinov2", 257), ("DeiT", 198), ("Swin", 3136)])
def test_a_checkpoint_is_counted_from_its_config_alone(tmp_path: Path, kind: str, tokens: int):
    import transformers

    config = getattr(transformers, f"{kind}Config")(num_labels=10)
    config.architectures = [f"{kind}ForImageClassification"]
    config.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 224, "width": 224}).save_pretrained(tmp_path)
    found = one(str(tmp_path), 224, 224)
    assert found.tokens == tokens
    ours, torchs = macs_and_torchs(str(tmp_path), Size(224, 224))
    assert found.macs.total == ours == pytest.approx(torchs, rel=TOLERANCE)
    assert found.macs.attention + found.macs.mlp + found.macs.rest == found.macs.total
    assert 0.25 < found.macs.attention / found.macs.total < 0.45
    assert 0.5 < found.macs.mlp / found.macs.total < 0.75


def test_an_own_module_is_counted_as_its_factory_made_it():
    found = one(TINY)
    assert found.size == Size(32, 32)
    assert found.macs.total == 16 * 16 * 3 * 8 * 8 + 16 * 16 * 5
    assert (found.trained_at, found.tokens, found.warnings) == (None, None, ())


def test_the_selfie_network_is_counted_from_its_file():
    found = one("selfie")
    assert found.size == Size(256, 256)
    assert 0.01e9 < found.macs.total < 0.1e9


def test_products_of_two_values_are_attention_whatever_a_module_is_called():
    class Mixer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key = torch.nn.Linear(8, 8, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.key(x) @ x.transpose(1, 2)).softmax(-1) @ x

    with torch.device("meta"):
        network, x = torch.nn.Sequential(Mixer(), torch.nn.Linear(8, 3)), torch.empty(1, 5, 8)
    counted = count(network, x)
    assert counted.macs("attention") == 5 * 8 * 8 + 2 * 5 * 5 * 8
    assert counted.macs("rest") == 5 * 8 * 3


def test_transposed_and_grouped_convolutions_are_counted_as_torch_counts_them():
    with torch.device("meta"):
        network = torch.nn.Sequential(
            torch.nn.Conv2d(4, 8, 3, groups=4, padding=1), torch.nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        )
        x = torch.empty(1, 4, 10, 12)
    with FlopCounterMode(display=False) as counter:
        network.requires_grad_(False)(x)
    assert count(network, x).macs("rest") == counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("model", "size", "said"),
    [
        ("vit_smal", None, "Unknown model 'vit_smal'. Did you mean 'vit_small'?"),
        ("vit_tiny", Size(250, 250), "not a multiple of vit_tiny's patch size 16. Try 240 or 256."),
        ("selfie", Size(128, 128), "selfie takes 256x256"),
        (TINY, Size(64, 64), "fixes its own size"),
    ],
)
def test_bad_requests_are_refused_as_an_export_refuses_them(model: str, size: Size | None, said: str):
    with pytest.raises(BadRequest, match=said.replace("?", "[?]")):
        inspect(model, [size] if size else ())


def test_a_module_that_needs_numbers_is_refused(tmp_path: Path):
    own = Path(TINY.rpartition(":")[0])
    with pytest.raises(BadRequest):
        inspect(f"{own}:untraceable")


def test_the_command_prints_a_column_a_size_and_warnings_below(vitexport: Command):
    done = vitexport("inspect", "vit_tiny", "--size", "224", "--size", "768")
    assert done.returncode == 0, done.stderr
    size, grid, tokens = (line.split()[-2:] for line in done.stdout.splitlines()[2:5])
    assert (size, grid, tokens) == (["224x224", "768x768"], ["14x14", "48x48"], ["197", "2,305"])
    assert "! 768x768: attention is" in done.stdout


def test_the_commands_json_holds_all_figures(vitexport: Command):
    done = vitexport("inspect", "vit_tiny", "--json")
    (found,) = json.loads(done.stdout)
    assert found["tokens"] == 197
    assert found["size"] == {"height": 224, "width": 224}
    assert found["macs"]["total"] == sum(found["macs"][part] for part in ("attention", "mlp", "rest"))
    assert set(found["weight_bytes"]) == {"fp32", "fp16", "w8", "w4"}


def test_the_command_refuses_with_a_sentence(vitexport: Command):
    expect(vitexport("inspect", "vit_tiny", "--size", "250"), 2, "Try 240 or 256.")
    expect(vitexport("inspect", "vit_tiny", "--size", "0"), 2, "'0' is not a size.")
    expect(vitexport("inspect", "no_such_model"), 2, "Unknown model 'no_such_model'.")


def test_nothing_is_drawn_for_what_is_not_there():
    assert "patch grid" in render(inspect("convnext_atto"))
