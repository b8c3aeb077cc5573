"""Every rule for resampling positions beside the library or paper that owns it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from vitexport import torchvision_schemas
from vitexport.errors import BadRequest
from vitexport.posembed import RULES, check_asked, named, rule_for, source_grid
from vitexport.posembed.kernel import pi_resize

torchvision_schemas.declare()
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

#: The same torch kernels in another order of reshapes: nothing, or one rounding of float32 at values around 4.
TOLERANCE = 1e-6

SOURCE = (14, 14)
#: Up, down, both at once, landscape, portrait, and as many tokens on another grid.
TARGETS = [(24, 24), (7, 7), (9, 16), (10, 32), (21, 12), (7, 28)]
WINDOWS = [(12, 12), (4, 4), (5, 9), (9, 5), (8, 7), (16, 3)]
DIM = 8


def table(tokens: int, *more: int) -> torch.Tensor:
    return torch.randn(tokens, *more, generator=torch.Generator().manual_seed(tokens))


def absolute(kept: int, grid: tuple[int, int] = SOURCE) -> torch.Tensor:
    return table(kept + grid[0] * grid[1], DIM)[None]


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert (ours - theirs).abs().max().item() <= TOLERANCE


# ---------------------------------------------------------------------------------------------------- absolute tables


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kept", [0, 1, 2, 5])  # GAP and SigLIP; a class token; DeiT's two; registers with positions
def test_timm_is_resample_abs_pos_embed(kept: int, target: tuple[int, int]) -> None:
    theirs = timm.layers.resample_abs_pos_embed(absolute(kept), list(target), list(SOURCE), kept)
    assert_equal(RULES["timm"].resample(absolute(kept), SOURCE, target, kept), theirs)


@pytest.mark.parametrize("target", TARGETS)
def test_bilinear_is_resample_abs_pos_embed_as_timm_calls_it_for_flexivit(target: tuple[int, int]) -> None:
    theirs = timm.layers.resample_abs_pos_embed(
        absolute(1), list(target), list(SOURCE), 1, interpolation="bilinear", antialias=False
    )
    assert_equal(RULES["bilinear"].resample(absolute(1), SOURCE, target, 1), theirs)


def embeddings(kind: str, kept: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """transformers' embeddings of a 14x14 grid of 2x2 patches, and their table as (1, tokens, dim)."""
    settings = {"image_size": 28, "patch_size": 2, "hidden_size": DIM, "num_attention_heads": 2}
    classes = {
        "vit": ("ViTConfig", "vit.modeling_vit", "ViTEmbeddings"),
        "deit": ("DeiTConfig", "deit.modeling_deit", "DeiTEmbeddings"),
        "dinov2": ("Dinov2Config", "dinov2.modeling_dinov2", "Dinov2Embeddings"),
        "registers": (
            "Dinov2WithRegistersConfig",
            "dinov2_with_registers.modeling_dinov2_with_registers",
            "Dinov2WithRegistersEmbeddings",
        ),
        "clip": ("CLIPVisionConfig", "clip.modeling_clip", "CLIPVisionEmbeddings"),
        "siglip": ("SiglipVisionConfig", "siglip.modeling_siglip", "SiglipVisionEmbeddings"),
    }
    config, file, name = classes[kind]
    module = __import__(f"transformers.models.{file}", fromlist=[name])
    built = getattr(module, name)(getattr(transformers, config)(**settings))
    values = absolute(kept)
    with torch.no_grad():
        (built.position_embedding.weight if kind in ("clip", "siglip") else built.position_embeddings).copy_(
            values[0] if kind in ("clip", "siglip") else values
        )
    return built, values


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("kind", "kept", "rule"),
    [
        ("vit", 1, "hf"),
        ("deit", 2, "hf"),
        ("dinov2", 1, "hf"),
        ("clip", 1, "hf"),
        ("siglip", 0, "hf"),
        ("registers", 1, "dinov2-registers"),
    ],
)
def test_hf_is_interpolate_pos_encoding(kind: str, kept: int, rule: str, target: tuple[int, int]) -> None:
    theirs, values = embeddings(kind, kept)
    tokens = torch.zeros(1, kept + target[0] * target[1], DIM)
    with torch.no_grad():
        wanted = theirs.interpolate_pos_encoding(tokens, 2 * target[0], 2 * target[1])
    assert_equal(RULES[rule].resample(values, SOURCE, target, kept), wanted)


def published(values: torch.Tensor, target: tuple[int, int], offset: float, antialias: bool) -> torch.Tensor:
    """DINOv2's formula, written from its description: a square grid of M, scale factor (n + offset) / M or a size."""
    side = int(math.sqrt(values.shape[1] - 1))
    image = values[:, 1:].reshape(1, side, side, DIM).permute(0, 3, 1, 2)
    how = {"scale_factor": tuple((n + offset) / side for n in target)} if offset else {"size": target}
    image = F.interpolate(image, mode="bicubic", antialias=antialias, **how)
    return torch.cat([values[:, :1], image.permute(0, 2, 3, 1).reshape(1, -1, DIM)], dim=1)


