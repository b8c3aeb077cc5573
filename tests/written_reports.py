"""Reports as exports write them, made up: every verdict, what stands in for a device, and texts that mean harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vitexport.contract import (
    ExportRequest,
    FileEntry,
    Gate,
    Measurement,
    Parity,
    Placement,
    Provenance,
    Report,
    Result,
    Size,
)
from vitexport.diff.trace import Row, Trace

SMALL, LARGE = Size(224, 224), Size(384, 256)

#: What a model card, a file's name or a device may call itself.
HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)>"\'&|`*_[x](http://h)\n@you #1 ]]> {{ 7*7 }} \u202e'

#: As vitexport.spread says it, after what else there is to say.
WIDE = "low-power mode is on; wide spread: the median is 21.9 to 24.1 ms (95% confidence)"

#: Bytes of each precision's file.
BYTES = {"fp32": 22_930_000, "fp16": 11_630_000, "w8": 6_250_000, "w8a8": 6_520_000, "w4": 3_580_000}
SNR = {"fp32": 111.9, "fp16": 55.9, "w8": 25.9, "w8a8": 21.5, "w4": 3.2}


def measured(median: float, device: str = "A processor", runtime: str = "runtime 1.0", runs: int = 30) -> Measurement:
    """Runs that spread by 5 %, the same whenever they are made."""
    times = tuple(float(ms) for ms in median * (1 + 0.05 * np.sin(np.arange(runs))))
    middle = float(np.median(times))
    p90, p99 = (float(np.percentile(times, percent)) for percent in (90, 99))
    return Measurement(
        "passed", device, runtime, "cpu", 12.0, median * 3, middle, p90, runs, times, p99, peak_memory_bytes=92_000_000
    )


def result(target: str, precision: str, provider: str = "cpu", size: Size = SMALL, **changed: object) -> Result:
    snr = SNR[precision]
    made = Result(
        "a model",
        target,
        precision,
        provider,
        size,
        (FileEntry(f"{target}/model_{precision}.bin", BYTES[precision], "ab" * 32),),
        Parity(
            "passed", 10 ** (-snr / 20), 0.5, "drift", snr, 0.9999, 1.0, images=5, contrast=0.8, runtime="runtime 1.0"
        ),
        measured(40.0 if precision.startswith("fp") else 20.0),
        device_verdict="passed",
    )
    return replace(made, **changed)  # type: ignore[arg-type]  # fields of any type, by name


def failed(made: Result, reason: str) -> Result:
    parity = replace(made.parity, verdict="failed", agreement=0.4, reason=reason)
    latency = Measurement("not run", reason="parity failed")
    return replace(made, parity=parity, latency=latency, device_verdict="failed", device_reason=reason)


def unrun(made: Result, reason: str) -> Result:
    return replace(
        made,
        parity=Parity("not run", reason=reason),
        latency=Measurement("not run", reason=reason),
        device_verdict="not run",
        device_reason=reason,
    )


def emulated(made: Result) -> Result:
    """By an adapter that emulates a GPU."""
    latency = measured(3200.0, "google swiftshader (software adapter, not a device figure)", "in a browser", 3)
    why = "needs the hardware itself: software stood in for it"
    return replace(made, latency=latency, device_verdict="not run", device_reason=why)


def evaluated(made: Result) -> Result:
    """By an evaluator of files, as Core ML packages are off a Mac."""
    gates = (Gate("B", "every operation equal", "passed", 118.2, 110.0, "dB"), Gate("types", "equal", "passed"))
    return replace(
        made,
        parity=replace(made.parity, runtime="an evaluator", gates=gates),
        latency=Measurement("not run", reason="needs macOS or iOS"),
        device_verdict="not run",
        device_reason="needs macOS or iOS",
    )


def timed(made: Result, device: str) -> Result:
    """On a device, by a tool that tells no answers."""
    why = "it tells no answers"
    parity = Parity("not run", reason=why, runtime=f"LiteRT 2 on {device}")
    latency = measured(9.0, device, "LiteRT 2")
    return replace(made, parity=parity, latency=latency, device_verdict="not run", device_reason=why)


def on_phone(made: Result, device: str = "Pixel 9", runtime: str = "ORT in Chrome 140") -> Result:
    """As a device's own figures are filed, under its name."""
    parity = replace(made.parity, runtime=f"{runtime} on {device}")
    if not made.latency.device:
        return replace(made, parity=parity)
    return replace(made, parity=parity, latency=replace(made.latency, device=device, runtime=runtime))


