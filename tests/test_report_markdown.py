"""The table of a pull request: what GitHub makes of it is the report, whatever the report's texts are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import written_reports as written
from vitexport.commands import COMMANDS
from vitexport.manifest import encode
from vitexport.reports import cells, compare, markdown
from vitexport.reports.file import device_of


def rendered(said: str) -> str:
    """As GitHub renders it, HTML let through: what is escaped must be so in the Markdown itself."""
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(said))


def rows_of(html: str) -> list[list[str]]:
    return [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    ]


def test_every_result_is_a_row_of_one_table() -> None:
    report = written.report()
    head, *body = rows_of(rendered(markdown.report(report)))
    assert len(body) == len(report.results)
    for row, cell in zip(body, cells.rows(report), strict=True):
        shown = dict(zip(head, row, strict=True))
        assert shown[""].endswith(cell.verdict)
        assert shown["variant"] == f"{cell.result.target} {cell.result.precision}"
        device = device_of(cell.result)
        assert (shown["on"], shown["bytes"]) == (
            cell.result.provider + (f", {device}" if device else ""),
            f"{cell.bytes:,}",
        )
        median = cells.milliseconds(cell.result.latency.median_ms)
        assert shown["median ms"] == (f"{median} ({cell.interval})" if cell.interval else median)


def test_what_did_not_run_and_what_stood_in_is_said() -> None:
    said = markdown.report(written.report())
    for each in ("adapter has no shader\\-f16", "no device's figure: needs macOS or iOS", "w8: blocks.3 stays float"):
        assert each in said
    assert len(said) < 4000


def test_what_was_judged_has_its_bound_beside_it() -> None:
    held = written.result("coreml", "w8", "evaluator")
    held = replace(held, parity=replace(held.parity, metric="noise", tolerance=0.1))
    head, *body = rows_of(rendered(markdown.report(written.report(written.result("onnx", "fp32"), held))))
    drift, noise = (dict(zip(head, row, strict=True)) for row in body)
    assert (drift["drift"], drift["SNR dB"]) == ("2.5e-06 (≤ 5.0e-01)", "<sub>111.9</sub>")
    assert (noise["drift"], noise["SNR dB"]) == ("<sub>5.1e-02</sub>", "25.9 (≥ 20.0)")


def test_notes_are_sentences_in_order_and_wide_spreads_are_figures_beside_their_medians() -> None:
    warned = [
        written.result("onnx", precision, latency=replace(written.measured(22.0), warning=warning))
        for precision, warning in (("fp32", written.WIDE), ("fp16", written.WIDE.partition("; ")[2]))
    ]
    said = markdown.report(written.report(*written.every_kind(), *warned))
    assert "1 not run, 1 timed. random \\(seed 0\\), Apache\\-2.0.\n" in said
    assert said.count("confidence") == 1
    head, *body = rows_of(rendered(said))
    rows = [dict(zip(head, row, strict=True)) for row in body]
    medians = [row["median ms"] for row in rows if row["median ms"].endswith("(21.9 to 24.1)")]
    assert len(medians) == 3
    assert rows[0]["p90 ms"] == cells.milliseconds(written.result("onnx", "fp32").latency.p90_ms)
    marks = [[int(mark) for mark in row["notes"].split(", ")] for row in rows]
    assert all(each == sorted(each) for each in marks)
    first_seen = list(dict.fromkeys(mark for each in marks for mark in each))
    assert first_seen == sorted(first_seen)
    assert "low\\-power mode is on" in said


def test_advice_is_not_what_was_done_otherwise_and_the_command_is_there() -> None:
    said = markdown.report(written.report())
    assert "Done otherwise" not in said
    assert "- `vitexport --model 'a model' --target onnx --precision fp32 --precision fp16 --out 'made by/us'`" in said


def test_texts_that_mean_harm_stay_texts() -> None:
    report = written.hostile()
    for said in (markdown.report(report), markdown.comparison(compare.compare(report, report, compare.Allowed()))):
        html = rendered(said)
        assert len({len(row) for row in rows_of(html)}) == 1
        assert not re.findall(r"<(script|img|a|h[12])\b", html)
        linked = re.sub(r"<code>.*?</code>", "", html)  # where GitHub makes no link of anything
        assert not re.findall(r"@you|#1\b|://h", linked)
        assert "\u202e" not in html
        assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;" in html


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_bytes(encode(written.report()))
    assert COMMANDS["report"]([str(tmp_path), "--markdown"]) == 0
    assert capsys.readouterr().out == markdown.report(written.report())
