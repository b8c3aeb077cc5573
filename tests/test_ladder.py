"""One bundle, several sizes: each proven by itself, weights shared, and the browser takes the one that fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import headless
import web_bundles
from conftest import TESTS, Command
from vitexport import ExportRequest, Size, capture, export, models, photos
from vitexport.contract import Bundle, Report, Site
from vitexport.manifest import find_bundles, read_bundles
from vitexport.serving import serve

ANY_SIZE = f"{TESTS / 'models.py'}:any_size"
SIZES = (Size(64, 64), Size(48, 96), Size(96, 48), Size(128, 128))


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("ladder") / "out"
    return export(ExportRequest(model=ANY_SIZE, targets=("onnx",), sizes=SIZES, out=str(out))), out


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ...]:
    rungs = [ExportRequest(model=ANY_SIZE, precisions=("fp32",), sizes=(size,)) for size in SIZES]
    probes = photos.probes(None)
    sources = [capture.capture(models.build(rung), "any_size", probes) for rung in rungs]
    return web_bundles.filled(tmp_path_factory.mktemp("web"), rungs[0], *sources)


def test_every_rung_is_captured_proven_and_timed_by_itself(ladder: tuple[Report, Path]):
    report, _ = ladder
    assert [r.size for r in report.results] == list(SIZES)
    assert all(r.verdict == "passed" and r.latency.runs > 0 for r in report.results), report.results


@pytest.mark.browser
@pytest.mark.slow
def test_every_rung_is_proven_on_webgpu(tmp_path: Path):
    request = ExportRequest(model=ANY_SIZE, targets=("webgpu",), sizes=SIZES, precisions=("fp32",))
    report = export(replace(request, out=str(tmp_path / "out")))
    assert [(r.size, r.verdict) for r in report.results if r.provider == "webgpu"] == [(s, "passed") for s in SIZES]


def test_rungs_share_their_weights(web: tuple[Bundle, ...]):
    """The convolutions are 43 kB; a further rung adds its graph, which at this size weighs a few."""
    weights = {path for bundle in web for path in bundle.variant("fp32").files[1:]}
    assert weights == {"weights_fp32_0"}
    shared = web[0].path("weights_fp32_0").stat().st_size
    assert shared > 40_000
    assert all(b.path(b.variant("fp32").files[0]).stat().st_size < 0.1 * shared for b in web)


def test_an_onnx_folder_is_complete_at_every_size(ladder: tuple[Report, Path]):
    _, out = ladder
    first, *further = read_bundles(out / "onnx")
    assert first.variant("fp32").files == ("onnx/model.onnx",)
    for bundle in further:
        folder = out / "onnx" / str(bundle.rung.size)
        assert bundle.variant("fp32").files == (f"{bundle.rung.size}/onnx/model.onnx",)
        assert (folder / "config.json").is_file()
        size = json.loads((folder / "preprocessor_config.json").read_text())["size"]
        assert size == {"height": bundle.rung.size.height, "width": bundle.rung.size.width}


def test_a_ladder_can_be_checked_again(ladder: tuple[Report, Path], vitexport: Command):
    _, out = ladder
    assert [b.rung.size for b in find_bundles(out)] == list(SIZES)
    done = vitexport("check", out / "onnx", "--json")
    assert done.returncode == 0, done.stderr
    assert [r["parity"]["verdict"] for r in json.loads(done.stdout)] == ["passed"] * len(SIZES)


def test_the_same_size_twice_is_one_rung(vitexport: Command):
    done = vitexport("--model", ANY_SIZE, "--target", "onnx", "--size", "64", "--size", "64x64", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["results"]) == 1


# ----------------------------------------------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def opened(web: tuple[Bundle, ...]) -> Iterator[object]:
    with serve(Site(web[0].directory)) as url, headless.page() as page:
        page.goto(f"{url}index.html")
        page.locator("body:not([data-verdict=pending])").wait_for(timeout=120_000)
        yield page


@pytest.mark.browser
@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({}, "64x64"),
        ({"frame": {"width": 1280, "height": 720}}, "48x96"),
        ({"frame": {"width": 720, "height": 1280}}, "96x48"),
        ({"frame": {"width": 300, "height": 310}}, "64x64"),
        ({"size": {"width": 48, "height": 96}}, "96x48"),
        ({"budgetMs": 60_000}, "128x128"),
        ({"budgetMs": 0}, "64x64"),
        ({"frame": {"width": 720, "height": 1280}, "budgetMs": 60_000}, "96x48"),
    ],
    ids=["first", "landscape", "portrait", "squarish", "asked", "large budget", "no budget", "portrait in budget"],
)
def test_the_rung_is_picked_by_shape_and_budget(opened, options: dict[str, object], taken: str):
    script = """async (options) => {
        const { load } = await import('./vitexport.js');
        const model = await load('./', { ...options, provider: 'wasm' });
        const { height, width } = model.info.rung.preprocessing.size;
        await model.dispose();
        return `${height}x${width}`;
    }"""
    assert opened.evaluate(script, options) == taken


@pytest.mark.browser
def test_a_rung_that_loads_and_does_not_run_keeps_no_budget_and_is_given_back(opened):
    """The runtime runs out of memory on the largest input."""
    script = """async () => {
        const { load } = await import('./vitexport.js');
        const { runtime } = await (await fetch('./manifest.json')).json();
        const ort = await import(new URL(runtime.builds.wasm.module, document.baseURI));
        const told = [];
        const create = async (...given) => {
            const session = await ort.InferenceSession.create(...given);
            const run = (feeds, ...further) => {
                const rows = feeds.pixel_values.dims[2];
                told.push(`run ${rows}`);
                return rows === 128 ? Promise.reject(new Error('out of memory')) : session.run(feeds, ...further);
            };
            return { run, release: () => told.push('released') && session.release() };
        };
        const strained = { ...ort, InferenceSession: { create } };
        const model = await load('./', { ort: strained, provider: 'wasm', budgetMs: 60_000 });
        const { height, width } = model.info.rung.preprocessing.size;
        return [`${height}x${width}`, ...told];
    }"""
    assert opened.evaluate(script) == ["64x64", "run 128", "released"]


@pytest.mark.browser
def test_a_size_that_is_not_there_is_named(opened):
    script = """async () => {
        const { load } = await import('./vitexport.js');
        return load('./', { size: { width: 1, height: 2 } }).then(() => '', (error) => error.message);
    }"""
    assert opened.evaluate(script) == "This bundle has no size 2x1. It has: 64x64, 48x96, 96x48, 128x128."


@pytest.mark.browser
def test_the_page_runs_each_picture_at_the_size_nearest_in_shape(opened, tmp_path: Path):
    from PIL import Image

    for name, size, taken in (("portrait.png", (90, 160), "48 × 96"), ("landscape.png", (160, 90), "96 × 48")):
        Image.new("RGB", size, "teal").save(tmp_path / name)
        opened.set_input_files("#file", tmp_path / name)
        opened.locator("#status", has_text=f"{name}:").wait_for(timeout=30_000)
        assert opened.locator("#status").inner_text().endswith(f"at {taken}.")


@pytest.fixture
def fresh(web: tuple[Bundle, ...]) -> Iterator[object]:
    """The page before any other size than its first was loaded."""
    with serve(Site(web[0].directory)) as url, headless.page() as page:
        page.goto(f"{url}index.html")
        page.locator("#status", has_text="in the network").wait_for(timeout=120_000)
        yield page


def shown(page, name: str, folder: Path, size: tuple[int, int] = (160, 90)) -> None:
    """Give the page a picture; its answer is waited for by whoever wants it."""
    from PIL import Image

    Image.new("RGB", size, "teal").save(folder / name)
    page.set_input_files("#file", folder / name)


@pytest.mark.browser
def test_a_size_that_could_not_be_loaded_is_tried_again_with_the_next_picture(fresh, web, tmp_path: Path):
    graph = web[1].variant("fp32").files[0]
    fresh.route(f"**/{graph}", lambda route: route.abort(), times=1)
    shown(fresh, "wide.png", tmp_path)
    fresh.locator("#status", has_text=f"{graph} cannot be reached").wait_for(timeout=30_000)
    shown(fresh, "wide.png", tmp_path)
    fresh.locator("#status", has_text="wide.png: ").wait_for(timeout=30_000)


@pytest.mark.browser
def test_an_answer_that_comes_late_does_not_replace_that_of_a_newer_picture(fresh, web, tmp_path: Path):
    """The first picture waits for its size; the second needs none."""
    held: list[object] = []
    fresh.route(f"**/{web[1].variant('fp32').files[0]}", lambda route: held.append(route), times=1)
    fresh.evaluate("""() => {
        globalThis.said = [];
        const status = document.getElementById('status');
        new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
    }""")
    with fresh.expect_request("**/model*"):
        shown(fresh, "late.png", tmp_path)
    shown(fresh, "square.png", tmp_path, (90, 90))
    fresh.locator("#status", has_text="square.png: ").wait_for(timeout=30_000)
    held[0].continue_()
    shown(fresh, "last.png", tmp_path)  # runs behind the first, at its size
    fresh.locator("#status", has_text="last.png: ").wait_for(timeout=30_000)
    answered = [text.split(":")[0] for text in fresh.evaluate("said") if "in the network" in text]
    assert answered == ["square.png", "last.png"]


def test_bundles_of_one_size_stay_one_file(tmp_path: Path):
    bundle: Bundle = web_bundles.whole("tiny", ("fp32",))
    assert bundle.variant("fp32").files == ("model_fp32.onnx",)
