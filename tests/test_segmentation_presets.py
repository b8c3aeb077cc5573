"""The presets that segment: their descriptions in the repository, their licences, and their ways from the hub."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from file_server import COMMIT, Served, serving
from vitexport import models, photos, torchvision_schemas
from vitexport.anatomy.skeleton import skeleton
from vitexport.capture import first_tensor, person_channel
from vitexport.contract import Size
from vitexport.models import hub_presets, licences, lively, lraspp
from vitexport.preprocess import preprocess

torchvision_schemas.declare()
transformers = pytest.importorskip("transformers")
pytest.importorskip("optimum.exporters.onnx")

SEGFORMER, MOBILEVIT = "segformer_b0", "mobilevit_deeplab_xxs"

# ------------------------------------------------------------------------------------------------- without a network


@pytest.mark.parametrize(
    ("model", "parameters", "channels", "stride", "person"),
    [
        # Parameters: SegFormer's paper says 3.8 M for B0 (Table 1), MobileViT's 1.9 M for XXS with DeepLabV3 (Table 4),
        # torchvision's page 3,221,538. Classes: the hub's label files.
        (SEGFORMER, 3_752_694, 150, 4, 12),
        (MOBILEVIT, 1_854_853, 21, 16, 15),
        ("lraspp_mobilenet_v3", 3_221_538, 21, 8, 15),
    ],
)
def test_a_preset_is_described_in_the_repository(
    model: str, parameters: int, channels: int, stride: int, person: int
) -> None:
    found = skeleton(model, Size(64, 96))
    assert sum(parameter.numel() for parameter in found.module.parameters()) == parameters
    with torch.device("meta"):
        answer = first_tensor(found.module(torch.empty(1, 3, 64, 96)))
    assert answer.shape == (1, channels, 64 // stride, 96 // stride)
    assert person_channel(labels(model)) == person
    assert skeleton(model, None).size == (Size(520, 520) if model == "lraspp_mobilenet_v3" else Size(512, 512))


def labels(model: str) -> list[str]:
    if model == "lraspp_mobilenet_v3":
        return list(lraspp.LABELS)
    found = json.loads((hub_presets.PRESETS[model].description / "config.json").read_text())["id2label"]
    return [found[str(i)] for i in range(len(found))]


@pytest.mark.slow  # three networks at their own sizes
def test_random_weights_need_no_network() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('a connection was attempted')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from vitexport import models; from vitexport.contract import ExportRequest, Size\n"
        f"for model in ('{SEGFORMER}', '{MOBILEVIT}', 'lraspp_mobilenet_v3'):\n"
        "    network = models.build(ExportRequest(model=model, weights='random', sizes=(Size(64, 64),)))\n"
        "    print(network.licence, '|', network.origin)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["not applicable (random weights) | random (seed 0)"] * 3


def test_the_person_of_a_random_segmenter_covers_half_of_what_the_photos_show() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, 4), torch.nn.ReLU(), torch.nn.Conv2d(8, 40, 1)).eval()
    how = models.network.Preprocessing(Size(64, 64))
    lively.enliven_on_photos(module, how, seed=0)
    named = [f"class {i}" for i in range(39)] + ["person"]
    before = covered(module, how, 39)
    lively.show_people(module, how, named)
    assert before < 0.05
    assert 0.4 < covered(module, how, 39) < 0.6
    untouched = {name: value.clone() for name, value in module.state_dict().items()}
    lively.show_people(module, how, ["class"] * 40)
    assert all(torch.equal(value, untouched[name]) for name, value in module.state_dict().items())


def covered(module: torch.nn.Module, how: Any, channel: int) -> float:
    shown = [preprocess(p.image, how) for p in photos.probes(None) if p.kind == "photo"]
    with torch.no_grad():
        return float((module(torch.from_numpy(np.concatenate(shown))).softmax(1)[:, channel] > 0.5).float().mean())


def test_a_licence_of_the_publishers_own_is_named_and_not_called_other() -> None:
    said = licences.of_repository("nvidia/segformer-b5-finetuned-ade-640-640", "other")
    assert said == "NVIDIA Source Code License for SegFormer (non-commercial)"
    assert licences.of_repository("somebody/segformer", "other") == "other"
    assert licences.of_repository("nvidia/segformer-b0", "mit") == "MIT"
    assert licences.of_repository("nvidia/segformer-b0", None) == "unknown"


def test_the_list_of_presets_says_which_licence_is_non_commercial() -> None:
    assert "non-commercial" in models.presets()[SEGFORMER]


# ------------------------------------------------------------------------------------------------------ from the hub
#
# Small networks under the presets' names, with files in the form in which these two checkpoints have them: image
# processors as feature extractors of 2021 and 2022, sizes as numbers; MobileViT's weights as a pickle.

CARD = b"---\nlicense: other\ntags:\n- vision\n---\n# A model\n"

BUILD = """
import json, sys
import numpy as np, torch
from vitexport import models, photos
from vitexport.contract import ExportRequest
from vitexport.errors import VitexportError
from vitexport.preprocess import preprocess
try:
    network = models.build(ExportRequest(model=sys.argv[1]))
    image = photos.probes(None)[0].image
    pixel_values = torch.from_numpy(preprocess(image, network.preprocessing))
    with torch.no_grad():
        np.save(sys.argv[2], network.module(pixel_values)[0].numpy())
    how = network.preprocessing
    said = dict(origin=network.origin, licence=network.licence, labels=network.labels, notes=network.notes, fit=how.fit)
except VitexportError as error:
    said = dict(exit_code=error.exit_code, error=str(error))
