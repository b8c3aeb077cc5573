"""Weights from a file, from the hub and at random: whole, checked, and lively enough to prove something."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from vitexport import models, photos
from vitexport.contract import ExportRequest, Preprocessing, Size
from vitexport.errors import BadRequest
from vitexport.models import lively, weights
from vitexport.preprocess import preprocess

# ------------------------------------------------------------------------------------------------------- from a file


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 3)
        self.head = nn.Linear(3, 2)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {name: torch.full_like(tensor, 0.5) for name, tensor in Net().state_dict().items()}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_a_state_dict_is_loaded_from_either_format(tmp_path: Path, state: dict[str, torch.Tensor], name: str) -> None:
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    net = Net()
    weights.load_file(net, path)
    assert all((p == 0.5).all() for p in net.parameters())


@pytest.mark.parametrize("nest", ["state_dict", "model"])
def test_a_training_checkpoint_is_unnested(tmp_path: Path, state: dict[str, torch.Tensor], nest: str) -> None:
    torch.save({"epoch": 3, nest: state}, tmp_path / "w.pt")
    assert weights.read(tmp_path / "w.pt").keys() == state.keys()


def refused(net: nn.Module, path: Path) -> str:
    with pytest.raises(BadRequest) as caught:
        weights.load_file(net, path)
    return str(caught.value).replace(str(path.parent) + os.sep, "")


def test_a_missing_name_is_given_with_the_nearest_match(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    state["encoder.weights"] = state.pop("encoder.weight")
    save_file(state, tmp_path / "w.safetensors")
    assert refused(Net(), tmp_path / "w.safetensors") == (
        "'w.safetensors' has no 'encoder.weight', which the model needs. Did you mean 'encoder.weights'? "
        "Check that the file is a state dict of this architecture."
    )


def test_an_unexpected_name_is_given(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file({**state, "heads.bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert "holds 'heads.bias', which the model does not have. Did you mean 'head.bias'?" in refused(
        Net(), tmp_path / "w.safetensors"
    )


def test_a_wrong_shape_is_given_with_both_shapes(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file({**state, "head.weight": torch.zeros(5, 3)}, tmp_path / "w.safetensors")
    assert refused(Net(), tmp_path / "w.safetensors") == (
        "'head.weight' has shape (5, 3) in 'w.safetensors', and (2, 3) in the model. "
        "Check the size, the patch size and the number of classes."
    )


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("kept", [0, 7, 0.5])
def test_a_file_that_was_cut_short_is_refused(
    tmp_path: Path, state: dict[str, torch.Tensor], name: str, kept: float
) -> None:
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    assert "It was probably cut short: copy or download it again." in refused(Net(), path)


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo this must not run",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_wants_to_run_code_is_not_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], legacy: bool
) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps({"w": RunsCode()})) if legacy else torch.save({"w": RunsCode()}, path)
    assert "loading it would run code of the file's choosing, so it was not loaded" in refused(Net(), path)
    assert "this must not run" not in capfd.readouterr().out


def test_other_files_are_refused(tmp_path: Path) -> None:
    assert "There is no weights file 'w.pt'" in refused(Net(), tmp_path / "w.pt")
    (tmp_path / "w.npz").write_bytes(b"PK")
    assert "its suffix is '.npz', and not .safetensors, .pt or .pth" in refused(Net(), tmp_path / "w.npz")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "holds no state dict" in refused(Net(), tmp_path / "list.pt")


def test_a_files_position_table_is_resampled_to_another_size(tmp_path: Path) -> None:
    """timm's own conversion: the reference is timm's model built at the size from the same file."""
    native = models.build(ExportRequest(model="vit_tiny", weights="random")).module
    path = tmp_path / "w.safetensors"
    save_file(native.state_dict(), path)
    network = models.build(ExportRequest(model="vit_tiny", weights=str(path), sizes=(Size(96, 160),)))
    assert network.module.pos_embed.shape == (1, 1 + 6 * 10, 192)
    assert network.origin == "w.safetensors"
    features = models.build(ExportRequest(model="vit_tiny", weights=str(path), task="features"))
    assert weights.sha256(features.module) != weights.sha256(native)  # the same, without its head
    assert torch.equal(features.module.norm.weight, native.norm.weight)


# --------------------------------------------------------------------------------------------------------- at random


def answers(network: models.Network) -> list[np.ndarray]:  # type: ignore[name-defined]
    inputs = [preprocess(p.image, network.preprocessing) for p in photos.probes(None) if p.kind == "photo"]
    with torch.no_grad():
        return [network.module(torch.from_numpy(x)).numpy() for x in inputs]


@pytest.mark.parametrize("model", ["vit_tiny", "dinov2_small", "swin_tiny", "vit_tiny_seg"])
def test_random_weights_answer_every_photo_differently(model: str) -> None:
    """Parity is well-posed at 100 tolerances of contrast: 0.8 for fp16's 8e-3."""
    got = answers(models.build(ExportRequest(model=model, weights="random")))
    contrasts = [np.abs(a - b).max() / np.abs(b).max() for a in got for b in got if a is not b]
    assert min(contrasts) >= 0.8
    # About 1, and features behind a final norm with gammas in 0.3..0.8 about 0.55; fp16 overflows at 65504.
    assert 0.4 < np.std(got) < 1.5


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, again, other = (
        weights.sha256(
            models.build(ExportRequest(model="vit_tiny", weights="random", sizes=(Size(64, 64),), seed=s)).module
        )
        for s in (0, 0, 1)
    )
    assert first == again != other


