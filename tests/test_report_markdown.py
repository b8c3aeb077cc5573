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
        assert (shown["on"], shown["bytes"]) == (cell.result.provider, f"{cell.bytes:,}")
        assert shown["median ms"] == cells.milliseconds(cell.result.latency.median_ms)


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


def test_texts_that_mean_harm_stay_texts() -> None:
    report = written.hostile()
    for said in (markdown.report(report), markdown.comparison(compare.compare(report, report, compare.Allowed()))):
        html = rendered(said)
        assert len({len(row) for row in rows_of(html)}) == 1
        assert not re.findall(r"<(script|img|a|h[12])\b", html)
        assert not re.findall(r"@you|#1\b|://h|\u202e", html)
        assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;" in html


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_bytes(encode(written.report()))
    assert COMMANDS["report"]([str(tmp_path), "--markdown"]) == 0
    assert capsys.readouterr().out == markdown.report(written.report())
