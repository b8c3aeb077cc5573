"""A whole network at another size beside its library's own forward at that size, on the same weights."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch

from vitexport import torchvision_schemas
from vitexport.contract import Size
from vitexport.errors import BadRequest
from vitexport.models.lively import enliven
from vitexport.posembed import in_timm, in_transformers

torchvision_schemas.declare()
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

#: Both sides run the same torch kernels on the same tables: nothing, or a rounding where a table was summed in advance.
TOLERANCE = 1e-6

NARROW = {"num_classes": 7, "embed_dim": 48, "num_heads": 3, "depth": 2}
#: Heads of 64, as rotary embeddings are tuned for.
ROTARY = {"num_classes": 7, "embed_dim": 128, "num_heads": 2, "depth": 2}
STAGES = {"num_classes": 7, "embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}

#: timm's name, arguments that keep it small, and sizes: up, down, not square.
VITS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "vit_tiny_patch16_224": (NARROW, "288", "96", "96x160"),
    "deit_tiny_distilled_patch16_224": (NARROW, "288", "96", "160x96"),
    "vit_small_patch14_dinov2": ({**NARROW, "img_size": 252}, "322", "98", "84x140"),
    "vit_small_patch14_reg4_dinov2": ({**NARROW, "img_size": 252}, "322", "98", "84x140"),
    "vit_base_patch16_siglip_224": ({**NARROW, "num_classes": 0}, "256", "96", "96x160"),
    "eva02_tiny_patch14_224": (ROTARY, "280", "98", "84x140"),
    "vit_small_patch16_dinov3": (ROTARY, "288", "96", "96x160"),
    "beit_base_patch16_224": (NARROW, "256", "96", "96x160"),
    "flexivit_small": (NARROW, "288", "96", "96x160"),
    "vit_relpos_small_patch16_224": (NARROW, "256", "96", "96x160"),
    "cait_xxs24_224": (NARROW, "256", "96", "96x160"),  # without a set_input_size: built again
}


def native(name: str, **arguments: Any) -> Any:
    """Lively weights, drawn at the training size: positions as strong as what they are added to."""
    module = timm.create_model(name, **arguments).eval()
    side = arguments.get("img_size", module.pretrained_cfg["input_size"][-1])
    enliven(module, picture(Size(side, side), 2), seed=0)
    return module


def picture(size: Size, images: int = 1) -> torch.Tensor:
    return torch.rand(images, 3, size.height, size.width, generator=torch.Generator().manual_seed(size.width))


def answer(module: Any, size: Size) -> torch.Tensor:
    with torch.no_grad():
        given = module.eval()(picture(size))
    return given if isinstance(given, torch.Tensor) else given[0]


def fitted(module: Any, name: str, size: Size, rule: str | None = None, **arguments: Any) -> tuple[Any, Any]:
    def rebuild() -> Any:
        return timm.create_model(name, **{**arguments, "img_size": (size.height, size.width)})

    return in_timm.fit(copy.deepcopy(module), name, in_timm.Shape(size, rebuild, rule=rule))


def loaded(name: str, state: dict[str, Any], size: Size, **arguments: Any) -> Any:
    """timm's own way to another size: built there, its loader converting the native weights."""
    module = timm.create_model(name, **{**arguments, "img_size": (size.height, size.width)}).eval()
    convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    how = {"interpolation": "bilinear", "antialias": False} if name.startswith("flexivit") else {}
    if name.startswith("cait"):  # whose loader does not resample
        grids = list(module.patch_embed.grid_size), [14, 14]
        state = {**state, "pos_embed": timm.layers.resample_abs_pos_embed(state["pos_embed"], *grids, 0)}
    module.load_state_dict(convert(state, module, **how) if convert else state, strict=True)
    return module


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max()
    assert theirs.std() > 0.01  # an answer, and not zeros


# --------------------------------------------------------------------------------------------------------------- timm


@pytest.mark.parametrize("name", VITS)
def test_a_vit_of_timm_answers_as_timm_would_have_loaded_it(name: str) -> None:
    arguments, *sizes = VITS[name]
    module = native(name, **arguments)
    for size in map(Size.parse, sizes):
        ours, _ = fitted(module, name, size, **arguments)
        assert_close(answer(ours, size), answer(loaded(name, module.state_dict(), size, **arguments), size))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("vit_tiny_patch16_224", "timm"),
        ("flexivit_small", "bilinear"),
        ("swin_tiny_patch4_window7_224", "swin"),
        ("swinv2_tiny_window8_256", "computed"),
        ("eva02_tiny_patch14_224", "timm+computed"),
        ("vit_small_patch16_dinov3", "computed"),
        ("beit_base_patch16_224", "beit"),
        ("vit_relpos_small_patch16_224", "computed"),
    ],
)
def test_what_was_used_is_told(name: str, rule: str) -> None:
    with torch.device("meta"):
        module = timm.create_model(name)
        size = Size(*(2 * side for side in module.patch_embed.img_size))
        _, told = in_timm.fit(module, name, in_timm.Shape(size, lambda: module))
    assert told.rule == rule
    assert told.source