def test_random_weights_ignore_the_order_of_a_sum() -> None:
    """Measured scales are rounded coarsely: noise in the last bits of the photos' statistics does not show."""
    photo = torch.from_numpy(
        np.concatenate([preprocess(p.image, Preprocessing(Size(32, 32))) for p in photos.probes(None)])
    )
    digests = set()
    for noise in (0.0, 1e-7):
        net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(512, 5))
        lively.enliven(net, photo + noise, seed=0)
        digests.add(weights.sha256(net))
    assert len(digests) == 1


def test_every_kind_of_layer_is_brought_to_unit_variance() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Flatten(2),
        nn.Linear(54 * 54, 10),
    )
    nn.init.zeros_(net[-1].weight)  # a head that starts at zero
    batch = torch.rand(3, 3, 16, 16)
    lively.enliven(net, batch, seed=0)
    spreads = []
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.BatchNorm2d):
            layer.register_forward_hook(lambda _layer, _inputs, output: spreads.append(output.std().item()))
    net(batch)
    assert spreads == pytest.approx([1, 0.2, 1, 1, 1, 1], abs=0.1)  # BatchNorm's gammas are 0.15..0.25


def test_no_download_is_attempted_for_random_weights() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('a connection was attempted')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from vitexport import models; from vitexport.contract import ExportRequest\n"
        "models.build(ExportRequest(model='vit_tiny', weights='random'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ------------------------------------------------------------------------------------------------------ from the hub

REPOSITORY = "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

BUILD = """
import json, sys, time
from vitexport import models, torchvision_schemas
from vitexport.contract import ExportRequest
from vitexport.errors import VitexportError
from vitexport.models import weights
torchvision_schemas.declare()
start = time.monotonic()
try:
    network = models.build(ExportRequest(model="vit_tiny"))
    said = dict(origin=network.origin, licence=network.licence, sha256=weights.sha256(network.module))
except VitexportError as error:
    said = dict(exit_code=error.exit_code, error=str(error))
print(json.dumps({**said, "seconds": time.monotonic() - start}))
"""


@dataclass
class FakeHub:
    """What of the hub's protocol a download needs, on 127.0.0.1; ``cut_after`` bytes it drops the connection."""

    content: bytes
    etag: str
    cut_after: int | None = None
    missing: bool = False
    ranges: list[str] = field(default_factory=list)
    url: str = ""


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    return save(models.build(ExportRequest(model="vit_tiny", weights="random")).module.state_dict())


