"""Which operations of a ``.tflite`` LiteRT's GPU delegate would leave to the CPU, told from the file alone.

The delegate refuses operators that it does not know, tensors of more than four dimensions, and most integers; and then
it takes one stretch of the graph, so that a single refusal may leave all behind it to the CPU. What is counted here is
what it refuses. Some of what it takes is a trap, and the whole file is refused for it, or answers wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vitexport.contract import Bundle, Finding, Lint
from vitexport_targets.tflite.flatbuffer import printable
from vitexport_targets.tflite.gpu_operators import GpuOperators, gpu_operators
from vitexport_targets.tflite.gpu_quantised import INT8, UNPACKS, traps
from vitexport_targets.tflite.signature import entrance
from vitexport_targets.tflite.structure import Graph, Tensor
from vitexport_targets.tflite.trial import held
from vitexport_targets.tflite.web import WRONG_ON_GPU

#: "Tensor dimensions must be less than 5", as the delegate says.
MOST_DIMENSIONS = 4

#: Of activations and weights that are computed with; constants that an operator is told, such as a shape, are int32.
_INTEGERS = ("int4", "uint4", "int8", "uint8", "int16", "int64")

#: What to do about operators that networks are known to bring.
REWRITES: Mapping[str, str] = {
    "GATHER_ND": "Index with slices, or multiply by a constant matrix of zeros and ones.",
    "GATHER": "Index with slices, or multiply by a constant matrix of zeros and ones.",
    "BROADCAST_TO": "Leave the broadcast to the operation that takes it.",
    "ARG_MAX": "Return the scores, and take the largest of them in the app.",
    "TOPK_V2": "Return the scores, and sort them in the app.",
    "SPLIT": "Take the parts with slices.",
}


def lint(bundle: Bundle, precision: str) -> Lint:
    """Raises ``BadFile`` where the file is damaged."""
    path = bundle.path(bundle.variant(precision).files[0])
    structure, known = held(path), gpu_operators()
    signature = structure.signatures[entrance(bundle, path.name, structure).signature]
    graph = structure.graphs[signature.graph]
    findings, unfit = examine(graph, known)
    basis = (
        f"what the delegate in {known.runtime} takes of an operator each, its limit of {MOST_DIMENSIONS} dimensions, "
        "and what it did with small networks in integers; of the file's operations"
    )
    notes = []
    if findings and not unfit:
        notes.append("It takes one stretch of the graph: more may run on the CPU than it refuses.")
    if precision in WRONG_ON_GPU:
        notes.append(f"A proof does not try {precision} there: of some networks it answers wrongly.")
    return Lint("LiteRT's GPU delegate", basis, len(graph.operations), findings, " ".join(notes), unfit)


def examine(graph: Graph, known: GpuOperators) -> tuple[tuple[Finding, ...], str]:
    """What it does not take, with what takes the whole file from it; and what becomes of the file then, if anything."""
    findings, trapped = [], dict(traps(graph))
    for number, (kind, reads, makes) in enumerate(zip(graph.operations, graph.reads, graph.makes, strict=True)):
        taken = [graph.tensors[index] for index in reads]
        made = [graph.tensors[index] for index in makes]
        trap = trapped.get(number)
        if found := (trap.why, trap.rewrite) if trap else _refusal(kind, taken, made, known):
            name = printable(made[0].name) if made else "-"
            findings.append(Finding(f"{kind} ({name})", _layer(name), *found))
    outcomes = {trap.outcome for trap in trapped.values()}
    return tuple(findings), max(outcomes, key=lambda outcome: outcome.startswith("refuses"), default="")


def _refusal(kind: str, taken: Sequence[Tensor], made: Sequence[Tensor], known: GpuOperators) -> tuple[str, str] | None:
    """Why it is refused and what would mend it; None where it is not."""
    if kind == UNPACKS and all(tensor.stored for tensor in taken):
        return None  # which the delegate does itself
    high = next((t for t in (*taken, *made) if len(t.shape) > MOST_DIMENSIONS), None)
    if high is not None:
        sides = "x".join(map(str, high.shape))
        return (
            f"has a tensor of {len(high.shape)} dimensions ({sides})",
            "Keep to four: project q, k and v apart, fold windows and heads into the batch.",
        )
    packed = next((t.dtype for t in (*taken, *made) if t.dtype in _INTEGERS), None)
    if packed == "int8" and kind in INT8:
        return None
    if packed is not None:
        return f"computes with {packed}", "Ship fp16 to GPUs."
    if kind in known.refuses:
        return f"is refused: {known.refuses[kind]}", REWRITES.get(kind, f"Write the layer without {kind}.")
    if kind not in known.takes:
        return "was never tried on it", REWRITES.get(kind, f"Write the layer without {kind}, or try it on a device.")
    return None


def _layer(name: str) -> str:
    """Of names such as ``vitexport.Model/network/blocks/0;12``: the converter names a tensor for the module that made
    it."""
    return name.partition(";")[0]
