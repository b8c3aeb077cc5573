"""The model card of a bundle: what the packages eat and answer, where they come from, and how to check them."""

from __future__ import annotations

from collections.abc import Sequence

from vitexport.contract import CoremlTarget, Preprocessing, SourceModel
from vitexport_targets.coreml import labels
from vitexport_targets.coreml.inputs import NAMES, Kind

_SYSTEMS: dict[CoremlTarget, str] = {
    "ios16": "iOS 16, macOS 13",
    "ios17": "iOS 17, macOS 14",
    "ios18": "iOS 18, macOS 15",
}

_CARD = """\
# {name}

{task}, for {systems} and later. Weights: {origin}; licence: {licence}.

| package | |
|---|---|
{packages}

## Input

{input}

## Output

{outputs}

## How it was proven

On the machine that exported it, from the saved packages, op by op and without Core ML: see the gates in `report.json`
beside this folder. That is no verdict of a device. On a Mac, `python3 verify.py` runs every package on each compute
unit, holds its answers to PyTorch's (`golden/`) and times it.

This folder is a Swift package too: `swift/README.md` says how an app uses it, and how a phone is measured with it.
"""


_ABOUT = {
    "fp16": "what to ship",
    "fp32": "the reference that the others are held to",
    "w8": "int8 weights: half the bytes of float16, for nearly the same answers",
    "w6p": "weights from palettes of 64 values",
    "w4": "int4 weights in blocks of 32; try it on your own pictures first",
    "w4p": "weights from palettes of 16 values; try it on your own pictures first",
    "w8a8": "int8 weights and activations; try it on your own pictures first",
}


def card(sources: Sequence[SourceModel], ios: CoremlTarget, kind: Kind, packages: Sequence[str]) -> str:
    """Markdown."""
    first = sources[0]
    rows = [f"| `{name}` | {_ABOUT[name.removesuffix('.mlpackage').split('_')[1]]} |" for name in packages]
    return _CARD.format(
        name=first.name,
        task={"classify": "Classifier", "features": "Feature extractor", "segment": "Segmentation"}[first.task],
        systems=_SYSTEMS[ios],
        origin=first.provenance.origin,
        licence=first.provenance.licence,
        packages="\n".join(rows),
        input="\n".join(_input(source.preprocessing, kind) for source in sources),
        outputs="\n".join(_outputs(first, kind)),
    )


def _input(how: Preprocessing, kind: Kind) -> str:
    size = f"{how.size.width} wide, {how.size.height} high"
    fitted = f"photos are resized ({how.interpolation}, {how.fit}{f' at {how.resize}' if how.resize else ''})"
    if kind == "image":
        return f"- `{NAMES[kind]}`: an RGB image, {size}; {fitted}. The package normalises it itself."
    normalised = f"(pixel / 255 - {list(how.mean)}) / {list(how.std)}"
    return f"- `{NAMES[kind]}`: float32 (1, 3, {how.size.height}, {how.size.width}), {normalised}; {fitted}."


def _outputs(source: SourceModel, kind: Kind) -> list[str]:
    lines = [f"- `{o.name}`: {o.meaning}, float32 {o.shape}" for o in source.outputs]
    if labels.wanted(source, kind):
        lines.insert(0, f"- `{labels.PROBABILITIES}`: every class's probability, by label")
        lines.insert(0, f"- `{labels.LABEL}`: the most probable class")
    return lines
