"""What LiteRT.js says on the console while it compiles a file: which ops the GPU took, and why a file is refused.

``CompiledModel.isFullyAccelerated`` does not tell: it is true wherever XNNPACK takes all that WebGPU leaves, if that is
600 ops of 647. The GPU delegate itself says, and nothing where it takes all::

    ERROR: Following operations are not supported by GPU delegate:
    RESHAPE: Tensor dimensions must be less than 5. Vit/Block_1/Attention;10
    SLICE: Slicing is unsupported for input with rank > 4
    69 operations will run on the GPU, and the remaining 52 operations will run on the CPU.

``No operations will run on the GPU, and all 3 operations will run on the CPU.`` is the last line's other form. The
delegate takes one stretch of the graph, so that one refused op can leave the half behind it to the CPU as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vitexport.contract import Placement

_REFUSED = "Following operations are not supported by GPU delegate:"
_SHARED = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU\.")
_NONE = re.compile(r"No (operations) will run on the GPU, and all (\d+) operations will run on the CPU\.")

#: ``ERROR: `` of TensorFlow Lite, ``E1124 19:51:02.744999  755312 delegate_webgpu.cc:373] `` of Abseil.
_COMPLAINT = re.compile(r"(?:ERROR: |E\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] )(.+)")


@dataclass(frozen=True)
class Partition:
    """How the GPU delegate cut one graph."""

    gpu: int
    cpu: int
    refused: tuple[str, ...]
    """``OpType: reason`` of the ops it cannot do, each kind once; ops that are merely cut off are not among them."""


def partitions(log: Iterable[str]) -> Iterator[Partition]:
    """One for each graph that the GPU did not take whole, in the order in which they were compiled."""
    refused: list[str] | None = None
    for line in (line for said in log for line in said.splitlines()):
        if line.endswith(_REFUSED):
            refused = []
        elif refused is None:
            continue
        elif cut := _SHARED.fullmatch(line) or _NONE.fullmatch(line):
            gpu = 0 if cut.re is _NONE else int(cut[1])
            yield Partition(gpu, int(cut[2]), tuple(refused))
            refused = None
        else:
            refused.append(line.strip())


def read_placement(log: Iterable[str], ops: Sequence[int], graph: int, *, whole: bool) -> Placement | None:
    """Where the ops of one graph of a file run that was compiled for WebGPU. None where the log does not tell.

    ``ops`` are those of each graph that a signature names, ``graph`` the position of the one asked for, ``whole`` is
    ``isFullyAccelerated``. The delegate does not say which graph it speaks of: the number of ops tells them apart, and
    among graphs of one size, which are all cut or none, their order.
    """
    cut = list(partitions(log))
    alike = [i for i, count in enumerate(ops) if count == ops[graph]]
    matching = [p for p in cut if len(ops) == 1 or p.gpu + p.cpu == ops[graph]]
    if len(matching) == len(alike):
        mine = matching[alike.index(graph)]
        return Placement({"webgpu": mine.gpu, cpu_provider(whole=whole): mine.cpu}, mine.refused)
    unexplained = matching or any(p.gpu + p.cpu not in ops for p in cut) or not (whole or cut)
    return None if unexplained else Placement({"webgpu": ops[graph]})


def cpu_provider(*, whole: bool) -> str:
    """``xnnpack`` where delegates have all ops; ``cpu`` where some are left to LiteRT's own kernels, nobody says which.

    uint8 inputs (``CAST``) and float16 weights (``DEQUANTIZE``) are such ops.
    """
    return "xnnpack" if whole else "cpu"


def complaint(log: Iterable[str]) -> str:
    """The first error that was logged, without what it trails: what is thrown is often but a place in a source file."""
    for said in log:
        found = _COMPLAINT.match(said.partition("\n")[0])
        if found and found[1] != _REFUSED:
            return found[1].partition("; ")[0]
    return ""