print(json.dumps(said))
"""

NAMES = {0: "background", 1: "cat", 2: "person"}


def small(model: str) -> tuple[Any, dict[str, Any]]:
    """A network of the preset's kind, and its image processor's file."""
    torch.manual_seed(0)
    if model == SEGFORMER:
        config = transformers.SegformerConfig(
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 3, 4],
            decoder_hidden_size=16,
            id2label=NAMES,
        )
        return transformers.SegformerForSemanticSegmentation(config).eval(), {
            "feature_extractor_type": "SegformerFeatureExtractor",
            "do_resize": True,
            "size": 64,
            "resample": 2,
            "do_normalize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "reduce_labels": True,
        }
    config = transformers.MobileViTConfig(
        image_size=64,
        hidden_sizes=[16, 20, 24],
        neck_hidden_sizes=[8, 8, 12, 16, 20, 24, 80],
        output_stride=16,
        expand_ratio=2.0,
        aspp_out_channels=16,
        atrous_rates=[1, 2, 3],
        id2label=NAMES,
    )
    return transformers.MobileViTForSemanticSegmentation(config).eval(), {
        "feature_extractor_type": "MobileViTFeatureExtractor",
        "do_resize": True,
        "size": 96,
        "resample": 2,
        "do_center_crop": True,
        "crop_size": 64,
        "do_flip_channel_order": True,
    }


def weights_of(model: str, module: Any) -> tuple[str, bytes]:
    if model == SEGFORMER:
        return "model.safetensors", save(module.state_dict(), metadata={"format": "pt"})
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return "pytorch_model.bin", file.getvalue()


class Hub:
    def __init__(self, model: str, served: Served, files: dict[str, bytes], module: Any, folder: Path) -> None:
        self.model, self.served, self.module, self.home = model, served, module, folder / "home"
        self.weights = next(path for path in files if path.endswith((".safetensors", ".bin")))
        self.answer = folder / "answer.npy"

    def build(self) -> dict[str, Any]:
        """In a process of its own: huggingface_hub reads its environment when it is imported."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
        hub = {"HF_HOME": str(self.home), "HF_ENDPOINT": self.served.url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, "-c", BUILD, self.model, str(self.answer)]
        done = subprocess.run(command, env={**kept, **hub}, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    def whole(self) -> set[str]:
        """Names that the cache would open, of files of weights."""
        return {p.name for p in self.home.rglob("*") if p.parent.parent.name == "snapshots"} & {Path(self.weights).name}


@pytest.fixture
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    model = getattr(request, "param", SEGFORMER)
    module, processor = small(model)
    name, content = weights_of(model, module)
    at = f"{hub_presets.PRESETS[model].repository}/resolve"
    files = {
        "config.json": module.config.to_json_string().encode(),
        "preprocessor_config.json": json.dumps(processor).encode(),
        "README.md": CARD,
        name: content,
    }
    files["config.json"] = json.dumps(
        {**json.loads(files["config.json"]), "architectures": [type(module).__name__]}
    ).encode()
    # The first by branch, and all others by the commit that it turned out to be of.
    paths = {f"{at}/{revision}/{file}": data for revision in ("main", COMMIT) for file, data in files.items()}
    with serving(paths) as served:
        yield Hub(model, served, {f"{at}/{COMMIT}/{name}": content}, module, tmp_path)


LICENCES = {
    SEGFORMER: "NVIDIA Source Code License for SegFormer (non-commercial)",
    MOBILEVIT: "Apple Sample Code License (apple/ml-cvnets)",
}


@pytest.mark.parametrize("hub", [SEGFORMER, MOBILEVIT], indirect=True)
def test_a_preset_comes_from_the_hub_with_its_licence_and_answers_as_transformers_does(hub: Hub) -> None:
    said = hub.build()
    assert said.get("error") is None
    assert said["origin"] == f"{hub_presets.PRESETS[hub.model].repository}@{COMMIT[:12]}"
    assert said["licence"] == LICENCES[hub.model]
    assert person_channel(said["labels"]) == 2
    assert said["fit"] == "squash"
    assert len(said["notes"]) == (hub.model == MOBILEVIT)  # which was evaluated on crops
    # The network as published, on what its own image processor would make of a whole picture: for MobileViT, BGR.
    image = photos.probes(None)[0].image
    pixels = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR), np.float32) / 255
    normalised = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pixels = normalised if hub.model == SEGFORMER else pixels[..., ::-1]
    taken = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))
    with torch.no_grad():
        wanted = hub.module(taken)[0].numpy()
    got = np.load(hub.answer)
    assert got.shape == wanted.shape
    # Sums of three products in another order, over the depth of the network: float32's 6e-8, some tens of times.
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert hub.whole()


def test_a_repository_that_is_not_there_is_named(hub: Hub) -> None:
    hub.served.files.clear()
    said = hub.build()
    assert said["exit_code"] == 2
    assert "the hub has no repository 'nvidia/segformer-b0-finetuned-ade-512-512', or it is private" in said["error"]


def test_a_checkpoint_without_weights_is_refused(hub: Hub) -> None:
    del hub.served.files[hub.weights]
    said = hub.build()
    assert said["exit_code"] == 2
    assert "cannot be used: it has none of model.safetensors, model.safetensors.index.json, pytorch" in said["error"]


@pytest.mark.parametrize(("hub", "fault"), [(SEGFORMER, "cut"), (MOBILEVIT, "damaged")], indirect=["hub"])
def test_weights_that_arrive_cut_or_damaged_are_never_taken_for_whole(hub: Hub, fault: str) -> None:
    getattr(hub.served, fault).add(hub.weights)
    said = hub.build()
    assert said["exit_code"] == 6
    sentence = "could not be downloaded" if fault == "cut" else "arrived damaged: its SHA-256 is"
    assert sentence in said["error"]
    assert not hub.whole()
    getattr(hub.served, fault).clear()
    assert "error" not in hub.build()
    assert hub.whole()