def report(*results: Result, **changed: object) -> Report:
    made = Report(
        1,
        "0.1.0",
        ExportRequest(model="a model", targets=("onnx",), precisions=("fp32", "fp16"), out="made by/us"),
        "made by/us",
        Provenance("random (seed 0)", "Apache-2.0", "cd" * 32),
        {"cpu": "A processor", "cores": "2"},
        {"capture": 3.25, "lower": 12.5},
        results or every_kind(),
        ("w8: blocks.3 stays float",),
    )
    return replace(made, **changed)  # type: ignore[arg-type]  # fields of any type, by name


def every_kind() -> tuple[Result, ...]:
    fell_back = Placement({"cpu": 2, "gpu": 40}, ("Attention (blocks.0)", "Cast (blocks.1)"))
    return (
        *(result("onnx", precision, size=size) for size in (SMALL, LARGE) for precision in ("fp32", "fp16", "w8")),
        failed(result("onnx", "w4"), "noise is 0.7, and 0.5 passes"),
        emulated(result("webgpu", "fp32", "webgpu", placement=fell_back)),
        unrun(result("webgpu", "fp16", "webgpu"), "adapter has no shader-f16"),
        result("webgpu", "fp16", "wasm", latency=measured(55.0, "A processor (WebAssembly, 1 thread)", "in a browser")),
        *(evaluated(result("coreml", precision, "evaluator")) for precision in ("fp16", "w8")),
        result("tflite", "fp32", "interpreter"),
        result("tflite", "w8a8", "interpreter", latency=replace(measured(22.0), warning=WIDE)),
        timed(result("tflite", "w8a8", "xnnpack"), "Pixel 9"),
    )


def hostile() -> Report:
    """``HOSTILE`` wherever a report holds a text that is not ours."""
    gate = Gate(HOSTILE, HOSTILE, "failed", 1.0, 2.0, HOSTILE, HOSTILE)
    bad = result(HOSTILE, "fp32", HOSTILE, placement=Placement({HOSTILE: 1}, (HOSTILE,)))
    bad = replace(bad, model=HOSTILE, files=(FileEntry(HOSTILE, 10, HOSTILE),), device_reason=HOSTILE)
    bad = replace(bad, parity=replace(bad.parity, gates=(gate,), runtime=HOSTILE))
    bad = replace(bad, latency=replace(measured(5.0, HOSTILE, HOSTILE), warning=HOSTILE))
    return report(
        bad,
        failed(bad, HOSTILE),
        unrun(bad, HOSTILE),
        request=ExportRequest(model=HOSTILE, out=HOSTILE),
        out=HOSTILE,
        provenance=Provenance(HOSTILE, HOSTILE, HOSTILE),
        host={HOSTILE: HOSTILE},
        steps_s={HOSTILE: 1.0},
        notes=(HOSTILE,),
    )


def trace(of: Result) -> Trace:
    """Of twelve blocks, the seventh of which is bad."""
    snr = [70.0, 68, 67, 66, 65.5, 65, 64, 31, 30.5, 30, 29.8, 29.5, 29]
    rows = tuple(
        Row(f"blocks.{index}", True, "same", f"value_{index}", db, 70.0 if index != 7 else 31.0, 70.0, 1e-3, 0.999)
        for index, db in enumerate(snr)
    )
    finding = "SNR falls from 64.0 dB after blocks.6 to 31.0 dB after blocks.7. It is its own."
    return Trace(of.model, of.target, of.precision, of.provider, of.size, "runtime 1.0", "blocks.7", finding, rows)
