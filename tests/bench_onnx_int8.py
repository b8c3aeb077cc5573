"""Our int8 ONNX files beside those of ``optimum-cli onnxruntime quantize``, of a network whose channels stand out.

Part of ``make bench``. Optimum quantises the float32 file of the same network as it is, and does so as its command line
does (dynamically, without pictures); ``evened out`` is Optimum's of the float32 file that ours are made of, whose
channels were evened out before. Ours are measured on pictures that the exam does not hold. Top-1 on 2,000 held-out
pictures; latency of single pictures on one thread, each beside Optimum's in turn, so that a busy neighbour slows both.
Ratios above 1 mean that a file takes more time than Optimum's.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import outliers
from bench_export import OPTIMUM_CLI
from vitexport import ExportRequest, export
from vitexport.contract import INPUT_NAME
from vitexport.digits import network, pictures
from vitexport.preprocess import preprocess
from vitexport.quantize.calibration import PICTURES
from vitexport_targets.onnx import _FILES

FACTORS = (60, 200)
OURS = ("w8-dyn", "w8a8")

#: File -> what it is made of, and the options.
THEIRS = {
    "Optimum": ("as it is", ("--avx2",)),
    "Optimum per channel": ("as it is", ("--avx2", "--per_channel")),
    "Optimum, evened out": ("evened out", ("--avx2",)),
    "Optimum per channel, evened out": ("evened out", ("--avx2", "--per_channel")),
}
BESIDE = ("Optimum", "Optimum per channel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="inference pairs (default: 100)")
    parser.add_argument("--pictures", type=int, default=2000, help="of the exam (default: 2000)")
    asked = parser.parse_args()
    images, digits = pictures.held_out(asked.pictures)
    inputs = [preprocess(image, network.preprocessing()) for image in images]
    columns = " | ".join(f"latency ratio to {name}" for name in BESIDE)
    print(f"\n| outliers | file | bytes | top-1 | ms | {columns} |\n|{'---|' * (5 + len(BESIDE))}", flush=True)
    for factor in FACTORS:
        with tempfile.TemporaryDirectory() as folder:
            files = made(factor, Path(folder))
            sessions = {name: opened(file) for name, file in files.items()}
            for name, file in files.items():
                ratios, ms = beside(name, sessions, inputs[0], asked.runs)
                right = np.mean([answer(sessions[name], each).argmax() for each in inputs] == digits)
                size = f"{file.stat().st_size:,}"
                print(f"| {factor} | {name} | {size} | {right:.2%} | {ms:.2f} | {' | '.join(ratios)} |", flush=True)


def made(factor: int, work: Path) -> dict[str, Path]:
    model, photos = f"{outliers.__file__}:by_{factor}", outliers.photos(work / "photos", PICTURES)
    asked = ExportRequest(
        model=model, targets=("onnx",), precisions=("fp32", *OURS), calibration=str(photos), out=str(work / "ours")
    )
    plain = replace(asked, precisions=("fp32",), calibration=None, out=str(work / "plain"))
    folder, as_it_is = (Path(export(each).out) / "onnx" for each in (asked, plain))
    files = {name: folder / _FILES[name] for name in OURS} | {"fp32": as_it_is / _FILES["fp32"]}
    for made_of, source in (("as it is", as_it_is), ("evened out", folder)):
        (work / made_of).mkdir()  # the command quantises every file of a folder
        shutil.copyfile(source / _FILES["fp32"], work / made_of / "model.onnx")
    for name, (made_of, options) in THEIRS.items():
        out = work / name
        command = [*("onnxruntime", "quantize", "--onnx_model"), str(work / made_of), *options, "-o", str(out)]
        done = subprocess.run([sys.executable, "-c", OPTIMUM_CLI, *command], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"optimum-cli {' '.join(command)} failed:\n{done.stderr}")
        (files[name],) = out.glob("*.onnx")
    return files


def opened(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def answer(session: Any, pixel_values: np.ndarray) -> np.ndarray:
    found: np.ndarray = session.run(None, {INPUT_NAME: pixel_values})[0]
    return found


def beside(name: str, sessions: dict[str, Any], picture: np.ndarray, runs: int) -> tuple[list[str], float]:
    """The ratio of its median time to each of Optimum's, measured in pairs, and its own median."""
    ratios, times = [], []
    for other in BESIDE:
        mine, others = interleaved([sessions[name], sessions[other]], picture, runs)
        times += mine
        ratios.append("" if name == other else f"{statistics.median(mine) / statistics.median(others):.2f}")
    return ratios, statistics.median(times)


def interleaved(sessions: list[Any], picture: np.ndarray, runs: int) -> list[list[float]]:
    """Milliseconds, taking turns. The first two of each are cold."""
    times: list[list[float]] = [[] for _ in sessions]
    for turn in range(runs + 2):
        for session, kept in zip(sessions, times, strict=True):
            start = time.perf_counter()
            answer(session, picture)
            if turn > 1:
                kept.append((time.perf_counter() - start) * 1000)
    return times


if __name__ == "__main__":
    main()