@pytest.mark.parametrize(("size", "window"), [("256", 8), ("96", 3), ("160x224", (5, 7))])
def test_swins_windows_and_tables_follow_the_grid(size: str, window: Any) -> None:
    """By Swin's own rule, and by BEiT's, which timm takes: there the whole network is timm's."""
    name, wanted = "swin_tiny_patch4_window7_224", Size.parse(size)
    module = native(name, **STAGES)
    resized = copy.deepcopy(module)
    resized.set_input_size(img_size=(wanted.height, wanted.width))
    by_beit, told = fitted(module, name, wanted, rule="beit", **STAGES)
    assert told.rule == "beit"
    assert_close(answer(by_beit, wanted), answer(resized, wanted))
    if isinstance(window, int):  # a loader that knows nothing of set_input_size
        assert_close(
            answer(by_beit, wanted),
            answer(loaded(name, module.state_dict(), wanted, window_size=window, **STAGES), wanted),
        )

    per_head = timm.layers.pos_embed_rel.resize_rel_pos_bias_table_simple
    for path, part in resized.named_modules():
        if hasattr(part, "relative_position_bias_table"):
            native_table = module.get_submodule(path).relative_position_bias_table
            shape = part.relative_position_bias_table.shape
            part.relative_position_bias_table.data = per_head(native_table.data, part.window_size, shape)
    ours, told = fitted(module, name, wanted, **STAGES)
    assert told.rule == "swin"
    assert_close(answer(ours, wanted), answer(resized, wanted))


@pytest.mark.parametrize(("size", "window"), [("384", 12), ("128", 4), ("160x256", (5, 8))])
def test_swinv2_computes_its_positions_on_the_new_windows(size: str, window: Any) -> None:
    name, wanted = "swinv2_tiny_window8_256", Size.parse(size)
    arguments = {**STAGES, "depths": (1, 2, 1, 1)}
    module = native(name, **arguments)
    ours, _ = fitted(module, name, wanted, **arguments)
    assert_close(
        answer(ours, wanted),
        answer(loaded(name, module.state_dict(), wanted, window_size=window, **arguments), wanted),
    )


@pytest.mark.parametrize("size", ["256", "128", "128x192"])
@pytest.mark.parametrize("windowed", [True, False])
def test_hieras_positions_are_baked(windowed: bool, size: str) -> None:
    name = "hiera_tiny_224"
    arguments: dict[str, Any] = {"num_classes": 7, "embed_dim": 24, "stages": (1, 1, 1, 1)}
    arguments |= {"abs_win_pos_embed": windowed, "global_pos_size": (7, 7)}
    module, wanted = native(name, **arguments), Size.parse(size)
    ours, told = fitted(module, name, wanted, **arguments)
    state = module.state_dict()
    if not windowed:  # timm's loader leaves it out ("to resize pos embedding", commented)
        assert told.rule == "timm"
        state["pos_embed"] = timm.layers.resample_abs_pos_embed(
            state["pos_embed"], [wanted.height // 4, wanted.width // 4], [56, 56], 0
        )
    theirs = answer(loaded(name, state, wanted, **arguments), wanted)
    baked = in_timm.bake(ours)
    assert (baked is not None) == windowed
    assert_close(answer(ours, wanted), theirs)
    assert "pos_embed_win" not in dict(ours.named_parameters())


def test_a_patch_kernel_follows_flexivits_rule() -> None:
    module = native("flexivit_small", **NARROW)
    size = Size(96, 144)
    shape = in_timm.Shape(size, lambda: module, patch=24)
    ours, _ = in_timm.fit(copy.deepcopy(module), "flexivit_small", shape)
    theirs = loaded("flexivit_small", module.state_dict(), size, patch_size=24, **NARROW)
    assert ours.patch_embed.grid_size == (4, 6)
    assert_close(answer(ours, size), answer(theirs, size))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", NARROW),
        ("swin_tiny_patch4_window7_224", STAGES),
        ("eva02_tiny_patch14_224", ROTARY),
    ],
)
def test_nothing_but_tables_changes(name: str, arguments: dict[str, Any]) -> None:
    module = timm.create_model(name, **arguments)
    size = Size(*(2 * side for side in module.patch_embed.img_size))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    ours, _ = in_timm.fit(module, name, in_timm.Shape(size, lambda: module))
    tables = set(in_timm.tables(ours))
    after = ours.state_dict()
    assert tables
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert (after[key].shape != value.shape) if key in tables else torch.equal(after[key], value), key


