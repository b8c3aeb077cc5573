"""What a name on the command line turns into: presets, timm's names, your own file, the small segmenter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Command
from test_bad_input import expect
from vitexport import models, photos, torchvision_schemas
from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.models import timm as timm_family
from vitexport.models.network import Network
from vitexport.preprocess import preprocess

torchvision_schemas.declare()

#: One rounding of float32 in the normalisation: torchvision divides by std, and so does vitexport, in float32.
PIXEL_TOLERANCE = 1e-6


def build(model: str, **more: object) -> Network:
    return models.build(ExportRequest(model=model, **{"weights": "random", **more}))  # type: ignore[arg-type]


def preprocessing_of(name: str, size: Size) -> tuple[Preprocessing, object]:
    """Ours, and timm's own evaluation transform, for the same checkpoint."""
    config = timm_family.pretrained_config(name)
    from timm.data import create_transform, resolve_data_config

    data = resolve_data_config(pretrained_cfg=config.to_dict())
    data["input_size"] = (3, size.height, size.width)
    return timm_family._preprocessing(name, config, size), create_transform(**data, is_training=False)


# ------------------------------------------------------------------------------------------------------ the families


def test_listing_the_presets_imports_no_toolchain() -> None:
    heavy = "torch", "torchvision", "timm", "transformers", "onnx", "numpy", "PIL"
    code = (
        "import sys; from vitexport import models; print(*models.presets());"
        f"assert not set({heavy!r}) & set(sys.modules), set({heavy!r}) & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"vit_tiny", "dinov2_small", "swin_tiny", "vit_tiny_seg", "selfie"} <= set(done.stdout.split())


def test_every_preset_is_a_checkpoint_that_timm_knows() -> None:
    for preset in timm_family.PRESETS.values():
        assert timm_family.pretrained_config(preset.name).hf_hub_id == f"timm/{preset.name}"


@pytest.mark.parametrize(
    ("model", "meant"),
    [("vit_smal", "vit_small"), ("selfi", "selfie"), ("resnet-50", "resnet50"), ("vit_tiny_sg", "vit_tiny_seg")],
)
def test_an_unknown_model_gets_the_nearest_name(model: str, meant: str) -> None:
    with pytest.raises(BadRequest, match=rf"^Unknown model '{model}'\. Did you mean '{meant}'\? Name one of"):
        build(model)


@pytest.mark.parametrize(
    ("model", "option", "said"),
    [
        ("selfie", {"patch_size": 7}, "--patch-size says nothing to 'selfie'. Leave it out."),
        ("selfie", {"weights_size": Size(64, 64), "weights": "own.tflite"}, "--weights-size says nothing to 'selfie'."),
        ("lraspp_mobilenet_v3", {"pos_embed_rule": "timm"}, "--pos-embed-rule says nothing to 'lraspp_mobilenet_v3'."),
        ("net.py:factory", {"pos_embed_rule": "hf"}, "--pos-embed-rule says nothing to 'net.py:factory'."),
        ("hf:google/vit", {"patch_size": 8}, "--patch-size says nothing to 'hf:google/vit'."),
        ("vit_tiny", {"frame_stride": 2}, "'vit_tiny' takes single pictures, so --frame-stride says nothing to it."),
        ("vit_tiny", {"weights_size": Size(64, 64)}, "--weights-size tells what a weights file was trained at."),
    ],
)
def test_an_option_that_says_nothing_to_a_model_is_refused(model: str, option: dict[str, object], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        models.family_of(ExportRequest(model=model, **option))
    assert str(refused.value).startswith(said)


def test_a_folder_named_like_a_preset_does_not_take_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vit_tiny").mkdir()
    (tmp_path / "vit_tiny" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert models._family_of("vit_tiny").name == "timm"


def test_nor_does_a_folder_named_like_an_architecture_of_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("resnet18", "resnet18.a1_in1k", "convnext_base_in22k"):  # the last was renamed long ago
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path)
        assert models._family_of(name).name == "timm"


def test_timms_sources_spell_every_name_that_its_registry_has() -> None:
    assert {name.partition(".")[0] for name in timm_family.names()} <= timm_family.spelled_in_sources()


NOTHING = "is a folder without a bundle (manifest.json) or a checkpoint (config.json). Name one of"


@pytest.mark.parametrize("arguments", [("inspect", "own", "--placement"), ("--model", "own")])
def test_a_folder_that_holds_no_model_is_told_of(
    vitexport: Command, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "own").mkdir()
    expect(vitexport(*arguments), 2, f"'own' {NOTHING}")


def test_no_toolchain_is_imported_to_tell_of_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from vitexport.anatomy import inspect; from vitexport.errors import BadRequest\n"
        f"try: inspect({str(tmp_path)!r})\n"
        "except BadRequest as refused: print(refused)\n"
        "print({'timm', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"'{tmp_path}' {NOTHING}")
    assert done.stdout.endswith("set()\n")


def test_an_export_is_no_model_and_the_commands_that_take_it_are_named(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text("{}")
    with pytest.raises(BadRequest) as refused:
        models._family_of(str(tmp_path))
    assert str(refused.value).startswith(
        f"'{tmp_path}' is an export, not a model: `vitexport check` and `vitexport inspect --placement` take it. Name"
    )


# -------------------------------------------------------------------------------------------------------------- timm


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k_ft_in1k", "vit_small_patch14_dinov2.lvd142m"])
def test_preprocessing_is_timms_own_pixel_for_pixel(name: str) -> None:
    ours, theirs = preprocessing_of(name, Size(224, 224))
    for probe in photos.probes(None):
        for image in (probe.image, np.ascontiguousarray(probe.image.transpose(1, 0, 2))):  # landscape and portrait
            wanted = theirs(Image.fromarray(image)).numpy()[None]  # type: ignore[operator]
            assert np.abs(preprocess(image, ours) - wanted).max() <= PIXEL_TOLERANCE, probe.name


def test_preprocessing_is_timms_own_where_the_picture_is_squashed() -> None:
    ours, theirs = preprocessing_of("vit_large_patch14_clip_336.openai_ft_in12k_in1k", Size(336, 336))
    image = photos.probes(None)[1].image
    wanted = theirs(Image.fromarray(image)).numpy()[None]  # type: ignore[operator]
    assert ours.fit == "squash"
    assert np.abs(preprocess(image, ours) - wanted).max() <= PIXEL_TOLERANCE


def test_preprocessing_is_timms_own_at_a_size_that_is_not_square() -> None:
    ours, theirs = preprocessing_of("vit_tiny_patch16_224.augreg_in21k_ft_in1k", Size(144, 256))
    for probe in photos.probes(None):
        wanted = theirs(Image.fromarray(probe.image)).numpy()[None]  # type: ignore[operator]
        assert np.abs(preprocess(probe.image, ours) - wanted).max() <= PIXEL_TOLERANCE, probe.name


def test_a_border_fitted_checkpoint_is_refused() -> None:
    config = timm_family.pretrained_config("vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    config.crop_mode = "border"
    with pytest.raises(BadRequest, match="wants its pictures fitted by 'border'"):
        timm_family._preprocessing("x", config, Size(224, 224))
    config.crop_mode = "center"


@pytest.mark.parametrize(
    ("model", "size", "sentence"),
    [
        ("vit_small", "250", "Image size 250 is not a multiple of vit_small's patch size 16. Try 240 or 256."),
        (
            "vit_small",
            "250x256",
            "Image size 250x256 is not a multiple of vit_small's patch size 16. Try 240x256 or 256.",
        ),
        (
            "vit_small",
            "250x300",
            "Image size 250x300 is not a multiple of vit_small's patch size 16. Try 240x304 or 256x304.",
        ),
        (
            "swin_tiny",
            "64x100",
            "Image size 64x100 is not a multiple of swin_tiny's total stride 32. Try 64x96 or 64x128.",
        ),
        ("vit_tiny", "8", "Image size 8 is not a multiple of vit_tiny's patch size 16. Try 16."),
        ("dinov2_small", "256", "Image size 256 is not a multiple of dinov2_small's patch size 14. Try 252 or 266."),
        ("swin_tiny", "240", "Image size 240 is not a multiple of swin_tiny's total stride 32. Try 224 or 256."),
        ("vit_tiny_seg", "100", "Image size 100 is not a multiple of vit_tiny_seg's patch size 16. Try 96 or 112."),
    ],
)
def test_a_size_off_the_patch_grid_is_refused_with_the_nearest_ones(model: str, size: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        build(model, sizes=(Size.parse(size),))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("model", "size", "rule"),
    [
        ("vit_tiny", "96x160", "timm"),
        ("vit_tiny_seg", "96x64", "timm"),
        ("resnet10t", "100x76", ""),
    ],
)
def test_rungs_of_a_ladder_share_every_weight_but_positions(model: str, size: str, rule: str) -> None:
    """So that a bundle can hold them once. The other rung is the model's own size."""
    import torch

    native, other = build(model), build(model, sizes=(Size.parse(size),))
    assert (native.pos_embed_rule, other.pos_embed_rule) == ("", rule)
    assert bool(other.pos_embed_source) == bool(rule)
    ours, theirs = native.module.state_dict(), other.module.state_dict()
    assert ours.keys() == theirs.keys()
    changed = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    assert all("pos_embed" in name or "relative_position_bias_table" in name for name in changed), changed
    assert bool(changed) == bool(rule)
    at = other.preprocessing.size
    with torch.no_grad():
        answer = other.module(torch.zeros(1, 3, at.height, at.width))
    assert answer.shape[:2] == ((1, 2) if model == "vit_tiny_seg" else (1, 1000))


# -------------------------------------------------------------------------------------------- weights of another size


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A file of an architecture's weights, as somebody trained them at a size. Quicker than drawing lively ones."""
    import timm
    from safetensors.torch import save_file

    @cache
    def save(size: str, name: str = "vit_tiny_patch16_224") -> str:
        at = Size.parse(size)
        module = timm.create_model(name, img_size=(at.height, at.width))
        path = tmp_path_factory.mktemp("weights") / f"{size}.safetensors"
        save_file(module.state_dict(), path)
        return str(path)

    return save


def test_a_file_trained_at_another_square_is_resampled_once_from_there(trained: Callable[..., str]) -> None:
    import timm
    import torch
    from safetensors.torch import load_file

    path = trained("96")
    network = models.build(ExportRequest("vit_tiny", weights=path, sizes=(Size(160, 64),)))
    table = load_file(path)["pos_embed"]
    assert torch.equal(network.module.pos_embed, timm.layers.resample_abs_pos_embed(table, [10, 4], [6, 6], 1))
    same = models.build(ExportRequest("vit_tiny", weights=path, sizes=(Size(96, 96),)))
    assert torch.equal(same.module.pos_embed, table)
    assert same.pos_embed_rule == ""


def test_a_file_that_was_not_trained_on_a_square_must_say_so(trained: Callable[..., str]) -> None:
    import timm
    import torch
    from safetensors.torch import load_file

    path = trained("80x144")
    with pytest.raises(
        BadRequest, match=r"holds 45 patch positions, which is no square, .* Say which size it was trai"
    ):
        models.build(ExportRequest("vit_tiny", weights=path))
    with pytest.raises(BadRequest, match=r"holds 45 patch positions, and not the 36 of the declared grid 6x6"):
        models.build(ExportRequest("vit_tiny", weights=path, weights_size=Size(96, 96)))
    network = models.build(ExportRequest("vit_tiny", weights=path, weights_size=Size(80, 144), sizes=(Size(64, 64),)))
    table = load_file(path)["pos_embed"]
    assert torch.equal(network.module.pos_embed, timm.layers.resample_abs_pos_embed(table, [4, 4], [5, 9], 1))


def test_a_declared_grid_wins_over_a_count_that_happens_to_be_square(trained: Callable[..., str]) -> None:
    """4x49 patches are as many as the 14x14 of the model itself."""
    import torch
    from safetensors.torch import load_file

    path = trained("64x784")
    network = models.build(ExportRequest("vit_tiny", weights=path, weights_size=Size(64, 784), sizes=(Size(64, 784),)))
    assert torch.equal(network.module.pos_embed, load_file(path)["pos_embed"])


def test_pad_size_rounds_up_and_says_so(trained: Callable[..., str]) -> None:
    network = models.build(ExportRequest("vit_tiny", weights=trained("224"), sizes=(Size(90, 100),), pad_size=True))
    assert network.preprocessing.size == Size(96, 112)
    assert network.notes == ("Image size 90x100 is not a multiple of vit_tiny's patch size 16: padded to 96x112.",)
    network = models.build(ExportRequest("vit_tiny", weights=trained("224"), sizes=(Size(96, 96),), pad_size=True))
    assert network.notes == ()


def test_a_position_rule_can_be_asked_for(trained: Callable[..., str]) -> None:
    import torch

    tables = {}
    for rule in ("timm", "hf", "dinov2"):
        network = models.build(
            ExportRequest("vit_tiny", weights=trained("224"), sizes=(Size(96, 96),), pos_embed_rule=rule)
        )
        assert network.pos_embed_rule == rule
        tables[rule] = network.module.pos_embed
    assert not torch.equal(tables["timm"], tables["hf"])
    assert not torch.equal(tables["hf"], tables["dinov2"])


@pytest.mark.parametrize(
    ("model", "rule", "sentence"),
    [
        ("vit_tiny", "him", "There is no position rule 'him'"),
        ("vit_tiny", "swin", "'swin' is for relative tables, and this model learns absolute ones"),
        ("vit_tiny_seg", "swin", "'swin' is for relative tables, and this model learns absolute ones"),
        ("resnet10t", "timm", "'resnet10t' has no patch grid"),
    ],
)
def test_a_position_rule_that_does_not_apply_is_refused(
    trained: Callable[..., str], model: str, rule: str, sentence: str
) -> None:
    with pytest.raises(BadRequest, match=sentence):
        models.build(
            ExportRequest(
                model,
                weights=trained("224") if model == "vit_tiny" else "random",
                sizes=(Size(96, 96),),
                pos_embed_rule=rule,
            )
        )


def test_a_patch_size_is_a_patch_kernel_resized(trained: Callable[..., str]) -> None:
    file = trained("240", "flexivit_small")
    network = models.build(ExportRequest("flexivit_small", weights=file, sizes=(Size(96, 144),), patch_size=24))
    assert network.module.patch_embed.grid_size == (4, 6)
    with pytest.raises(
        BadRequest, match=r"Image size 96x100 is not a multiple of flexivit_small's patch size 24\. Try"
    ):
        models.build(ExportRequest("flexivit_small", weights="random", sizes=(Size(96, 100),), patch_size=24))


def test_a_classifier_carries_labels_origin_and_a_hub_config() -> None:
    network = build("vit_tiny", seed=3)
    assert (network.task, network.meaning, network.output_name) == ("classify", "logits", "logits")
    assert network.labels[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert len(network.labels) == 1000
    assert network.origin == "random (seed 3)"
    assert not network.module.training
    config = network.hub_config
    assert (config["model_type"], config["hidden_size"], config["patch_size"]) == ("vit", 192, 16)
    assert config["id2label"]["0"] == "tench, Tinca tinca"


@pytest.mark.parametrize(
    ("model", "kind"), [("vit_tiny", "vit"), ("deit_tiny", "deit"), ("dinov2_small", "dinov2"), ("swin_tiny", "swin")]
)
def test_transformers_reads_the_hub_config_as_that_architecture(model: str, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    network = build(model)
    config = dict(network.hub_config)
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(config.pop("model_type"), **config))
    assert theirs.config.model_type == kind
    parameters = {p.shape for p in network.module.parameters() if p.ndim == 4}
    assert {p.shape for p in theirs.parameters() if p.ndim == 4} == parameters  # the patch embedding


def test_transformers_reads_the_hub_config_of_any_other_architecture(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for model in ("resnet10t", "vit_pwee_patch16_reg1_gap_256"):  # the second is a ViT by class, and by nothing else
        network = build(model, sizes=(Size(64, 64),))
        (tmp_path / "config.json").write_text(json.dumps(network.hub_config))
        config = transformers.AutoConfig.from_pretrained(tmp_path)
        assert (config.model_type, config.architecture) == ("timm_wrapper", model)
        assert config.id2label[1] == "goldfish, Carassius auratus"


def test_features_are_pooled_and_the_task_of_a_headless_checkpoint() -> None:
    import torch

    for network in (build("vit_tiny", task="features"), build("dinov2_small")):
        assert (network.task, network.meaning, network.labels) == ("features", "features", ())
        size = network.preprocessing.size
        with torch.no_grad():
            assert network.module(torch.zeros(1, 3, size.height, size.width)).shape == (1, network.module.embed_dim)
    assert network.preprocessing.size == Size(224, 224)


def test_impossible_tasks_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"'dinov2_small' has no classifier: .* Use --task features"):
        build("dinov2_small", task="classify")
    with pytest.raises(BadRequest, match="'vit_tiny' cannot segment"):
        build("vit_tiny", task="segment")
    with pytest.raises(BadRequest, match="'vit_tiny_seg' segments, and cannot classify"):
        build("vit_tiny_seg", task="classify")


def test_an_unknown_tag_of_a_known_architecture_lists_the_tags() -> None:
    with pytest.raises(
        BadRequest, match=r"no pretrained weights 'vit_tiny_patch16_224\.augreg'\. Did you mean '.*augreg_in"
    ):
        build("vit_tiny_patch16_224.augreg")


# ------------------------------------------------------------------------------------------------------ vit_tiny_seg


def test_the_segmenter_scores_every_pixel() -> None:
    import torch

    network = build("vit_tiny_seg", sizes=(Size(64, 96),))
    assert (network.task, network.meaning, network.labels) == ("segment", "segmentation", ("background", "person"))
    with torch.no_grad():
        assert network.module(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 64, 96)


def test_the_segmenter_says_that_it_is_not_trained() -> None:
    with pytest.raises(BadRequest, match="'vit_tiny_seg' has no pretrained weights yet"):
        build("vit_tiny_seg", weights="pretrained")


# ------------------------------------------------------------------------------------------------------- your own file

OWN = """
import torch
from neighbour import WIDTH
from vitexport import Network, Preprocessing, Size

class Net(torch.nn.Module):
    def __init__(self, last):
        super().__init__()
        self.conv, self.last = torch.nn.Conv2d(3, WIDTH, 4, stride=4), last
    def forward(self, x):
        return self.last(self.conv(x))

logits = lambda: Net(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
mask = lambda: Net(torch.nn.Sequential(torch.nn.Conv2d(WIDTH, 1, 1), torch.nn.Sigmoid()))
scores = lambda: Net(torch.nn.Conv2d(WIDTH, 3, 1))
tokens = lambda: Net(torch.nn.Flatten(2))
network = lambda: Network(logits(), Preprocessing(Size(32, 48)), "classify", "logits", "logits", ("a",) * 6)
number = lambda: 42
def raising(): raise KeyError("weights")
def broken(): return Net(torch.nn.Linear(7, 7))
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A file in a folder with dots and a space, importing its neighbour."""
    folder = tmp_path / "my nets.v2"
    folder.mkdir()
    (folder / "neighbour.py").write_text("WIDTH = 6\n")
    (folder / "own.py").write_text(OWN)
    return str(folder / "own.py")


@pytest.mark.parametrize(
    ("factory", "task", "meaning", "output"),
    [
        ("logits", "classify", "logits", "logits"),
        ("mask", "segment", "mask", "mask"),
        ("scores", "segment", "segmentation", "segmentation"),
        ("tokens", "features", "features", "features"),
    ],
)
def test_the_output_of_a_bare_module_says_what_it_is_for(
    own: str, factory: str, task: str, meaning: str, output: str
) -> None:
    network = build(f"{own}:{factory}", weights="pretrained", sizes=(Size(32, 48),))
    assert (network.task, network.meaning, network.output_name) == (task, meaning, output)
    assert network.preprocessing == Preprocessing(Size(32, 48))


def test_a_network_says_it_all_itself(own: str) -> None:
    assert build(f"{own}:network", weights="pretrained").labels == ("a",) * 6
    with pytest.raises(BadRequest, match="fixes its own size, 32x48"):
        build(f"{own}:network", sizes=(Size(64, 64),))


def test_logits_can_be_asked_for_as_features_and_nothing_else(own: str) -> None:
    assert build(f"{own}:logits", task="features").output_name == "features"
    with pytest.raises(BadRequest, match="answers with logits, and cannot segment"):
        build(f"{own}:logits", task="segment")


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (":number", "returned int. It must return a torch.nn.Module"),
        (":raising", "failed to build a model: KeyError: 'weights'."),
        (":broken", "cannot take a float32 input of shape"),
        (":logit", "has no function 'logit'. Did you mean 'logits'?"),
        (":", "names no factory"),
        ("", "names no factory"),
    ],
)
def test_a_factory_that_is_no_good_gets_a_sentence(own: str, factory: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as caught:
        build(own + factory, weights="pretrained")
    assert sentence in str(caught.value)


def test_a_file_that_is_not_there_or_cannot_be_imported_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"There is no file '.*nothing\.py'"):
        build(str(tmp_path / "nothing.py:make"))
    (tmp_path / "bad.py").write_text("import no_such_package_anywhere\n")
    with pytest.raises(BadRequest, match=r"bad\.py' cannot be imported: ModuleNotFoundError: No module named"):
        build(str(tmp_path / "bad.py:make"))


def test_a_windows_path_is_read_as_file_and_factory() -> None:
    with pytest.raises(BadRequest, match=r"There is no file 'C:\\nets\.v2\\own\.py'"):
        build(r"C:\nets.v2\own.py:make")
