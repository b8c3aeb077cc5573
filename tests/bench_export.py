"""`make bench`: what an export costs, and what its file runs at, beside Optimum's on the same machine in the same run.

Both export the same ViT-Small (22 M parameters, 224 px, a transformers checkpoint written here with random weights) to
ONNX. Ours captures, lowers, simplifies, proves on five pictures and times the result; Optimum's exports and validates
on random noise. Whole processes, alternating, median; ratios above 1 mean that ours takes more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BIN = Path(sys.executable).parent

#: `optimum-cli`, with the torchvision of this environment made importable first (see torchvision_schemas).
OPTIMUM_CLI = """
import sys
from vitexport import torchvision_schemas
torchvision_schemas.declare()
from optimum.commands.optimum_cli import main
sys.argv[0] = "optimum-cli"
main()
"""


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="whole-process repetitions of each (default: 3)")
    parser.add_argument("--runs", type=int, default=30, help="inference pairs (default: 30)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_checkpoint(work / "checkpoint")
        ours, optimum = export_both(work, asked.rounds)
        latency = interleaved(work / "ours/onnx/onnx/model.onnx", work / "optimum/model.onnx", asked.runs)
        report(ours, optimum, latency, work)


def write_checkpoint(folder: Path) -> None:
    """ViT-S/16 as transformers spells it. In a process of its own, so that ours stays small."""
    code = f"""
import torch
from vitexport import torchvision_schemas
torchvision_schemas.declare()
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
torch.manual_seed(0)
config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=1000,
                   initializer_range=0.08)
ViTForImageClassification(config).save_pretrained({str(folder)!r})
ViTImageProcessor().save_pretrained({str(folder)!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def export_both(work: Path, rounds: int) -> tuple[list[Cost], list[Cost]]:
    ours, optimum = [], []
    checkpoint = str(work / "checkpoint")
    for _ in range(rounds):
        command = [BIN / "vitexport", "--model", checkpoint, "--target", "onnx", "--out", work / "ours", "--force"]
        ours.append(cost(command))
        task = ["--task", "image-classification"]
        optimum.append(
            cost([sys.executable, "-c", OPTIMUM_CLI, "export", "onnx", "--model", checkpoint, *task, work / "optimum"])
        )
    return ours, optimum


def cost(command: Sequence[str | Path]) -> Cost:
    """Wall seconds and peak resident memory of a whole process."""
    start = time.perf_counter()
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{output.decode()}")
    return Cost(seconds, usage.ru_maxrss / 1024)


def interleaved(ours: Path, theirs: Path, runs: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each, one thread, taking turns so that a busy neighbour slows both."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = [
        onnxruntime.InferenceSession(str(p), options, providers=["CPUExecutionProvider"]) for p in (ours, theirs)
    ]
    feed = {"pixel_values": np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)}
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for session, kept in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, feed)
            if turn:  # the first is the cold one
                kept.append((time.perf_counter() - start) * 1000)
    return times


def report(ours: list[Cost], optimum: list[Cost], latency: tuple[list[float], list[float]], work: Path) -> None:
    def median(costs: list[Cost], field: str) -> float:
        return statistics.median(getattr(c, field) for c in costs)

    rows = [
        ("export, whole process, s", median(ours, "seconds"), median(optimum, "seconds")),
        ("export, peak memory, MiB", median(ours, "peak_mib"), median(optimum, "peak_mib")),
        ("ONNX Runtime CPU, 1 thread, ms", statistics.median(latency[0]), statistics.median(latency[1])),
    ]
    print(f"\n{'ViT-Small to ONNX':<34}{'vitexport':>12}{'optimum-cli':>13}{'ratio':>8}")
    for name, mine, theirs in rows:
        print(f"{name:<34}{mine:>12,.1f}{theirs:>13,.1f}{mine / theirs:>8.2f}")
    ratios = sorted(a / b for a, b in zip(*latency, strict=True))
    quarter = len(ratios) // 4
    print(f"latency ratio pair by pair: median {statistics.median(ratios):.2f}", end="")
    print(f", middle half {ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f}")
    steps = json.loads((work / "ours" / "report.json").read_text())["steps_s"]
    print("of ours: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.items()))
    best = min(cost([BIN / "vitexport", "--help"]).seconds for _ in range(5))
    print(f"vitexport --help: {best:.2f} s (best of 5)")


if __name__ == "__main__":
    main()
