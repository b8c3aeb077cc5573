"""torchvision's weights: from PyTorch's own store into torch.hub's cache, whole or not at all."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from file_server import Served, serving
from vitexport import models, torchvision_schemas
from vitexport.contract import ExportRequest
from vitexport.errors import WorldFailed
from vitexport.models import lraspp, torch_download

torchvision_schemas.declare()


def named(content: bytes) -> str:
    return f"network-{hashlib.sha256(content).hexdigest()[:8]}.pth"


CONTENT = bytes(range(256)) * 1024
NAME = named(CONTENT)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def store() -> Iterator[Served]:
    with serving({NAME: CONTENT}) as served:
        yield served


def refused(store: Served, name: str = NAME) -> str:
    with pytest.raises(WorldFailed) as caught:
        torch_download.fetch(f"{store.url}/{name}")
    return str(caught.value)


def test_a_file_is_downloaded_once(store: Served, cache: Path) -> None:
    path = torch_download.fetch(f"{store.url}/{NAME}")
    assert (path, path.read_bytes()) == (cache / NAME, CONTENT)
    store.failing = 500
    assert torch_download.fetch(f"{store.url}/{NAME}") == path
    assert store.asked == [NAME]


@pytest.mark.parametrize("fault", ["cut", "damaged"])
def test_a_file_that_arrives_cut_or_damaged_is_never_taken_for_whole(store: Served, cache: Path, fault: str) -> None:
    getattr(store, fault).add(NAME)
    said = refused(store)
    assert said.startswith(f"'{NAME}' arrived damaged or cut short: its SHA-256 is ")
    assert said.endswith(f"and should begin with {NAME[8:16]}. It was removed; run the same command again.")
    assert list(cache.iterdir()) == []
    getattr(store, fault).clear()
    assert torch_download.fetch(f"{store.url}/{NAME}").read_bytes() == CONTENT


def test_what_lies_in_the_cache_is_hashed_too(store: Served, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT[: len(CONTENT) // 2])
    assert "arrived damaged or cut short" in refused(store)
    assert torch_download.fetch(f"{store.url}/{NAME}").read_bytes() == CONTENT


def test_a_server_that_has_no_such_file_is_quoted(store: Served, cache: Path) -> None:
    absent = named(b"another")
    said = refused(store, absent)
    assert said.startswith(f"'{absent}' cannot be downloaded: the server answered 404. Without network, use --weights")
    assert list(cache.iterdir()) == []


def test_without_a_network_the_ways_out_are_named(cache: Path) -> None:
    said = refused(Served({}, url="http://127.0.0.1:9"))
    assert said.startswith(f"'{NAME}' could not be downloaded (<urlopen error [Errno ")
    assert said.endswith(torch_download.WAYS_OUT)
    assert list(cache.iterdir()) == []


def test_a_file_whose_name_holds_no_hash_is_not_fetched(store: Served) -> None:
    with pytest.raises(ValueError, match="does not carry its SHA-256"):
        torch_download.fetch(f"{store.url}/network.pth")
    assert torch_download._NAMED.search(lraspp.URL)


def test_lraspp_is_built_of_torchvisions_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights, lraspp_mobilenet_v3_large

    theirs = LRASPP_MobileNet_V3_Large_Weights.DEFAULT
    assert theirs.url == lraspp.URL
    names = theirs.meta["categories"]
    assert (names[0], *names[1:]) == ("__background__", *lraspp.LABELS[1:])

    torch.manual_seed(0)
    module = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).eval()
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    name = named(file.getvalue())
    with serving({name: file.getvalue()}) as store:
        monkeypatch.setattr(lraspp, "URL", f"{store.url}/{name}")
        network = models.build(ExportRequest(model="lraspp_mobilenet_v3"))
    assert (network.origin, network.licence) == (f"torchvision {name}", "BSD-3-Clause")
    picture = torch.rand((1, 3, 72, 88), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = network.module(picture)
        enlarged = torch.nn.functional.interpolate(scores, (72, 88), mode="bilinear", align_corners=False)
        assert scores.shape == (1, 21, 9, 11)
        assert torch.equal(enlarged, module(picture)["out"])