@pytest.mark.parametrize("target", [(16, 16), (50, 50), (18, 32), (32, 18), (24, 60), (10, 18)])
def test_dinov2_is_the_published_formula(target: tuple[int, int]) -> None:
    values = absolute(1, (37, 37))
    assert_equal(RULES["dinov2"].resample(values, (37, 37), target, 1), published(values, target, 0.1, False))
    registers = RULES["dinov2-registers"].resample(values, (37, 37), target, 1)
    assert_equal(registers, published(values, target, 0.0, True))


@pytest.mark.parametrize("pixels", [546, 602, 1092, 1204, 1610, 1722])
def test_dinov2s_offset_is_right_where_a_plain_scale_factor_loses_a_row(pixels: int) -> None:
    """https://github.com/facebookresearch/dinov2/issues/378"""
    rows = pixels // 14
    image = torch.zeros(1, 1, 37, 37)
    assert F.interpolate(image, scale_factor=rows / 37, mode="bicubic").shape[-1] == rows - 1
    assert RULES["dinov2"].resample(absolute(1, (37, 37)), (37, 37), (rows, rows), 1).shape[1] == 1 + rows * rows


def test_dinov2s_offset_gives_the_right_grid_at_every_size_up_to_2100_pixels() -> None:
    values = absolute(1, (37, 37))
    for rows in range(1, 151):
        assert RULES["dinov2"].resample(values, (37, 37), (rows, 3), 1).shape[1] == 1 + rows * 3


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.table == "absolute"], ids=lambda r: r.name)
def test_an_absolute_table_keeps_its_prefix_its_dtype_and_its_own_grid(rule: object) -> None:
    half = absolute(2).half()
    resampled = rule.resample(half, SOURCE, (9, 16), 2)  # type: ignore[attr-defined]
    assert resampled.dtype == torch.float16
    assert torch.equal(resampled[:, :2], half[:, :2])
    assert torch.equal(rule.resample(half, SOURCE, SOURCE, 2), half)  # type: ignore[attr-defined]


def test_a_grid_that_is_not_square_is_read_row_by_row() -> None:
    """A table that only depends on the row, learned on 4x9 (36 tokens: a guessed root would shear it)."""
    rows = torch.arange(4.0).repeat_interleave(9)[None, :, None].expand(1, 36, DIM).contiguous()
    resampled = RULES["timm"].resample(rows, (4, 9), (8, 9), 0).reshape(8, 9, DIM)
    assert torch.allclose(resampled, resampled[:, :1].expand(8, 9, DIM), atol=TOLERANCE)
    assert (resampled[1:, 0] > resampled[:-1, 0]).all()


@pytest.mark.parametrize("target", [(9, 16), (24, 24)])
def test_the_rules_are_different_rules(target: tuple[int, int]) -> None:
    """So that naming the one that was used means something."""
    answers = {
        name: RULES[name].resample(absolute(1), SOURCE, target, 1) for name in ("timm", "hf", "dinov2", "bilinear")
    }
    for one, other in ((a, b) for a in answers for b in answers if a < b):
        assert (answers[one] - answers[other]).norm() / answers[other].norm() > 0.01, (one, other)


# ---------------------------------------------------------------------------------------------------- relative tables


def relative(kept: int, window: int = 7) -> torch.Tensor:
    return table((2 * window - 1) ** 2 + kept, 3)


def shape_of(window: tuple[int, int], kept: int) -> tuple[int, int]:
    return (2 * window[0] - 1) * (2 * window[1] - 1) + kept, 3


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kept", [0, 3])
def test_swin_is_bicubic_per_head(kept: int, window: tuple[int, int]) -> None:
    theirs = timm.layers.pos_embed_rel.resize_rel_pos_bias_table_simple(relative(kept), window, shape_of(window, kept))
    assert_equal(RULES["swin"].resample(relative(kept), (7, 7), window, kept), theirs)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kept", [0, 3])
def test_beit_is_resize_rel_pos_bias_table(kept: int, window: tuple[int, int]) -> None:
    theirs = timm.layers.resize_rel_pos_bias_table(relative(kept), window, shape_of(window, kept))
    assert_equal(RULES["beit"].resample(relative(kept), (7, 7), window, kept), theirs)


@pytest.mark.parametrize("window", [(n, n) for n in (3, 4, 8, 9, 12, 16)])
def test_levit_is_resize_rel_pos_bias_table_levit(window: tuple[int, int]) -> None:
    theirs = timm.layers.resize_rel_pos_bias_table_levit(relative(0), shape_of(window, 0))
    assert_equal(RULES["levit"].resample(relative(0), (7, 7), window, 0), theirs)


