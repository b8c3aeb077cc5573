"""Every precision of every target, on networks whose answers mean something: the table in quantize/README.md.

``make grid`` runs what has no row yet for this tree (in ``.cache/grid``, so that a killed run goes on) and prints the
table; tests/test_grid.py holds the rows to their floors. Of each cell: bytes, what the answers are worth on pictures
that nothing was calibrated on, and latency beside float32 in the same runtime, inference by inference in turn.

``digits_vit_tiny``: top-1 on the exam of 2,000; ``selfie``: IoU and boundary F with the float network's masks on
composites; ``vit_tiny`` and ``vit_small`` with random weights: SNR alone, for agreement of random weights means
nothing. Where a runtime takes seconds for a picture a sample stands for the set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

import composites
from test_sizes_matrix import ROOT
from test_sizes_matrix import sources as digest_of_sources
from vitexport import bundle as bundles
from vitexport import parity, pipeline, registry
from vitexport.contract import Bundle, Exam, ExportRequest, Session, Target
from vitexport.digits import pictures
from vitexport.errors import LoweringFailed, RuntimeUnavailable
from vitexport.preprocess import preprocess
from vitexport.quantize.decide import decide, followed

ROWS = ROOT / ".cache" / "grid"

#: Of the exam's; what is calibrated on must be others.
OTHER_SEED = 77

TARGETS = ("onnx", "webgpu", "coreml", "tflite")

#: Pictures that are run, by provider: where one takes seconds, a sample.
DIGITS = {"cpu": 2000, "interpreter": 2000, "wasm": 400, "webgpu": 40, "evaluator": 100}
FEWER = {("interpreter", "w8a16"): 300}
PEOPLE = {"cpu": 60, "interpreter": 60, "wasm": 60, "webgpu": 12, "evaluator": 24}

#: Pairs of inferences, and those before them that are not counted. A software adapter takes seconds for one.
PAIRS, WARM = {"webgpu": 7}, {"webgpu": 1}


@dataclass(frozen=True)
class Cell:
    model: str
    target: str
    precision: str
    provider: str


@dataclass(frozen=True)
class Row:
    total_bytes: int = 0
    snr_db: float | None = None
    images: int = 0
    top1: float | None = None
    float_top1: float | None = None
    """On the same pictures."""
    sure: float | None = None
    """Of the pictures whose two best classes PyTorch sees more than 0.05 apart, the share that agrees."""
    iou: float | None = None
    """Of all pictures together, as parity judges it."""
    mean_iou: float | None = None
    """Of pictures: one in which the float network finds a third of the person counts as much as any."""
    boundary_f: float | None = None
    ratio: float | None = None
    """Latency over that of fp32."""
    kept: int = 0
    """Layers that the plan leaves float."""
    refused: str = ""


def cells() -> Iterator[Cell]:
    for model in EXAMS:
        for name in TARGETS:
            traits = registry.target(name).traits
            for precision in traits.precisions:
                yield Cell(model, name, precision.name, traits.shows[0])
                if name == "webgpu" and precision.name in ("fp32", "fp16", "w8", "w4", "w4-fp16"):
                    yield Cell(model, name, precision.name, "webgpu")


# ------------------------------------------------------------------------------------------------------------ a cell


def row(cell: Cell) -> Row:
    """Run it, unless there is a row of this tree."""
    path = _path(cell)
    if path.is_file():
        return Row(**json.loads(path.read_text()))
    try:
        made = _run(cell)
    except LoweringFailed as refusal:
        made = Row(refused=str(refusal))
    except RuntimeUnavailable as reason:
        made = Row(refused=f"not run: {reason}")
    ROWS.mkdir(parents=True, exist_ok=True)
    partly = path.with_suffix(".partial")  # a killed run must not leave half a row
    partly.write_text(json.dumps(asdict(made)) + "\n")
    partly.replace(path)
    return made


def _path(cell: Cell) -> Path:
    key = f"{digest_of_sources(cell.target)} {json.dumps(asdict(cell), sort_keys=True)}"
    return ROWS / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _run(cell: Cell) -> Row:
    target = registry.target(cell.target)
    activations = cell.precision in ("w8-dyn", "w8a8", "w8a16")
    exam, request = _captured(cell.model, cell.precision if activations else "fp32")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        made, kept = _lowered(target, exam, request, cell.precision, Path(folder) / "cell")
        session = stack.enter_context(target.open(made, cell.precision, cell.provider))
        judged = EXAMS[cell.model](exam, session, cell)
        timed = None
        if not session.device.needs:
            plain, _ = _lowered(target, exam, request, "fp32", Path(folder) / "fp32")
            beside = stack.enter_context(target.open(plain, "fp32", cell.provider))
            timed = _ratio(session, beside, exam.cases[0].pixel_values, cell.provider)
        size = sum(f.bytes for f in made.manifest.files if f.path in made.variant(cell.precision).files)
        return replace(judged, total_bytes=size, ratio=timed, kept=kept)


@cache
def _captured(model: str, precision: str) -> tuple[Exam, ExportRequest]:
    """With the network made ready for ``precision``, if that quantises activations."""
    folder = Path(tempfile.mkdtemp(prefix="calibration"))
    if model == "digits_vit_tiny":
        for i, image in enumerate(pictures.held_out(64, seed=OTHER_SEED)[0]):
            PILImage.fromarray(image).save(folder / f"{i:03}.png")
    elif model == "selfie":
        composites.written(folder, 48, seed=OTHER_SEED)
    request = ExportRequest(
        model=model,
        targets=("onnx",),
        precisions=(precision if precision in ("w8-dyn", "w8a8") else "w8a8" if precision == "w8a16" else "fp32",),
        weights="random" if EXAMS[model] is _signal else "pretrained",
        calibration=str(folder) if precision != "fp32" and EXAMS[model] is not _signal else None,
    )
    (exam,) = pipeline.captured(request)
    return exam, request


def _lowered(target: Target, exam: Exam, request: ExportRequest, precision: str, folder: Path) -> tuple[Bundle, int]:
    folder.mkdir()
    newest = "ios18" if target.traits.name == "coreml" else None  # w4 needs it, and palettes gain by it
    asked = replace(request, targets=(target.traits.name,), precisions=(precision,), coreml_target=newest)
    plan = decide([(target, asked)], exam, asked)
    (exam,) = followed(plan, target, (exam,))
    artifact = target.lower((exam.source,), asked, folder)
    (made,) = bundles.complete(folder, target.traits.name, (exam,), artifact)
    return made, sum(len(cell.keep_float) for cell in plan.cells)


def _ratio(session: Session, beside: Session, pixel_values: Any, provider: str) -> float:
    """Of medians, of runs that alternate."""
    times: dict[int, list[float]] = {0: [], 1: []}
    warm, pairs = WARM.get(provider, 3), PAIRS.get(provider, 25)
    for turn in range(warm + pairs):
        for which, each in enumerate((session, beside)):
            ms = each.run(pixel_values).ms
            if turn >= warm:
                times[which].append(ms)
    return statistics.median(times[0]) / statistics.median(times[1])


# --------------------------------------------------------------------------------------------------------- the exams


def _answers(exam: Exam, session: Session, images: Sequence[Any], name: str) -> tuple[list[Any], list[Any]]:
    """The session's, and PyTorch's."""
    inputs = [preprocess(image, exam.source.preprocessing) for image in images]
    return [session.run(x).outputs[name] for x in inputs], [exam.source.forward(x)[name] for x in inputs]


def _snr(theirs: Sequence[Any], ours: Sequence[Any], meaning: Any = "logits") -> float:
    """The median over pictures."""
    return float(np.median([parity.snr_db(a, b, meaning) for a, b in zip(theirs, ours, strict=True)]))


def _digits(exam: Exam, session: Session, cell: Cell) -> Row:
    count = FEWER.get((cell.provider, cell.precision), DIGITS[cell.provider])
    images, labels = pictures.held_out(count)
    theirs, ours = _answers(exam, session, images, "logits")
    a, b = np.concatenate(theirs), np.concatenate(ours)
    best = np.sort(b, 1)
    sure = best[:, -1] - best[:, -2] > 0.05
    same = a.argmax(1) == b.argmax(1)
    top1, float_top1 = (float(np.mean(each.argmax(1) == labels)) for each in (a, b))
    return Row(
        snr_db=_snr(theirs, ours), images=count, top1=top1, float_top1=float_top1, sure=float(np.mean(same[sure]))
    )


def _people(exam: Exam, session: Session, cell: Cell) -> Row:
    images = composites.composites(PEOPLE[cell.provider], seed=0)
    theirs, ours = _answers(exam, session, images, "mask")
    masks = [(a[0, 0] > 0.5, b[0, 0] > 0.5) for a, b in zip(theirs, ours, strict=True)]
    together = (np.concatenate(each) for each in zip(*masks, strict=True))
    return Row(
        snr_db=_snr(theirs, ours, "mask"),
        images=len(images),
        iou=parity.mask_iou(*together),
        mean_iou=float(np.mean([parity.mask_iou(a, b) for a, b in masks])),
        boundary_f=float(np.mean([composites.boundary_f(a, b) for a, b in masks])),
    )


def _signal(exam: Exam, session: Session, cell: Cell) -> Row:
    cases = exam.cases[:2] if cell.provider == "webgpu" else exam.cases
    (name,) = cases[0].reference
    theirs = [session.run(case.pixel_values).outputs[name] for case in cases]
    return Row(snr_db=_snr(theirs, [case.reference[name] for case in cases]), images=len(cases))


EXAMS: dict[str, Callable[[Exam, Session, Cell], Row]] = {
    "digits_vit_tiny": _digits,
    "selfie": _people,
    "vit_tiny": _signal,
    "vit_small": _signal,
}


# --------------------------------------------------------------------------------------------------------- the table


def table(model: str, among: Sequence[Cell]) -> Iterator[str]:
    """A line for each precision, a column for each runtime."""
    columns = list(dict.fromkeys((cell.target, cell.provider) for cell in among))
    yield f"| `{model}` | {' | '.join(f'`{target}` {provider}' for target, provider in columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for precision in dict.fromkeys(cell.precision for cell in among):
        found = [Cell(model, target, precision, provider) for target, provider in columns]
        yield f"| `{precision}` | {' | '.join(shown(cell) if cell in among else '' for cell in found)} |"


def shown(cell: Cell) -> str:
    if not _path(cell).is_file():
        return "not measured"
    it = row(cell)
    if it.refused:
        return "not run" if it.refused.startswith("not run") else "refused"
    parts = [f"{it.total_bytes / 1e6:.2f} MB", f"{it.snr_db:.1f} dB"]
    if it.top1 is not None:
        parts.append(f"{it.top1:.1%}" + ("" if it.images == 2000 else f" of {it.images} (float {it.float_top1:.1%})"))
    if it.iou is not None:
        parts.append(f"{it.iou:.3f} / {it.mean_iou:.3f} / {it.boundary_f:.3f}")
    if it.ratio is not None:
        parts.append(f"{it.ratio:.2f}x")
    if it.kept:
        parts.append(f"{it.kept} float")
    return ", ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="this one alone")
    parser.add_argument("--target", help="this one alone")
    parser.add_argument("--table", action="store_true", help="what there are rows of, and run nothing")
    asked = parser.parse_args()
    wanted = [cell for cell in cells() if asked.model in (None, cell.model) and asked.target in (None, cell.target)]
    for cell in wanted if not asked.table else ():
        row(cell)
        print(cell.model, cell.target, cell.precision, cell.provider, shown(cell), flush=True)
    for model in dict.fromkeys(cell.model for cell in wanted):
        print("\n".join(table(model, [cell for cell in wanted if cell.model == model])), end="\n\n")


if __name__ == "__main__":
    main()