def test_a_network_tied_to_its_size_is_refused() -> None:
    name = "levit_128s"
    module = timm.create_model(name)
    with pytest.raises(
        BadRequest, match=r"LevitDistilled is tied to its training size by '.*attention_biases', which nobody"
    ):
        fitted(module, name, Size(256, 256))


# ------------------------------------------------------------------------------------------------------- transformers

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 4}
WIDE = {**TINY, "intermediate_size": 64}
ALWAYS: dict[str, Any] = {}
ASKED = {"interpolate_pos_encoding": True}
HUB = {
    "vit": (lambda: transformers.ViTModel(transformers.ViTConfig(**WIDE)), ASKED, "hf"),
    "deit": (lambda: transformers.DeiTModel(transformers.DeiTConfig(**WIDE)), ASKED, "hf"),
    "dinov2": (lambda: transformers.Dinov2Model(transformers.Dinov2Config(**TINY)), ALWAYS, "hf"),
    "registers": (
        lambda: transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**TINY)),
        ALWAYS,
        "dinov2-registers",
    ),
    "clip": (lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**WIDE)), ASKED, "hf"),
    "siglip": (lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**WIDE)), ASKED, "hf"),
    "beit": (
        lambda: transformers.BeitModel(transformers.BeitConfig(**WIDE, use_relative_position_bias=True)),
        ALWAYS,
        "hf-beit",
    ),
    "beit-both": (
        lambda: transformers.BeitModel(
            transformers.BeitConfig(
                **WIDE, use_shared_relative_position_bias=True, use_absolute_position_embeddings=True
            )
        ),
        ALWAYS,
        "hf+hf-beit",
    ),
}


@pytest.mark.parametrize("kind", HUB)
def test_a_network_of_transformers_answers_as_transformers_does_at_that_size(kind: str) -> None:
    build, how, rule = HUB[kind]
    torch.manual_seed(0)
    module = build().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "position" in name:
                parameter.normal_(0.0, 0.5)
    for size in map(Size.parse, ("80", "28", "36x64", "28x112")):
        ours = copy.deepcopy(module)
        told = in_transformers.fit(ours, size, kind)
        with torch.no_grad():
            theirs = module(picture(size), **how)[0]
        assert told.rule == rule
        assert_close(answer(ours, size), theirs)
        assert_close(answer(copy.deepcopy(ours), size), theirs)  # float64 copies are made of it


def test_a_config_that_declares_another_grid_than_the_table_is_refused() -> None:
    """36 positions are a square, but not the 4x9 that the config declares, nor the other way about."""
    module = transformers.ViTModel(transformers.ViTConfig(**{**WIDE, "image_size": [16, 36]}))
    told = in_transformers.fit(module, Size(32, 36), "m")
    assert module.embeddings.position_embeddings.shape[1] == 1 + 8 * 9
    assert told.rule == "hf"
    module.embeddings.patch_embeddings.image_size = (24, 24)
    with pytest.raises(
        BadRequest, match=r"holds 72 patch positions, and not the 36 of the declared grid 6x6\. Correct"
    ):
        in_transformers.fit(module, Size(24, 24), "m")


def test_a_rule_that_was_asked_for_is_used() -> None:
    module = transformers.Dinov2Model(transformers.Dinov2Config(**TINY))
    assert in_transformers.fit(module, Size(80, 80), "m", "dinov2").rule == "dinov2"
    with pytest.raises(BadRequest, match="'swin' is for relative tables, and this model learns absolute ones"):
        in_transformers.fit(module, Size(80, 80), "m", "swin")


def test_a_rule_says_nothing_to_hieras_sum_of_two_tables() -> None:
    arguments = {"num_classes": 7, "embed_dim": 24, "stages": (1, 1, 1, 1), "global_pos_size": (7, 7)}
    summed, plain = (timm.create_model("hiera_tiny_224", abs_win_pos_embed=on, **arguments) for on in (True, False))
    in_timm.check_rule(summed, "hiera_tiny_224", None)
    in_timm.check_rule(plain, "hiera_tiny_224", "hf")
    with pytest.raises(BadRequest, match="'hiera_tiny_224' sums two tables of positions by a rule of its own"):
        in_timm.check_rule(summed, "hiera_tiny_224", "hf")
