"""report.html: one file that opens from a disk, says all that report.json says, and takes nobody's word for HTML."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import demo_page
import headless
import written_reports as written
from conftest import TINY
from test_demo_page_access import DESKTOP, PHONE, violations
from vitexport import cli, pipeline
from vitexport.commands import COMMANDS
from vitexport.contract import ExportRequest, Measurement, Report, Result, Size
from vitexport.errors import BadRequest
from vitexport.manifest import encode
from vitexport.reports import again, axes, cells, page, plots, stored

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

browser_test = pytest.mark.browser

#: Wider than what stacks the results, narrower than they are.
TABLET = {"width": 700, "height": 900}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with headless.browser() as launched:
        yield launched


def home(folder: Path, report: Report, *, proof: bool = False) -> Path:
    """As an export and a diff leave it."""
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_bytes(encode(report))
    judged = next((r for r in report.results if r.verdict == "passed"), None)
    if judged:
        (folder / "diff.json").write_bytes(encode((written.trace(judged),)))
    if proof:
        Image.fromarray(np.zeros((40, 120, 3), np.uint8)).save(folder / "proof.png")
    (folder / "report.html").write_bytes(page.render(stored.read(folder)))
    return folder


def opened(visitor: Page, folder: Path) -> list[str]:
    """Go there; what it then asks for, itself left out."""
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    visitor.goto((folder / "report.html").as_uri())
    return [url for url in asked if not url.startswith("data:")][1:]


# ------------------------------------------------------------------------------------------------------ in a browser


@browser_test
@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESKTOP), ("dark", PHONE)], ids=["light", "dark phone"])
def test_axe_finds_nothing_and_nothing_is_asked_for(
    chromium: Browser, tmp_path: Path, scheme: str, viewport: dict[str, int]
) -> None:
    folder = home(tmp_path, written.report(), proof=True)
    with demo_page.fresh_page(chromium, color_scheme=scheme, viewport=viewport) as visitor:
        said: list[str] = []
        visitor.on("console", lambda message: said.append(message.text))
        assert opened(visitor, folder) == []
        assert said == []  # a browser says there what its policy forbade
        assert visitor.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = visitor.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, re.findall(r"\d+", paper))) > 600 or scheme == "dark"
        for summary in visitor.locator("summary").all():
            summary.click()
        assert violations(visitor) == []


@browser_test
def test_every_result_is_a_row_with_its_figures_and_no_stand_in_passes_for_a_device(
    chromium: Browser, tmp_path: Path
) -> None:
    report = written.report()
    with demo_page.fresh_page(chromium) as visitor:
        opened(visitor, home(tmp_path, report))
        groups = cells.groups(report)
        shown = visitor.locator("table.results tbody tr:not(.group)").all_inner_texts()
        heads = visitor.locator("table.results tr.group").all_inner_texts()
        assert [head.strip() for head in heads] == ["The host: A processor", "Pixel 9"]
        assert len(shown) == len(report.results)
        rows = [(group, row) for group in groups for row in group.rows]
        for (group, row), text in zip(rows, shown, strict=True):
            r = row.result
            figures = [f"{r.target} {r.precision}", f"{r.provider}, {r.size}", row.verdict, f"{row.bytes:,}", row.why]
            figures += [row.interval, row.warning]
            figures += [row.ran_on if row.ran_on != group.device else "", row.stand_in]
            if r.parity.snr_db is not None:
                figures += [f"{r.parity.drift:.1e}", f"{r.parity.snr_db:.1f}", f"{r.parity.agreement:.4f}"]
            if r.latency.median_ms is not None:
                figures += [cells.milliseconds(ms) for ms in (r.latency.cold_ms, r.latency.median_ms)]
            assert [figure for figure in figures if figure not in text] == []
            stood_in = r.target == "coreml" or (r.target, r.precision) == ("webgpu", "fp32")
            assert ("no device’s figure" in text) == stood_in
        unrun = visitor.locator("section[aria-labelledby=unrun]").inner_text()
        for said in (
            "adapter has no shader-f16",
            "webgpu fp16 on webgpu, 224x224",
            "coreml w8 on evaluator, 224x224: latency, a device's verdict",
        ):
            assert said in unrun
        (browsers,) = visitor.locator("li", has_text="adapter has no shader-f16").locator("pre").all_inner_texts()
        assert browsers.strip() == "vitexport bench 'made by/us/webgpu' --device browser --lan"


@browser_test
def test_a_phone_shows_every_figure_of_a_result_without_scrolling_and_the_table_stays_one(
    chromium: Browser, tmp_path: Path
) -> None:
    report = written.report(written.result("onnx", "fp32"), *written.every_kind()[7:])
    with demo_page.fresh_page(chromium, viewport=PHONE) as visitor:
        opened(visitor, home(tmp_path, report))
        table = visitor.locator("table.results")
        assert visitor.locator(".scroll").first.evaluate("e => e.scrollWidth <= e.clientWidth")
        rows = table.get_by_role("row").filter(has=visitor.get_by_role("cell"))
        assert rows.count() == len(report.results)
        assert rows.first.get_by_role("cell").count() == table.get_by_role("columnheader").count() - 1
        first = " ".join(rows.first.inner_text().split())
        assert first.startswith("onnx fp32 cpu, 224x224 passed")
        names = rows.first.locator(".figure").evaluate_all(
            "all => all.map(each => getComputedStyle(each, '::before').content)"
        )
        assert names == ['"Bytes"', '"Drift"', '"SNR dB"', '"Agreement"', '"Cold ms"', '"Median ms"']
        assert rows.first.bounding_box()["height"] < 130  # a line for its name, three of figures, and its runtime


@browser_test
def test_what_was_judged_stands_out_with_its_bound_and_the_other_figure_does_not(
    chromium: Browser, tmp_path: Path
) -> None:
    by_drift, by_noise = written.result("onnx", "fp32"), written.result("coreml", "w8", "evaluator")
    by_noise = replace(by_noise, parity=replace(by_noise.parity, metric="noise", tolerance=0.1))
    with demo_page.fresh_page(chromium) as visitor:
        opened(visitor, home(tmp_path, written.report(by_drift, by_noise)))
        shown = visitor.locator("[data-name=Drift], [data-name='SNR dB']").evaluate_all(
            "all => all.map(each => [each.innerText.replace(/\\s+/g, ' '), getComputedStyle(each).color])"
        )
        ink, faint = (
            visitor.locator(where).first.evaluate("e => getComputedStyle(e).color") for where in ("h1", "p.faint")
        )
    assert [tuple(each) for each in shown] == [
        ("2.5e-06 ≤ 5.0e-01", ink), ("111.9", faint), ("5.1e-02", faint), ("25.9 ≥ 20.0", ink)
    ]  # fmt: skip


@browser_test
def test_a_verdict_is_told_by_its_word_and_its_shape(chromium: Browser, tmp_path: Path) -> None:
    with demo_page.fresh_page(chromium) as visitor:
        opened(visitor, home(tmp_path, written.report()))
        marks = visitor.locator("table.results .verdict").evaluate_all(
            "all => all.map(v => [v.innerText.trim(), v.querySelector('use').getAttribute('href')])"
        )
    assert {tuple(mark) for mark in marks} == {
        ("passed", "#v-passed"), ("failed", "#v-failed"), ("not run", "#v-not-run"), ("timed", "#v-timed")
    }  # fmt: skip
    drawn = re.findall(r'<g id="v-[a-z-]+">(.*?)</g>', page.render(stored.read(tmp_path)).decode())
    assert len(set(drawn)) == 4


@browser_test
def test_texts_that_mean_harm_stay_texts(chromium: Browser, tmp_path: Path) -> None:
    folder = home(tmp_path, written.hostile())
    with demo_page.fresh_page(chromium, viewport=PHONE) as visitor:
        dialogs: list[str] = []
        visitor.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        assert opened(visitor, folder) == []
        assert visitor.locator("script, img, iframe, object, a:not(.skip)").count() == 0
        assert visitor.evaluate(
            "[...document.querySelectorAll('*')].every(e => !e.getAttributeNames().some(n => n.startsWith('on')))"
        )
        text = " ".join(visitor.locator("body").inner_text().split())
        assert " ".join(written.HOSTILE.split()) in text
        assert "{{ 7*7 }}" in text
        assert "49" not in visitor.locator("h1").inner_text()
        assert dialogs == []
        assert visitor.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for summary in visitor.locator("summary").all():
            summary.click()
        assert violations(visitor) == []


@browser_test
def test_keys_reach_what_scrolls(chromium: Browser, tmp_path: Path) -> None:
    with demo_page.fresh_page(chromium, viewport=TABLET, reduced_motion="reduce") as visitor:
        opened(visitor, home(tmp_path, written.report()))
        visitor.keyboard.press("Tab")
        assert visitor.evaluate("document.activeElement.innerText") == "To the results"
        visitor.keyboard.press("Tab")
        table = visitor.locator(".scroll").first
        assert visitor.evaluate("document.activeElement.getAttribute('aria-label')") == "Table of results"
        for _ in range(3):
            visitor.keyboard.press("ArrowRight")
        for _ in range(200):  # the page's policy lets wait_for_function run nothing
            if table.evaluate("e => e.scrollLeft") > 20:
                break
            visitor.wait_for_timeout(20)
        assert table.evaluate("e => e.scrollLeft") > 20
        assert table.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


# -------------------------------------------------------------------------------------------------- without a browser


def test_no_two_rows_read_alike_whatever_ran_them(tmp_path: Path) -> None:
    half = written.result("webgpu", "fp16", "wasm")
    mobile = [on("Pixel 9", half, "a browser"), on("Galaxy S24", written.unrun(half, "no memory"), "a browser")]
    file = written.result("tflite", "fp32", "xnnpack")
    threads = [on("Pixel 9", file, f"benchmark_model, {count} threads") for count in (2, 4)]
    report = written.report(mobile[0], half, *threads, mobile[1], written.result("onnx", "fp32"))
    assert [row.name for row in cells.rows(report)] == [
        "webgpu fp16 on wasm, 224x224, Pixel 9",
        "webgpu fp16 on wasm, 224x224, the host",
        "tflite fp32 on xnnpack, 224x224, Pixel 9, benchmark_model, 2 threads",
        "tflite fp32 on xnnpack, 224x224, Pixel 9, benchmark_model, 4 threads",
        "webgpu fp16 on wasm, 224x224, Galaxy S24",
        "onnx fp32 on cpu, 224x224",
    ]
    assert [(group.device, group.is_host, len(group.rows)) for group in cells.groups(report)] == [
        ("A processor", True, 2), ("Pixel 9", False, 3), ("Galaxy S24", False, 1)
    ]  # fmt: skip
    here = written.result("tflite", "fp32", "interpreter")
    counted = (replace(here, latency=replace(here.latency, facts={"threads": str(count)})) for count in (1, 2))
    assert [row.name.rpartition("224x224")[2] for row in cells.rows(written.report(*counted))] == [
        ", runtime 1.0, 1 thread", ", runtime 1.0, 2 threads"
    ]  # fmt: skip
    html = page.render(stored.Stored(tmp_path, report)).decode()
    summaries = re.findall(r"<summary>(.*)</summary>", html)
    assert len(summaries) == len(set(summaries)) == 6  # one could not run, and one is of the files
    (absent,) = (said for each in cells.unrun(report) for said in each.absent)
    assert absent.says == "webgpu fp16 on wasm, 224x224, Galaxy S24"


def on(device: str, made: Result, runtime: str) -> Result:
    """As a device filed it that is not this machine."""
    parity = replace(made.parity, runtime=f"{runtime} on {device}")
    latency = replace(made.latency, device=device, runtime=runtime) if made.latency.device else made.latency
    return replace(made, parity=parity, latency=latency)


def test_the_policy_allows_its_own_style_and_nothing_else(tmp_path: Path) -> None:
    html = page.render(stored.read(home(tmp_path, written.report(), proof=True))).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe" not in policy
    assert "http" not in html.replace("http-equiv", "")
    assert not re.findall(r"<(script|link|iframe)\b|\bstyle=|\bon\w+=", html)


def test_an_export_leaves_it_and_the_command_writes_it_again_with_what_diff_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    pipeline.export(ExportRequest(model=TINY, targets=("onnx",), precisions=("fp32",), out=str(out)))
    first = (out / "report.html").read_text()
    assert "data:image/png;base64," in first
    assert "Block by block" not in first
    assert f"vitexport --model {TINY} --target onnx --precision fp32 --out {out}" in first
    assert COMMANDS["diff"]([str(out)]) == 0
    assert COMMANDS["report"]([str(out), "--html"]) == 0
    assert capsys.readouterr().out.endswith(f"Written: {out / 'report.html'}\n")
    assert "Block by block" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("put", "says"),
    [
        (None, "has no report.json. Name the folder that vitexport wrote"),
        (b"{}", "is not a report this version reads"),
        (b"\xff\xfe", "is not a report this version reads"),
        (
            b'{"schema_version": 2}',
            "this version reads (another version of vitexport wrote it: its schema_version is 2, and",
        ),
    ],
)
def test_what_is_no_report_is_said(tmp_path: Path, put: bytes | None, says: str) -> None:
    if put is not None:
        (tmp_path / "report.json").write_bytes(put)
    with pytest.raises(BadRequest, match=re.escape(says)):
        stored.read(tmp_path)


def test_what_lies_beside_a_report_is_shown_only_if_it_is_what_it_is_called(tmp_path: Path) -> None:
    folder = home(tmp_path, written.report())
    (folder / "proof.png").write_bytes(b"<svg onload=alert(1)>")
    (folder / "diff.json").write_bytes(b"[1]")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "manifest.json").write_bytes(b"[]")
    found = stored.read(folder)
    assert (found.proof, found.traces, found.manifests) == (None, (), ())
    stranger = replace(written.trace(found.report.results[0]), model="another model")
    (folder / "diff.json").write_bytes(encode((stranger,)))
    assert stored.read(folder).traces == ()


def test_a_report_without_results_or_figures_is_still_a_page(tmp_path: Path) -> None:
    nothing = written.unrun(written.result("onnx", "fp32"), "no runtime")
    html = page.render(stored.read(home(tmp_path, written.report(nothing)))).decode()
    assert "no runtime" in html
    empty = replace(written.report(), results=())
    assert b"0 passed, 0 failed, 0 not run" in page.render(stored.read(home(tmp_path, empty)))


def test_infinite_and_missing_figures_do_not_break_the_plots(tmp_path: Path) -> None:
    good = written.result("onnx", "fp32")
    odd = (
        replace(good, parity=replace(good.parity, snr_db=float("nan"), drift=float("inf"))),
        replace(good, latency=Measurement("passed", "A processor", "runtime", "cpu", median_ms=0.0, runs=1)),
        replace(good, precision="x", files=()),
        replace(
            good, precision="y", latency=Measurement("passed", "A", "r", "cpu", median_ms=1.0, times_ms=(0.0, 1.0))
        ),
    )
    assert b"</html>" in page.render(stored.Stored(tmp_path, written.report(*odd)))


def test_marks_keep_inside() -> None:
    for plot in plots.scatters(written.report()):
        assert all(0 <= p.x <= 100 and 0 <= p.y <= axes.HEIGHT for p in plot.points)
        assert any(p.failed for p in plot.points)


@browser_test
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_labels_lie_on_no_mark_and_on_no_label(chromium: Browser, tmp_path: Path, viewport: dict[str, int]) -> None:
    near = (("onnx", 22_930_000, 111.9), ("webgpu", 22_935_000, 111.7), ("tflite", 23_300_000, 109.0))
    report = written.report(*written.every_kind(), *(sized(*each) for each in near))
    with demo_page.fresh_page(chromium, viewport=viewport) as visitor:
        opened(visitor, home(tmp_path, report))
        boxes = visitor.locator("section[aria-labelledby=accuracy] figure").evaluate_all(
            """all => all.map(plot => [...plot.querySelectorAll('use.mark, text:not(.tick)')].map(each => {
                const { left, right, top, bottom } = each.getBoundingClientRect();
                return { what: each.textContent, left, right, top: top + 1, bottom: bottom - 1 };
            }))"""
        )
    for plot in boxes:
        labels = [box for box in plot if box["what"]]
        assert len(labels) > 5
        assert [(a["what"], b["what"]) for a in labels for b in plot if a is not b and over(a, b)] == []


def sized(target: str, size: int, snr_db: float) -> Result:
    made = written.result(target, "fp32")
    files = (replace(made.files[0], bytes=size),)
    return replace(made, precision="fp32b", files=files, parity=replace(made.parity, snr_db=snr_db, agreement=0.9991))


def over(a: dict[str, float], b: dict[str, float]) -> bool:
    return a["left"] < b["right"] and b["left"] < a["right"] and a["top"] < b["bottom"] and b["top"] < a["bottom"]


def test_an_axis_of_a_share_ends_where_a_share_does() -> None:
    good = written.result("onnx", "fp32")
    others = (replace(good, precision=str(a), parity=replace(good.parity, agreement=a)) for a in (0.9993, 0.0001))
    for first in others:
        (_, agreement) = plots.scatters(written.report(good, first))
        assert all(0 <= float(tick.label) <= 1 for tick in agreement.y_ticks)


def test_the_plots_show_what_was_measured() -> None:
    (snr, agreement) = plots.scatters(written.report())
    by_size = sorted(snr.points, key=lambda p: p.x)
    assert by_size[0].says == "onnx w4 224x224: 3,580,000 bytes, 3.2 dB, failed"
    assert by_size[0].y > by_size[-1].y  # smaller and further from PyTorch: lower
    assert agreement.points[-1].says == "onnx w4 224x224: 3,580,000 bytes, 0.4000, failed"
    groups = plots.latencies(written.report())
    assert [(g.device, bool(g.stand_in)) for g in groups] == [
        ("A processor", False),
        ("A processor (WebAssembly, 1 thread)", False),
        ("Pixel 9", False),
        ("google swiftshader", True),
    ]
    strip = groups[0].strips[0]
    assert len(strip.runs) == 30
    assert min(strip.runs) <= strip.median <= max(strip.runs) < strip.cold


# ----------------------------------------------------------------------------------------------------- the same again


@pytest.mark.parametrize(
    "request_made",
    [
        ExportRequest(model="vit_small"),
        ExportRequest(model="-odd name; rm -rf $HOME", out="-o", targets=("onnx", "tflite"), weights="-w"),
        ExportRequest(
            model="m.py:net", sizes=(Size(144, 256), Size(224, 224)), pad_size=True, pos_embed_rule="hf",
            weights_size=Size(96, 96), patch_size=8, frames=16, frame_stride=2, precisions=("fp32", "w8a8"),
            weights="random", task="features", images="my photos", calibration="c", observer="entropy", out="a b",
            force=True, seed=7, dynamic=("batch", "size"), runtime="none", max_file_bytes=25 * 2**20, max_drop=0.25,
            plan="plan.json", require_proof=True, require_device=True, coreml_target="ios18", image_input=True,
            layout="ane",
        ),
        ExportRequest(model="m", image_input=False),
    ],
    ids=["plain", "hostile", "everything", "tensor"],
)  # fmt: skip
def test_the_command_makes_the_same_request(request_made: ExportRequest) -> None:
    words = shlex.split(again.command(request_made))
    assert words[0] == "vitexport"
    assert cli._request(cli._export_parser().parse_args(words[1:])) == request_made
