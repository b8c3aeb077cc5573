#!/usr/bin/env python3
"""Run this bundle's packages in Core ML itself, on a Mac, and hold them to the answers that came with them.

    pip install coremltools numpy pillow
    python3 verify.py            # every precision, size and set of compute units
    python3 verify.py --runs 100

It needs nothing of vitexport, and writes results.json beside itself. Exit code 0: all within tolerance; 5: one is not;
3: this is no Mac, or a Python package is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")
PASSED, NO_TOOLCHAIN, FAILED = 0, 3, 5

#: (package, function or None, compute units) -> something that predicts, as ``coremltools.models.MLModel`` does.
Load = Callable[[Path, "str | None", str], Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="timed predictions of each (default: 50)")
    asked = parser.parse_args()
    if platform.system() != "Darwin":
        print("verify.py needs macOS: Core ML exists nowhere else. Copy this folder to a Mac.", file=sys.stderr)
        return NO_TOOLCHAIN
    try:
        results = list(verify(HERE, load, UNITS, asked.runs))
    except ImportError as missing:
        print(f"{missing.name} is not installed. Run: pip install coremltools numpy pillow", file=sys.stderr)
        return NO_TOOLCHAIN
    host = {"machine": platform.machine(), "macos": platform.mac_ver()[0]}
    (HERE / "results.json").write_text(json.dumps({"host": host, "results": results}, indent=2) + "\n")
    return PASSED if all(result["verdict"] == "passed" for result in results) else FAILED


def load(package: Path, function: str | None, units: str) -> Any:
    import coremltools

    return coremltools.models.MLModel(
        str(package), compute_units=coremltools.ComputeUnit[units], function_name=function
    )


def verify(bundle: Path, open_model: Load, units: tuple[str, ...], runs: int) -> Iterator[dict[str, Any]]:
    """One result per size, precision and set of compute units, printed as it is found."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    for rung in manifest["rungs"]:
        size = rung["preprocessing"]["size"]
        name = f"size_{size['height']}x{size['width']}"
        for variant in rung["variants"]:
            package = (bundle / variant["files"][0]).parent
            for unit in units:
                start = time.perf_counter()
                model = open_model(package, name if shared(manifest, variant) else None, unit)
                loaded = (time.perf_counter() - start) * 1000
                judged = judge(bundle, manifest["input_name"], rung, variant, model, runs)
                result = {"package": package.name, "size": size, "compute_units": unit, "load_ms": loaded, **judged}
                print(
                    f"{package.name:<28} {unit:<12} {result['verdict']}: {result['metric']} {result['worst']:.2e}",
                    end="",
                )
                print(f" (at most {variant['tolerance']:.2e}), median {result['median_ms']:.2f} ms")
                yield result


def shared(manifest: Mapping[str, Any], variant: Mapping[str, Any]) -> bool:
    """Whether several sizes are functions of one package."""
    return sum(variant in rung["variants"] for rung in manifest["rungs"]) > 1


def judge(
    bundle: Path, input_name: str, rung: Mapping[str, Any], variant: Mapping[str, Any], model: Any, runs: int
) -> dict[str, Any]:
    """Answers to the golden photos against PyTorch's, then times of the first."""
    worst, given = 0.0, None
    for case in rung["golden"]:
        pixel_values = tensor(bundle / case["input"], (1, 3, *sides(rung)))
        fed = {input_name: picture(pixel_values, rung["preprocessing"]) if input_name == "image" else pixel_values}
        given = given or fed
        answer = model.predict(fed)
        for output in rung["outputs"]:
            true = tensor(bundle / case["outputs"][output["name"]], tuple(output["shape"]))
            worst = max(worst, off(answer[output["name"]], true, variant["metric"], output["meaning"]))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        model.predict(given)
        times.append((time.perf_counter() - start) * 1000)
    return {
        "verdict": "passed" if worst <= variant["tolerance"] else "failed",  # NaN compares false, and must fail
        "metric": variant["metric"],
        "worst": worst,
        "median_ms": statistics.median(times),
        "p90_ms": float(np.percentile(times, 90)),
        "runs": runs,
    }


def off(answer: Any, true: Any, metric: str, meaning: str) -> float:
    """drift: max|a-b| / max|b|; noise, loss: rms(a-b) / rms(b). A mask's scale is its range. NaN is infinitely far."""
    a, b = np.asarray(answer, np.float64).reshape(true.shape), true.astype(np.float64)
    size = np.max if metric == "drift" else lambda values: np.sqrt(np.mean(np.square(values)))
    found = float(size(np.abs(a - b)) / (1.0 if meaning == "mask" else float(size(np.abs(b))) or 1.0))
    return found if np.isfinite(found) else float("inf")


def sides(rung: Mapping[str, Any]) -> tuple[int, int]:
    size = rung["preprocessing"]["size"]
    return size["height"], size["width"]


def tensor(path: Path, shape: tuple[int, ...]) -> Any:
    return np.frombuffer(path.read_bytes(), "<f4").reshape(shape)


def picture(pixel_values: Any, how: Mapping[str, Any]) -> Any:
    """The photo that a normalised tensor was made of: this bundle's packages normalise by themselves."""
    from PIL import Image

    mean, std = (np.array(how[key], np.float64).reshape(3, 1, 1) for key in ("mean", "std"))
    pixels = np.rint((pixel_values[0] * std + mean) * 255).astype(np.uint8)
    return Image.fromarray(pixels.transpose(1, 2, 0))


if __name__ == "__main__":
    sys.exit(main())
