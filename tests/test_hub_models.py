"""Checkpoints in transformers' layout: small random ones, written by save_pretrained and read by their folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vitexport import photos, torchvision_schemas
from vitexport.capture import capture
from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.models import build, hub
from vitexport.models.network import Network
from vitexport.preprocess import preprocess

torchvision_schemas.declare()
transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

PROBES = photos.probes(None)
LABELS = {0: "cat", 1: "coffee", 2: "person"}

#: transformers rescales in float64 and then rounds to float32, vitexport divides in float32: two roundings apart.
PIXEL_TOLERANCE = 2e-6

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def saved(folder: Path, model: object, processor: object, card: str = "") -> str:
    model.save_pretrained(folder)  # type: ignore[attr-defined]
    processor.save_pretrained(folder)  # type: ignore[attr-defined]
    if card:
        (folder / "README.md").write_text(card)
    return str(folder)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=64, patch_size=16, id2label=LABELS, **SMALL)
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    model = transformers.ViTForImageClassification(config)
    return saved(
        tmp_path_factory.mktemp("vit"), model, processor, "---\ntags: [x]\nlicense: apache-2.0\n---\n# A ViT\n"
    )


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    small = {k: v for k, v in SMALL.items() if k != "intermediate_size"}
    config = transformers.Dinov2Config(image_size=70, patch_size=14, **small)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, resample=3
    )
    return saved(tmp_path_factory.mktemp("dinov2"), transformers.Dinov2Model(config), processor)


@pytest.fixture(scope="module")
def deit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """DeiT's processor squashes to 256 and takes the centre 224 out: here 72 and 64."""
    torch.manual_seed(0)
    config = transformers.DeiTConfig(image_size=64, patch_size=16, id2label=LABELS, **SMALL)
    processor = transformers.DeiTImageProcessor(size={"height": 72, "width": 72}, crop_size={"height": 64, "width": 64})
    return saved(tmp_path_factory.mktemp("deit"), transformers.DeiTForImageClassification(config), processor)


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16,
        id2label=LABELS,
    )
    processor = transformers.SegformerImageProcessor(size={"height": 96, "width": 128})
    return saved(tmp_path_factory.mktemp("segformer"), transformers.SegformerForSemanticSegmentation(config), processor)


def load(folder: str, **more: object) -> Network:
    return build(ExportRequest(model=folder, **more))  # type: ignore[arg-type]


def answer(module: torch.nn.Module, pixel_values: torch.Tensor, **more: object) -> torch.Tensor:
    with torch.no_grad():
        return module(pixel_values, **more)[0]  # type: ignore[no-any-return]


def rows_resized(image: np.ndarray, how: Preprocessing) -> Image.Image:
    """A picture that is to be squashed, with its rows done: the oracle then resizes the columns alone.

    vitexport resizes rows before columns. Pillow 13 picks the order by cost, which for a portrait is the other one, and
    moves bilinear values by one of 255 (https://github.com/python-pillow/Pillow/pull/9549).
    """
    kernel = getattr(Image.Resampling, how.interpolation.upper())
    return Image.fromarray(image).resize(((how.resize or how.size).width, image.shape[0]), kernel)


