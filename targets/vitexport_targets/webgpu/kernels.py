"""What onnxruntime-web's WebGPU provider has kernels for, as the pinned runtime itself said (``kernels.json``).

A kernel is found by operator, version and element types; attributes have no say in where a node goes. One that its
kernel cannot do (``Resize`` in a mode it does not know) is an error as the session is made, or as it runs, and no
fallback: that shows in the proof.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vitexport_targets.webgpu import ort_web

#: Written by :mod:`.generate_kernels`.
FILE = Path(__file__).with_name("kernels.json")

#: The key of the version that was asked.
RUNTIME = ort_web.PACKAGE

#: A product of sets of element types, by type parameter: what one registration takes.
Box = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Call:
    """A node as kernels are found by."""

    domain: str
    """Empty for ONNX's own."""
    operator: str
    opset: int
    """Of its domain, as the graph imports it."""
    inputs: tuple[str, ...]
    """Element types in ONNX's names (``float``, ``int64``); empty where an optional input is not there."""
    to: str = ""
    """What a ``Cast`` casts to."""


@dataclass(frozen=True)
class Kernels:
    runtime: str
    """``onnxruntime-web 1.30.0``"""
    operators: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Domain -> operator -> the version that brought it or changed it -> what that version takes."""

    def why_not(self, call: Call) -> str:
        """What is missing for ``call``, as a sentence's end; empty where there is a kernel."""
        versions = self.operators.get(call.domain, {}).get(call.operator, {})
        known = [int(v) for v in versions if int(v) <= call.opset]
        if not any(entry["takes"] for entry in versions.values()):
            return "has no kernel"
        entry = versions[str(max(known))] if known else {"takes": []}
        if not entry["takes"]:
            return f"has no kernel at opset {call.opset}"
        types = _types(entry, call)
        if any(_takes(box, types) for box in entry["takes"]):
            return ""
        nearest = min(entry["takes"], key=lambda box: len(_outside(box, types)))
        wrong = _outside(nearest, types)
        return "takes no " + " and no ".join(f"{types[name]} ({name}: {', '.join(nearest[name])})" for name in wrong)

    def newest_opset_taken(self, call: Call) -> int | None:
        """The newest opset below ``call``'s at which the operator has a kernel; None where there is none."""
        versions = self.operators.get(call.domain, {}).get(call.operator, {})
        ordered = sorted(map(int, versions))
        taken = [v for v in ordered if v <= call.opset and versions[str(v)]["takes"]]
        if not taken:
            return None
        after = [v for v in ordered if v > taken[-1]]
        return min(after[0] - 1, call.opset) if after else call.opset


@cache
def kernels() -> Kernels:
    stored = json.loads(FILE.read_text())
    return Kernels(f"{RUNTIME} {stored[RUNTIME]}", stored["operators"])


def _types(entry: Mapping[str, Any], call: Call) -> dict[str, str]:
    """By type parameter. Further inputs of an operator that takes any number are as the last."""
    named = list(entry["inputs"])
    named += named[-1:] * (len(call.inputs) - len(named))
    types = {name: found for name, found in zip(named, call.inputs, strict=False) if name and found}
    return types | ({entry["to"]: call.to} if "to" in entry else {})


def _takes(box: Box, types: Mapping[str, str]) -> bool:
    return not _outside(box, types)


def _outside(box: Box, types: Mapping[str, str]) -> list[str]:
    return [name for name, found in types.items() if name in box and found not in box[name]]