@pytest.fixture
def hub(checkpoint: bytes) -> Iterator[FakeHub]:
    served = FakeHub(checkpoint, hashlib.sha256(checkpoint).hexdigest())

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            if served.missing or self.path != f"/{REPOSITORY}/resolve/main/model.safetensors":
                self.send_response(404)
                if served.missing:
                    self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            content = served.content[start:]
            self.send_response(206 if asked else 200)
            if asked:
                served.ranges.append(asked)
                self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{served.etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body and served.cut_after is not None:
                self.wfile.write(content[: served.cut_after])
                self.close_connection = True
            elif body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


def download(home: Path, endpoint: str, **env: str) -> dict[str, str | float]:
    """In a process of its own: huggingface_hub reads its environment when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", BUILD],
        env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str | float] = json.loads(done.stdout.splitlines()[-1])
    return said


def blobs(home: Path) -> list[str]:
    return [path.name for path in home.rglob("*") if path.parent.name == "blobs"]


def test_pretrained_weights_are_downloaded_once_and_named_by_commit(tmp_path: Path, hub: FakeHub) -> None:
    said = download(tmp_path, hub.url)
    assert said["origin"] == f"{REPOSITORY}@{COMMIT[:12]}"
    assert said["licence"] == "Apache-2.0"
    hub.content = b""
    assert download(tmp_path, "http://127.0.0.1:9")["sha256"] == said["sha256"]  # from the cache, without a network
    assert download(tmp_path, hub.url, HF_HUB_OFFLINE="1")["sha256"] == said["sha256"]


def test_without_a_network_a_sentence_names_the_ways_out_and_comes_at_once(tmp_path: Path) -> None:
    said = download(tmp_path, "http://127.0.0.1:9")
    assert said["exit_code"] == 6
    assert said["error"] == (
        f"'model.safetensors' of '{REPOSITORY}' is not in the local cache and the hub cannot be reached. Without "
        "network, use --weights random or --weights FILE, point HF_HOME at a cache that holds it (with "
        "HF_HUB_OFFLINE=1), or name a mirror in HF_ENDPOINT."
    )
    assert float(said["seconds"]) < 15  # huggingface_hub alone takes 23 s of retries; most of ours is importing


def test_a_repository_that_the_hub_does_not_have_is_named(tmp_path: Path, hub: FakeHub) -> None:
    hub.missing = True
    said = download(tmp_path, hub.url)
    assert said["exit_code"] == 6
    assert f"'vit_tiny' cannot be downloaded: the hub has no repository '{REPOSITORY}'" in str(said["error"])


def test_a_download_that_is_cut_leaves_no_whole_file_and_the_next_run_resumes_it(tmp_path: Path, hub: FakeHub) -> None:
    hub.cut_after = 12_000_000
    said = download(tmp_path, hub.url)
    assert said["exit_code"] == 6
    assert "Run the same command again to resume it." in str(said["error"])
    assert blobs(tmp_path) == [f"{hub.etag}.incomplete"]
    hub.cut_after = None
    assert "sha256" in download(tmp_path, hub.url)
    assert hub.ranges == [f"bytes={10 * 2**20}-"]  # huggingface_hub writes in chunks of 10 MiB


def test_a_damaged_download_is_refused_and_removed(tmp_path: Path, hub: FakeHub) -> None:
    whole = hub.content
    hub.content = whole[:-1] + bytes([whole[-1] ^ 1])  # the right size, one bit wrong
    said = download(tmp_path, hub.url)
    assert said["exit_code"] == 6
    assert "arrived damaged: its SHA-256 is" in str(said["error"])
    assert blobs(tmp_path) == []
    hub.content = whole
    assert "sha256" in download(tmp_path, hub.url)