@pytest.mark.parametrize("checkpoint", ["vit", "deit", "dinov2", "segformer"])
def test_preprocessing_is_the_slow_processors_own(checkpoint: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(checkpoint)
    ours = load(folder).preprocessing
    theirs = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    for probe in PROBES:
        portrait = np.ascontiguousarray(probe.image.transpose(1, 0, 2))
        turned = rows_resized(portrait, ours) if ours.fit == "squash" else Image.fromarray(portrait)
        for image, picture in ((probe.image, Image.fromarray(probe.image)), (portrait, turned)):
            wanted = theirs(picture, return_tensors="np")["pixel_values"]
            assert np.abs(preprocess(image, ours) - wanted).max() <= PIXEL_TOLERANCE, probe.name


def test_a_classifier_brings_labels_licence_and_config(vit: str) -> None:
    network = load(vit)
    assert (network.task, network.meaning, network.output_name) == ("classify", "logits", "logits")
    assert network.labels == ("cat", "coffee", "person")
    assert (network.origin, network.licence) == (Path(vit).name, "Apache-2.0")
    assert (network.hub_config["model_type"], network.hub_config["image_size"]) == ("vit", 64)
    assert load(f"hf:{vit}").labels == network.labels
    json.dumps(network.hub_config)


def test_a_segmenter_keeps_its_own_quarter_size(segformer: str) -> None:
    source = capture(load(segformer), "segformer", PROBES)
    (output,) = source.outputs
    assert (output.name, output.meaning, output.shape) == ("logits", "segmentation", (1, 3, 24, 32))
    assert source.size == Size(96, 128)


def test_a_backbone_gives_its_last_hidden_state(dinov2: str) -> None:
    source = capture(load(dinov2), "dinov2", PROBES)
    (output,) = source.outputs
    assert (output.name, output.meaning, output.shape) == ("last_hidden_state", "features", (1, 1 + 4 * 4, 32))


def test_a_classifier_can_be_asked_for_features(vit: str) -> None:
    network = load(vit, task="features")
    assert (network.meaning, network.labels) == ("features", ())
    assert answer(network.module, torch.zeros(1, 3, 64, 64)).shape == (1, 17, 32)


@pytest.mark.parametrize("size", ["96", "48x80"])
def test_another_size_bakes_transformers_own_interpolation(vit: str, size: str) -> None:
    wanted = Size.parse(size)
    network = load(vit, sizes=(wanted,))
    original = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    pixel_values = torch.from_numpy(preprocess(PROBES[0].image, network.preprocessing))
    assert pixel_values.shape[2:] == (wanted.height, wanted.width)
    assert torch.equal(
        answer(network.module, pixel_values), answer(original, pixel_values, interpolate_pos_encoding=True)
    )


def test_dinov2s_table_is_baked_at_the_processors_size(dinov2: str) -> None:
    network = load(dinov2)
    original = transformers.Dinov2Model.from_pretrained(dinov2).eval()
    pixel_values = torch.from_numpy(preprocess(PROBES[0].image, network.preprocessing))
    assert torch.equal(answer(network.module, pixel_values), answer(original, pixel_values))
    program = capture(network, "dinov2", PROBES).program
    assert not [n for n in program.graph.nodes if "upsample" in str(n.target)]  # nothing is left to do at run time


def test_dinov2_answers_at_a_size_that_is_not_square_as_transformers_does(dinov2: str) -> None:
    network = load(dinov2, sizes=(Size(56, 84),))
    original = transformers.Dinov2Model.from_pretrained(dinov2).eval()
    pixel_values = torch.from_numpy(preprocess(PROBES[0].image, network.preprocessing))
    assert torch.equal(answer(network.module, pixel_values), answer(original, pixel_values))
    program = capture(network, "dinov2", PROBES).program
    assert not [n for n in program.graph.nodes if "upsample" in str(n.target)]


def test_a_size_off_the_patch_grid_is_refused(vit: str, segformer: str) -> None:
    with pytest.raises(BadRequest, match=r"Image size 100 is not a multiple of .*'s patch size 16\. Try 96 or 112\.$"):
        load(vit, sizes=(Size(100, 100),))
    with pytest.raises(BadRequest, match=r"Image size 64x100 is not a multiple of .*'s total stride 32\. Try 64x96 or"):
        load(segformer, sizes=(Size(64, 100),))


def test_segformer_learns_no_positions_and_takes_any_multiple_of_its_stride(segformer: str) -> None:
    network = load(segformer, sizes=(Size(64, 160),))
    assert network.pos_embed_rule == ""
    assert answer(network.module, torch.zeros(1, 3, 64, 160)).shape == (1, 3, 16, 40)


@pytest.mark.parametrize("weights", ["pretrained", "random"])
@pytest.mark.parametrize(("checkpoint", "size"), [("vit", "48x80"), ("deit", "32"), ("dinov2", "98")])
def test_rungs_of_a_ladder_share_every_weight_but_positions(
    checkpoint: str, size: str, weights: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(checkpoint)
    native, other = load(folder, weights=weights), load(folder, weights=weights, sizes=(Size.parse(size),))
    ours, theirs = native.module.state_dict(), other.module.state_dict()
    assert ours.keys() == theirs.keys()
    changed = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert [name.rpartition(".")[2] for name in changed] == ["position_embeddings"]
    assert (other.pos_embed_rule, other.pos_embed_source[:12]) == ("hf", "transformers")


def test_a_checkpoint_that_was_not_trained_on_a_square_says_so_in_its_config(tmp_path: Path) -> None:
    """4x9 patches are as many as 6x6: the count cannot tell."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=[64, 144], patch_size=16, id2label=LABELS, **SMALL)
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 144})
    folder = saved(tmp_path, transformers.ViTForImageClassification(config), processor)
    table = load_file(f"{folder}/model.safetensors")["vit.embeddings.position_embeddings"]
    assert torch.equal(load(folder).module.vit.embeddings.position_embeddings, table)
    image = table[:, 1:].reshape(1, 4, 9, 32).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(image, size=(8, 9), mode="bicubic").flatten(2).transpose(1, 2)
    ours = load(folder, sizes=(Size(128, 144),)).module.vit.embeddings.position_embeddings
    assert torch.equal(ours[:, 1:], wanted)


def test_random_weights_need_no_weights_file(vit: str, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((Path(vit) / name).read_bytes())
    network = load(str(tmp_path), weights="random", seed=1)
    assert network.origin == "random (seed 1)"
    with pytest.raises(BadRequest, match=r"cannot be loaded: .*model\.safetensors"):
        load(str(tmp_path))


def test_a_file_of_weights_is_loaded_strictly(vit: str) -> None:
    network = load(vit, weights=f"{vit}/model.safetensors")
    state = load_file(f"{vit}/model.safetensors")
    assert torch.equal(network.module.classifier.weight, state["classifier.weight"])
    with pytest.raises(BadRequest, match=r"has no 'embeddings\.cls_token' .*Did you mean 'vit\.embeddings\.cls_token'"):
        load(vit, weights=f"{vit}/model.safetensors", task="features")


def edited(folder: str, to: Path, name: str, **changes: object) -> str:
    for file in Path(folder).iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    (to / name).write_text(json.dumps({**json.loads((to / name).read_text()), **changes}))
    return str(to)


@pytest.mark.parametrize(
    ("file", "changes", "sentence"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "x.Y"}}, "brings Python code of its own"),
        ("config.json", {"model_type": "no_such_type"}, "transformers does not know"),
        ("config.json", {"model_type": "bert"}, "Optimum does not export 'bert' for image-classification"),
        ("preprocessor_config.json", {"do_resize": False}, "in a way that vitexport cannot describe"),
        ("preprocessor_config.json", {"rescale_factor": 1.0}, "in a way that vitexport cannot describe"),
        ("preprocessor_config.json", {"size": {"shortest_edge": 64}}, "pictures of no fixed size"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_a_sentence(
    vit: str, tmp_path: Path, file: str, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(BadRequest, match=sentence):
        load(edited(vit, tmp_path, file, **changes))


def test_a_timm_checkpoint_is_sent_to_timm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_tiny_patch16_224"}))
    with pytest.raises(BadRequest, match="Name the timm model itself: --model vit_tiny_patch16_224"):
        load(str(tmp_path))


def test_weights_that_lack_the_head_are_refused(vit: str, tmp_path: Path) -> None:
    transformers.ViTModel.from_pretrained(vit).save_pretrained(tmp_path)
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((Path(vit) / name).read_bytes())
    with pytest.raises(BadRequest, match=r"lack 'classifier\.bias' or hold it in another shape"):
        load(str(tmp_path))


def test_weights_that_were_cut_short_are_refused(vit: str, tmp_path: Path) -> None:
    folder = edited(vit, tmp_path, "config.json")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadRequest, match="are not whole"):
        load(folder)


def test_a_task_that_the_checkpoint_was_not_trained_for_is_refused(vit: str, dinov2: str) -> None:
    with pytest.raises(BadRequest, match="is a ViTForImageClassification, which was not trained to segment"):
        load(vit, task="segment")
    with pytest.raises(BadRequest, match="is a Dinov2Model, which was not trained to classify"):
        load(dinov2, task="classify")


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"There is no 'config\.json' in"):
        load(f"hf:{tmp_path}")


def test_a_name_is_a_hub_checkpoint_only_with_its_prefix() -> None:
    assert hub.FAMILY.claims("hf:google/vit-base-patch16-224")
    assert not hub.FAMILY.claims("vit_tiny")
