"""What a person reads at the end says everything, on whatever it is read."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest

import written_reports as written
from vitexport.contract import FileEntry, Measurement, Parity, Placement, Result, Size
from vitexport.reports.cells import milliseconds
from vitexport.reports.table import render


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize("stream", [Terminal, StringIO])
def test_no_figure_is_cut_off_however_narrow_the_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: type[StringIO], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    parity = Parity("failed", drift=1.2e-3, snr_db=61.5, agreement=0.9876, reason="drift of output 'logits' is 0.0012")
    latency = Measurement("passed", "a GPU", "runtime 1.0", "webgpu", 1.0, 1234.5, 98.7, 99.9, 30)
    files = (FileEntry("webgpu/model_fp32.onnx", 123_456_789, "0"),)
    written = stream()
    render([Result("m", "reference", "fp16", "webgpu", Size(1024, 2048), files, parity, latency)], written)
    for figure in ("1024x2048", "123,456,789", "1.2e-03", "61.5", "0.9876", "1,234", "98.7", "99.9", "failed", "a GPU"):
        assert figure in written.getvalue()
    assert "…" not in written.getvalue()


@pytest.mark.parametrize(
    ("provider", "placement", "said"),
    [
        ("webgpu", Placement({"WebGpuExecutionProvider": 9, "CPUExecutionProvider": 1}, ("Cast (a)",)), "1 node fell"),
        ("interpreter", Placement({"xnnpack": 9, "cpu": 2}, ("CAST (a)", "CAST (b)")), "2 nodes fell"),
        ("webgpu", Placement({"webgpu": 69, "xnnpack": 52}, ("RESHAPE: rank 5",)), "52 nodes fell"),
    ],
)
def test_nodes_that_fell_back_are_counted(provider: str, placement: Placement, said: str) -> None:
    """LiteRT's GPU delegate names a kind once, however many it leaves."""
    stream = StringIO()
    render([written.result("webgpu", "fp32", provider, placement=placement)], stream)
    assert f"; {said} back to the CPU: {placement.fallback[0]}" in " ".join(stream.getvalue().split())


def test_what_was_judged_is_told_and_what_decides_nothing_is_in_brackets() -> None:
    held = written.result("coreml", "w8", "evaluator")
    held = replace(held, parity=replace(held.parity, metric="noise", tolerance=0.1))
    said = StringIO()
    render([written.result("onnx", "fp32"), held], said)
    for figure in (" 2.5e-06 ", "(111.9)", "(5.1e-02)", " 25.9 "):
        assert figure in said.getvalue()
    assert (
        "Judged: drift <= 5.0e-01 for onnx fp32; SNR >= 20.0 dB for coreml w8. In brackets: what decides nothing.\n"
        in (said.getvalue())
    )


def test_times_are_told_to_three_digits_however_short() -> None:
    told = {0.0001: "0.000100", 0.088: "0.0880", 0.0704: "0.0704", 3.214: "3.21", 9.996: "10.0", 98.7: "98.7"}
    told |= {99.96: "100", 1234.6: "1,235", 0.0: "0"}
    assert {ms: milliseconds(ms) for ms in told} == told
    assert milliseconds(None) == "–"
    said = StringIO()
    render([replace(written.result("tflite", "fp32"), latency=written.measured(0.07))], said)
    head, row, note, *_ = said.getvalue().splitlines()
    assert head.split()[-5:] == ["ms", "p90", "ms", "device", "verdict"]
    assert row.split()[-5:] == ["0.210", "0.0702", "0.0732", "[1]", "passed"]
    assert note == "[1] A processor, runtime 1.0, cpu, 30 runs, load 12.0 ms, p99 0.0735 ms"


def test_devices_are_named_in_the_rows_where_a_table_has_several() -> None:
    made = written.result("webgpu", "fp32", "webgpu")
    names = ("Pixel 9", "the one of them that lies in the second drawer")
    phones = (written.on_phone(made, name) for name in names)
    said = StringIO()
    render([made, *phones], said)
    for words in ("  the host [1] ", "  Pixel 9 [2] ", "  the one of them that ... [3] "):
        assert words in said.getvalue()
    alone = StringIO()
    render([made], alone)
    assert "the host" not in alone.getvalue()
