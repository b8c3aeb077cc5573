"""What a .tflite costs beside plain ``litert_torch.convert`` and runs at beside others, and each precision's figures.

Part of ``make bench``. Whole processes and single inferences alternate; ratios above 1 mean that ours takes more. All
inferences are on one thread. ``--table`` prints the precisions alone, as Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench_export import BIN, Cost, cost
from vitexport import ExportRequest, capture, models, parity, photos, toolchain
from vitexport.errors import LoweringFailed
from vitexport.preprocess import preprocess
from vitexport_targets.tflite import lowering, quantisation, signature

MODEL = "vit_small_patch16_224"

PLAIN = """
from vitexport import torchvision_schemas
torchvision_schemas.declare()
import litert_torch, timm, torch
module = timm.create_model({model!r}, pretrained=False).eval()
litert_torch.convert(module, (torch.zeros(1, 3, 224, 224),)).export({out!r})
"""

#: Model -> its weights: random, trained by others, random, trained by this project.
NETWORKS = {"vit_tiny": "random", "vit_small": "random", "selfie": "pretrained", "vit_tiny_seg": "random",
            "digits_vit_tiny": "pretrained"}  # fmt: skip

Runner = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="whole-process repetitions of each (default: 3)")
    parser.add_argument("--runs", type=int, default=30, help="inference pairs (default: 30)")
    parser.add_argument("--table", action="store_true", help="the table of precisions alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not asked.table:
            compare(Path(folder), asked.rounds, asked.runs)
        table(asked.runs)


def compare(work: Path, rounds: int, runs: int) -> None:
    ours: list[Cost] = []
    plain: list[Cost] = []
    code = PLAIN.format(model=MODEL, out=str(work / "plain.tflite"))
    command = [BIN / "vitexport", "--model", "vit_small", "--weights", "random", "--precision", "fp32"]
    for _ in range(rounds):
        ours.append(cost([*command, "--target", "tflite", "--out", work / "ours", "--force"]))
        plain.append(cost([sys.executable, "-c", code]))
    cost([*command, "--target", "onnx", "--out", work / "onnx", "--force"])
    steps = json.loads((work / "ours" / "report.json").read_text())["steps_s"]
    print(f"\n{'ViT-Small to .tflite':<40}{'vitexport':>12}{'beside':>13}{'ratio':>8}")
    for name, field in (("whole process, s: litert_torch", "seconds"), ("peak memory, MiB: litert_torch", "peak_mib")):
        mine, theirs = (statistics.median(getattr(c, field) for c in costs) for costs in (ours, plain))
        print(f"{name:<40}{mine:>12,.1f}{theirs:>13,.1f}{mine / theirs:>8.2f}")
    print("of ours: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.items()))
    picture = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    mine = interpreted(work / "ours/tflite/model_fp32.tflite", picture)
    beside("latency, ms: plain litert_torch", mine, interpreted(work / "plain.tflite", picture), runs)
    beside("latency, ms: ONNX Runtime", mine, in_onnxruntime(work / "onnx/onnx/onnx/model.onnx", picture), runs)
    cost(
        [BIN / "vitexport", "--model", "selfie", "--target", "tflite", "--precision", "fp32", "--out", work / "selfie"]
    )
    file = toolchain.npm_package("@mediapipe/selfie_segmentation", "")[0] / "selfie_segmentation.tflite"
    photo = np.random.default_rng(0).random((1, 256, 256, 3), np.float32)
    own = interpreted(work / "selfie/tflite/model_fp32.tflite", photo)
    beside("latency of selfie, ms: MediaPipe's own", own, interpreted(file, photo), runs)


def beside(name: str, ours: Runner, theirs: Runner, runs: int) -> None:
    mine, others = interleaved([ours, theirs], runs)
    ratio = statistics.median(a / b for a, b in zip(mine, others, strict=True))
    print(f"{name:<40}{statistics.median(mine):>12,.2f}{statistics.median(others):>13,.2f}{ratio:>8.2f}")


def interleaved(runners: Sequence[Runner], runs: int) -> list[list[float]]:
    """Milliseconds of each, taking turns so that a busy neighbour slows all."""
    times: list[list[float]] = [[] for _ in runners]
    for turn in range(runs + 2):
        for run, kept in zip(runners, times, strict=True):
            start = time.perf_counter()
            run()
            if turn > 1:
                kept.append((time.perf_counter() - start) * 1000)
    return times


def interpreted(file: Path | bytes, value: np.ndarray) -> Runner:
    from ai_edge_litert.interpreter import Interpreter

    how: dict[str, Any] = {"model_content": file} if isinstance(file, bytes) else {"model_path": str(file)}
    interpreter = Interpreter(**how, num_threads=1)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    answers = interpreter.get_output_details()

    def run() -> list[np.ndarray]:
        interpreter.set_tensor(given["index"], value.reshape(given["shape"]))
        interpreter.invoke()
        return [interpreter.get_tensor(answer["index"]) for answer in answers]

    return run


def in_onnxruntime(file: Path, value: np.ndarray) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"pixel_values": value})


def table(runs: int) -> None:
    print("\n| network | precision | bytes | SNR dB | agreement | latency ratio to fp32 |\n|---|---|---|---|---|---|")
    for model, weights in NETWORKS.items():
        request = ExportRequest(model=model, weights=weights)
        source = capture.capture(models.build(request), model, photos.probes(None))
        interface = [signature.chosen(source, request, ladder=False)]
        whole = lowering.convert([source], interface)
        for name in ("fp32", *quantisation.RECIPES):
            try:
                made = quantisation.quantised(whole, name, [source], interface)
            except LoweringFailed as refusal:
                print(
                    f"| `{model}` ({weights}) | {name} | refused: {str(refusal).partition(': ')[2].partition(',')[0]} |"
                )
                continue
            found = figures(source, interface[0], whole, made, runs)
            print(f"| `{model}` ({weights}) | {name} | {len(made):,} | {found} |")


def figures(source: Any, interface: Any, whole: bytes, made: bytes, runs: int) -> str:
    how, (output, *_) = source.preprocessing, source.outputs
    snr, agreed = [], []
    for probe in source.probes:
        value = preprocess(probe.image, how)
        true = source.forward(value)[output.name]
        given = value if interface.feed == "nchw" else np.ascontiguousarray(value.transpose(0, 2, 3, 1))
        run = interpreted(made, given)
        answer = signature._as_pytorch(run()[0], output)
        snr.append(parity.snr_db(answer, true, output.meaning))
        agreed.append(parity.agreement(answer, true, output))
    mine, float32 = interleaved([run, interpreted(whole, given)], runs)
    ratio = statistics.median(a / b for a, b in zip(mine, float32, strict=True))
    return f"{min(snr):.1f} | {np.mean(agreed):.4f} | {ratio:.2f}"


if __name__ == "__main__":
    main()
