"""The page's build: within its budget, under the policy it promises, and knowing no model but those that are listed."""

from __future__ import annotations

import html
import json
import random
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import demo_page

POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self' blob:; "
    "img-src 'self' blob: data:; media-src 'self' blob:; style-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'"
)


@pytest.fixture(scope="module")
def deployed() -> Path:
    return demo_page.built()[0]


def test_a_first_visit_is_within_its_budget_with_and_without_jspi():
    said = dict(re.findall(r"First visit with (\w+): ([\d.]+) MB brotli, of", demo_page.built()[1]))
    assert 2 < float(said["jspi"]) <= 4
    assert 4 < float(said["asyncify"]) <= 5.3


def test_a_build_over_budget_fails(tmp_path: Path):
    heavy = _copy_of_public(tmp_path)
    # Noise does not compress, and a megabyte of it is too much for either budget.
    (heavy / "noise.bin").write_bytes(random.Random(0).randbytes(1_000_000))
    done = demo_page.build(heavy)
    assert done.returncode != 0
    assert re.search(r"First visit with jspi: [\d.]+ MB brotli, of 4 MB: over the budget", done.stdout + done.stderr)


def test_a_file_that_hosts_refuse_fails_the_build(tmp_path: Path):
    heavy = _copy_of_public(tmp_path)
    with (heavy / "models" / "large.onnx").open("wb") as file:
        file.truncate(25 * 2**20 + 1)
    done = demo_page.build(heavy)
    assert done.returncode != 0
    assert "models/large.onnx: over 25 MiB, which some hosts refuse" in done.stdout + done.stderr


def test_a_build_without_models_says_what_makes_them(tmp_path: Path):
    (tmp_path / "public").mkdir()
    done = demo_page.build(tmp_path / "public")
    assert done.returncode != 0
    assert "There are no models to build the page with. Run: make web-demo" in done.stdout + done.stderr


def test_the_policy_is_in_the_page_itself_for_hosts_that_send_no_headers(deployed: Path):
    page = html.unescape((deployed / "index.html").read_text())
    assert f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">' in page
    assert page.index("Content-Security-Policy") < page.index("<link"), "what comes before it is not held to it"


def test_the_page_asks_for_nothing_by_an_absolute_address(deployed: Path):
    """So that it works below any path of any host."""
    page = (deployed / "index.html").read_text()
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) >= 5
    assert all(address.startswith(("./", "#")) for address in addresses)


def test_the_local_server_sends_what_threads_and_the_policy_need_and_404_for_what_is_not_there(deployed: Path):
    with demo_page.served(deployed) as url:
        with urllib.request.urlopen(url) as answer:
            headers = answer.headers
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}models/none/manifest.json")
    assert headers["Content-Security-Policy"] == f"{POLICY}; frame-ancestors 'none'"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    for name, value in headers.items():
        if name.startswith(("Cross-Origin", "Content-Security", "Permissions")):
            assert f"  {name}: {value}\n" in (deployed / "_headers").read_text()


def test_models_json_says_what_the_manifests_say_and_lists_every_bundle(deployed: Path):
    listed = json.loads((deployed / "models" / "models.json").read_text())
    assert [model["id"] for model in listed["models"]] == list(demo_page.MODELS)
    for model in listed["models"]:
        manifest = json.loads((deployed / "models" / model["bundle"] / "manifest.json").read_text())
        assert model["licence"] == manifest["provenance"]["licence"]
        assert [p["name"] for p in model["precisions"]] == [v["precision"] for v in manifest["rungs"][0]["variants"]]
        assert model["sizes"] == [rung["preprocessing"]["size"] for rung in manifest["rungs"]]


def test_the_runtime_is_shipped_once_and_only_in_the_builds_that_are_used(deployed: Path):
    runtime = json.loads((deployed / "models" / "models.json").read_text())["runtime"]["builds"]
    named = {path for build in runtime.values() for path in (build["module"], *build["wasm"])}
    shipped = {str(p.relative_to(deployed / "models")) for p in deployed.rglob("*") if "ort" in p.name and p.is_file()}
    assert {path for path in shipped if path.endswith((".mjs", ".wasm")) or ".part" in path} == named
    assert set(runtime) == {"jspi", "asyncify", "wasm"}


def test_the_page_itself_names_no_model(deployed: Path):
    scripts = "".join(path.read_text() for path in (deployed / "assets").glob("*.js"))
    assert not re.search(r"selfie|vit_tiny|mediapipe", scripts, re.IGNORECASE)


def _copy_of_public(into: Path) -> Path:
    return Path(shutil.copytree(demo_page.public(), into / "public"))
