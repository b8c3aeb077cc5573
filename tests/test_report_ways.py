"""What was not run has a command that would run it, wherever one would, and none where none would."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import written_reports as written
from vitexport.commands import COMMANDS, bench
from vitexport.contract import Parity, Result
from vitexport.manifest import encode
from vitexport.reports import markdown, page, stored, table, ways

BROWSER = "vitexport bench exports/selfie/webgpu --device browser --lan"
ADB = "vitexport bench exports/selfie/tflite --device adb --benchmark-model PATH"
IOS = "vitexport bench exports/selfie/coreml --device ios --team ID"
CHECK = "vitexport check exports/selfie/tflite"

NO_HALF = written.unrun(written.result("webgpu", "fp16", "webgpu"), "adapter has no shader-f16")
EVALUATED = written.evaluated(written.result("coreml", "fp16", "evaluator"))


def on(device: str, made: Result) -> Result:
    """As a device filed it that is not this machine."""
    parity = replace(made.parity, runtime=f"runtime 1.0 on {device}")
    return replace(made, parity=parity, latency=written.measured(4.0, device))


def timed_here(provider: str) -> Result:
    """As ``vitexport bench`` files it."""
    unproven = Parity("not run", reason="bench measures latency; vitexport check proves parity")
    return replace(written.result("tflite", "fp32", provider), parity=unproven, device_verdict="not run")


def commands(*results: Result) -> list[str]:
    return [way.command for way in ways.all_of(written.report(*results, out="exports/selfie"))]


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (written.result("onnx", "fp32"), []),
        (NO_HALF, [BROWSER]),
        (written.emulated(written.result("webgpu", "fp32", "webgpu")), [BROWSER]),
        (on("Pixel 9", NO_HALF), [BROWSER]),
        (EVALUATED, [IOS, "vitexport check exports/selfie/coreml"]),
        (written.emulated(written.result("tflite", "fp32", "webgpu")), [ADB, CHECK]),
        (written.unrun(written.result("tflite", "fp32", "wasm"), "'litertjs' is not installed. Run: npm"), [CHECK]),
        (written.unrun(written.result("tflite", "w8a8", "webgpu"), "the delegate computes w8a8 wrongly"), []),
        (written.unrun(written.result("tflite", "fp32", "tflite-runtime"), "it refuses it: a newer operator"), []),
        (timed_here("interpreter"), [CHECK]),
        (timed_here("a provider of this machine"), []),
        (written.failed(written.result("onnx", "w4"), "noise is 0.7"), []),
        (written.unrun(written.result("somebody's", "fp32"), "no runtime"), []),
    ],
    ids=[
        "all run", "no float16", "emulated", "a phone without float16", "evaluated", "LiteRT.js emulated",
        "not installed", "wrong anywhere", "too old", "timed by bench",
        "timed on what is proven nowhere", "failed", "a plug-in that is not here",
    ],
)  # fmt: skip
def test_what_would_run_it_is_named(result: Result, wanted: list[str]) -> None:
    assert commands(result) == wanted


def test_what_a_device_has_run_needs_no_device() -> None:
    assert commands(NO_HALF, on("Pixel 9", written.result("webgpu", "fp16", "wasm"))) == [BROWSER]
    assert commands(NO_HALF, on("Pixel 9", written.result("webgpu", "fp16", "webgpu"))) == []
    assert IOS not in commands(EVALUATED, on("iPhone 16", written.result("coreml", "fp16", "cpu_and_ne")))


def test_bench_takes_what_is_named() -> None:
    for command in (BROWSER, ADB, IOS):
        asked = bench._parser().parse_args(shlex.split(command)[2:])
        assert asked.device in ("browser", "adb", "ios")


def test_what_made_the_rows_of_devices_is_named_for_each_way_they_came_in(tmp_path: Path) -> None:
    web = written.result("webgpu", "fp16", "wasm")
    driven = on("iPhone 16", written.result("coreml", "fp16", "cpu_only"))
    driven = replace(driven, parity=replace(driven.parity, runtime="Core ML, driven by coremltools on iPhone 16"))
    report = written.report(
        written.result("onnx", "fp32"),
        *(on(device, web) for device in ("Pixel 9", "Galaxy S24")),
        on("Pixel 9", written.result("tflite", "fp32", "xnnpack")),
        driven,
        on("iPad", written.result("coreml", "fp16", "all")),
        out="exports/selfie",
    )
    named = ways.of_devices(report)
    assert [(way.where, way.command) for way in named] == [
        ("What ran on Pixel 9, Galaxy S24", f"{BROWSER} --devices 2"),
        ("What ran on Pixel 9", ADB),
        ("What ran on iPhone 16", IOS),
        ("What ran on iPad", "vitexport report exports/selfie --add FILE"),
    ]
    html, said = page.render(stored.Stored(tmp_path, report)).decode(), markdown.report(report)
    again = html[html.index('id="again"') :]
    assert [way.command for way in named if way.command not in again or way.command not in said] == []
    assert ways.of_devices(written.report(web)) == ()


def test_names_that_devices_were_given_are_given_again() -> None:
    web = on("the old phone", written.result("webgpu", "fp16", "wasm"))
    web = replace(web, latency=replace(web.latency, facts={"model": "Pixel 4"}))
    (way,) = ways.of_devices(written.report(web, out="exports/selfie"))
    assert way.command == f"{BROWSER} --name 'the old phone'"


def test_the_page_markdown_and_the_terminal_name_the_same(tmp_path: Path) -> None:
    report = written.report(out="exports/selfie")
    named = [way.command for way in ways.all_of(report)]
    assert len(named) == 4  # browser; ios, and check on a Mac; adb
    ours = written.report(*(r for r in report.results if r.verdict != "failed"), out="exports/selfie")
    shown = {
        "page": page.render(stored.Stored(tmp_path, report)).decode(),
        "Markdown": markdown.report(report),
        "terminal": table.summary(ours),
    }
    assert {(where, each): each in said for where, said in shown.items() for each in named} == {
        (where, each): True for where in shown for each in named
    }


def test_the_report_command_tells_the_rest_below_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_bytes(encode(written.report(NO_HALF, out="exports/selfie")))
    assert COMMANDS["report"]([str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith(
        "What was not run, or was stood in for, would run so:\n"
        f"  On a phone, or whatever else has a browser: {BROWSER}\n"
    )


def test_the_next_command_takes_the_whole_export(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "webgpu").mkdir(parents=True)
    (out / "webgpu" / "index.html").touch()
    both = written.result("onnx", "fp32"), written.result("webgpu", "fp32", "wasm")
    assert table.summary(written.report(*both, out=str(out))).endswith(f"\nNext: vitexport preview {out}")
    alone = written.report(both[0], written.result("tflite", "fp32", "interpreter"), out=str(out))
    assert table.summary(alone).endswith(f"\nNext: vitexport bench {out}")
