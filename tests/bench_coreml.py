"""What a Core ML export costs beside plain ``ct.convert``, and what each precision weighs and loses.

Part of ``make bench``. Both convert the same ViT-Small from torch.export to a float16 ML Program. Ours writes the
float32 package too, reads both back, evaluates them op by op on five pictures and holds them gate by gate;
``ct.convert`` writes one package and looks at nothing. Whole processes, alternating, median; ratios above 1 mean that
ours takes more. ``--table`` prints the precisions alone, as Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_export import BIN, Cost, cost

MODEL = "vit_small_patch16_224"

PLAIN = """
import sys
from vitexport import torchvision_schemas
torchvision_schemas.declare()
import timm, torch
import coremltools as ct
module = timm.create_model({model!r}, pretrained=False).eval()
program = torch.export.export(module, (torch.zeros(1, 3, 224, 224),)).run_decompositions({{}})
ct.convert(program, minimum_deployment_target=ct.target.iOS17, skip_model_load=True).save({out!r})
"""

#: Model -> its weights: random, trained by others, trained by this project.
NETWORKS = {"vit_tiny": "random", "selfie": "pretrained", "digits_vit_tiny": "pretrained"}
PRECISIONS = ("fp32", "fp16", "w8", "w6p", "w4", "w4p", "w8a8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="whole-process repetitions of each (default: 3)")
    parser.add_argument("--table", action="store_true", help="the table of precisions alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if not asked.table:
            compare(work, asked.rounds)
        table(work)


def compare(work: Path, rounds: int) -> None:
    ours: list[Cost] = []
    plain: list[Cost] = []
    code = PLAIN.format(model=MODEL, out=str(work / "plain.mlpackage"))
    command = [BIN / "vitexport", "--model", "vit_small", "--weights", "random", "--target", "coreml"]
    for _ in range(rounds):
        ours.append(cost([*command, "--out", work / "ours", "--force"]))
        plain.append(cost([sys.executable, "-c", code]))
    print(f"\n{'ViT-Small to Core ML':<34}{'vitexport':>12}{'ct.convert':>13}{'ratio':>8}")
    for name, field in (("whole process, s", "seconds"), ("peak memory, MiB", "peak_mib")):
        mine, theirs = (statistics.median(getattr(c, field) for c in costs) for costs in (ours, plain))
        print(f"{name:<34}{mine:>12,.1f}{theirs:>13,.1f}{mine / theirs:>8.2f}")
    steps = json.loads((work / "ours" / "report.json").read_text())["steps_s"]
    print("of ours: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in steps.items()))


def table(work: Path) -> None:
    print("\n| network | precision | bytes | SNR dB | agreement | verdict |\n|---|---|---|---|---|---|")
    for model, weights in NETWORKS.items():
        out = work / model
        command = [BIN / "vitexport", "--model", model, "--weights", weights, "--target", "coreml", "--out", out]
        command += ["--coreml-target", "ios18", *(word for name in PRECISIONS for word in ("--precision", name))]
        subprocess.run(list(map(str, command)), check=False, capture_output=True)  # 5 where a precision loses too much
        found = out if out.exists() else out.with_name(f"{model}.failed")
        for result in json.loads((found / "report.json").read_text())["results"]:
            parity, total = result["parity"], sum(file["bytes"] for file in result["files"])
            print(
                f"| `{model}` ({weights}) | {result['precision']} | {total:,} | {parity['snr_db']:.1f} "
                f"| {parity['agreement']:.4f} | {parity['verdict']} |"
            )


if __name__ == "__main__":
    main()