@pytest.mark.parametrize("window", WINDOWS)
def test_hf_beit_is_transformers_own(window: tuple[int, int]) -> None:
    from transformers.models.beit.modeling_beit import BeitRelativePositionBias

    theirs = BeitRelativePositionBias(transformers.BeitConfig(num_attention_heads=3), (7, 7))
    index = theirs.generate_relative_position_index(window)
    with torch.no_grad():
        theirs.relative_position_bias_table.copy_(relative(3))
        wanted = theirs(window)[0]
    assert_equal(RULES["hf-beit"].resample(relative(3), (7, 7), window, 3)[index].permute(2, 0, 1), wanted)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("rule", "owner"), [("swin", "resize_rel_pos_bias_table_simple"), ("beit", None)])
def test_a_table_with_heads_first_is_resampled_alike(rule: str, owner: str | None, window: tuple[int, int]) -> None:
    values, shape = relative(0).T.reshape(3, 13, 13).contiguous(), (3, 2 * window[0] - 1, 2 * window[1] - 1)
    own: Callable[..., torch.Tensor] = getattr(timm.layers.pos_embed_rel, owner or "resize_rel_pos_bias_table")
    assert_equal(RULES[rule].resample(values, (7, 7), window, 0), own(values, window, shape))


# ------------------------------------------------------------------------------------------------------ patch kernels


@pytest.mark.parametrize("target", [(32, 32), (8, 8), (14, 14), (12, 20), (20, 12), (24, 16)])
@pytest.mark.parametrize(("mode", "antialias"), [("bicubic", True), ("bilinear", False)])
def test_pi_resize_is_resample_patch_embed(mode: str, antialias: bool, target: tuple[int, int]) -> None:
    kernel = table(4, 3, 16, 16)
    theirs = timm.layers.resample_patch_embed(kernel, list(target), mode, antialias)
    ours = pi_resize(kernel, target, mode, antialias)  # type: ignore[arg-type]
    # The pseudo-inverse of an ill-conditioned matrix: its largest entries are some 10^2 where patches shrink.
    assert (ours - theirs).abs().max() <= 1e-6 * max(1.0, theirs.abs().max().item())


def test_pi_resize_answers_a_grown_patch_as_before() -> None:
    kernel, patch = table(4, 3, 8, 8).double().float(), table(1, 3, 8, 8)
    grown = F.interpolate(patch, size=(16, 16), mode="bicubic", antialias=True)
    before, after = F.conv2d(patch, kernel), F.conv2d(grown, pi_resize(kernel, (16, 16)))
    assert (before - after).abs().max() <= 1e-4 * before.abs().max()  # a float32 pseudo-inverse of 64 x 256


# ------------------------------------------------------------------------------------------------------------- asking


def test_every_rule_says_where_it_comes_from() -> None:
    for name, rule in RULES.items():
        assert rule.name == name
        assert len(rule.source) > 20


def test_an_unknown_rule_gets_the_nearest_name() -> None:
    with pytest.raises(
        BadRequest, match=r"There is no position rule 'dinov3'\. Did you mean 'dinov2'\? There are: timm"
    ):
        named("dinov3")


def test_a_rule_for_another_kind_of_table_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"'hf' is for absolute tables, and this model learns relative ones\. Use one"):
        check_asked({"relative"}, "hf")
    with pytest.raises(BadRequest, match="learns no table of positions"):
        check_asked(set(), "hf")
    check_asked({"relative", "absolute"}, "hf")
    assert rule_for("absolute", "hf", "timm").name == "hf"
    assert rule_for("relative", "hf", "swin").name == "swin"


@pytest.mark.parametrize(
    ("tokens", "declared", "found"), [(197, None, (14, 14)), (145, (9, 16), (9, 16)), (37, (4, 9), (4, 9))]
)
def test_the_source_grid_is_the_declared_one_or_a_square(
    tokens: int, declared: tuple[int, int] | None, found: tuple[int, int]
) -> None:
    assert source_grid(tokens, 1, declared, "'w'", "Declare it.") == found


def test_a_source_grid_that_is_not_square_must_be_declared() -> None:
    with pytest.raises(BadRequest) as caught:
        source_grid(1 + 9 * 17, 1, None, "'weights.pt'", "Say --weights-size HEIGHTxWIDTH.")
    assert str(caught.value) == (
        "'weights.pt' holds 153 patch positions, which is no square, and nothing says which grid it is. "
        "Say --weights-size HEIGHTxWIDTH."
    )
    with pytest.raises(BadRequest, match="holds 196 patch positions, and not the 144 of the declared grid 9x16"):
        source_grid(197, 1, (9, 16), "'weights.pt'", "Say it.")
