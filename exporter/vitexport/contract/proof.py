"""How an artifact was held to PyTorch, how long it took, and where: a cell, a report of them, a device's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from vitexport.contract.bundle import FileEntry, Metric
from vitexport.contract.request import ExportRequest, Size
from vitexport.contract.source import Provenance

Verdict = Literal["passed", "failed", "not run"]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class Gate:
    """One link in the chain from PyTorch to an artifact, where one comparison is too blunt to prove it."""

    name: str
    claim: str
    """What is compared with what, or what must hold."""
    verdict: Verdict
    value: float | None = None
    bound: float | None = None
    """The least ``value`` that passes, or the largest: ``claim`` says which."""
    unit: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Parity:
    """How far an artifact's answers are from PyTorch's; the worst over images and outputs. None: not run."""

    verdict: Verdict
    drift: float | None = None
    """max|a-b| / max|b|; for a mask, whose range is 0..1, max|a-b|."""
    tolerance: float | None = None
    """Of ``metric``, which decides."""
    metric: Metric = "drift"
    snr_db: float | None = None
    """-20 log10(noise), at most 200 (bit-identical)."""
    cosine: float | None = None
    agreement: float | None = None
    """Share of images with the same top-1 (logits), IoU with PyTorch's masks, all images together (mask), or mean IoU
    of its classes (segmentation)."""
    person_iou: float | None = None
    """IoU with PyTorch's masks of people, all images together, where the output has a channel for them."""
    images: NonNegative = 0
    contrast: float | None = None
    """Drift between PyTorch's own answers to two different photos. Under 100 tolerances, the run proves nothing."""
    reason: str = ""
    runtime: str = ""
    """What computed the answers."""
    gates: tuple[Gate, ...] = ()
    """What else had to hold; one that fails fails the verdict."""


@dataclass(frozen=True)
class Device:
    """What really ran it. ``software`` marks an adapter that emulates a GPU on the CPU."""

    name: str
    runtime: str
    provider: str
    software: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    """What a user's device has and this one has not, such as ``macOS or iOS``: another runtime stands in, whose answers
    count and whose times mean nothing. Empty: this is the runtime that users have."""


@dataclass(frozen=True)
class Measurement:
    """Latency on the device named beside it, never a stand-in for another."""

    verdict: Verdict
    device: str = ""
    runtime: str = ""
    provider: str = ""
    load_ms: float | None = None
    cold_ms: float | None = None
    """The first inference after loading, shader compilation included."""
    median_ms: float | None = None
    p90_ms: float | None = None
    runs: NonNegative = 0
    times_ms: tuple[float, ...] = ()
    """Every steady run, in order."""
    p99_ms: float | None = None
    sustained_ms: float | None = None
    """Median of the runs of the last half minute of ``sustained_after_s`` seconds of work: heat has told by then."""
    sustained_after_s: float | None = None
    peak_memory_bytes: NonNegative | None = None
    """Of the process that ran it, where the system tells."""
    warning: str = ""
    """Why the figures are to be taken with care, such as a spread that is too wide."""
    reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    """What else there is to know of the device: ``os``, ``cores``, ``threads``, ``power``, ``shader-f16``, ..."""


@dataclass(frozen=True)
class Placement:
    """Which execution provider took how many nodes, read from the runtime itself."""

    nodes: dict[str, int]
    fallback: tuple[str, ...] = ()
    """``OpType (node name)`` of every node that an accelerated session left to the CPU."""


@dataclass(frozen=True)
class Result:
    """One cell of the matrix: model x target x precision x provider."""

    model: str
    target: str
    precision: str
    provider: str
    size: Size
    files: tuple[FileEntry, ...]
    parity: Parity
    latency: Measurement
    placement: Placement | None = None
    device_verdict: Verdict = "not run"
    """That of parity where the runtime that users have gave it, on hardware such as they have."""
    device_reason: str = ""

    @property
    def verdict(self) -> Verdict:
        return self.parity.verdict


@dataclass(frozen=True)
class DeviceCell:
    """One variant at one size on one provider, as a device ran it."""

    precision: str
    provider: str
    size: Size
    parity: Parity
    """Judged on the device, on the golden cases. Whoever takes it back judges the figures again."""
    latency: Measurement
    placement: Placement | None = None
    software: bool = False
    """Whether what computed it emulates a GPU, of a device that has others as well."""


@dataclass(frozen=True)
class DeviceReport:
    """What a device measured of a bundle by itself: posted by a page, written by an app's tests.

    It comes from outside: sizes, counts and texts are to be checked before anything is made of it.
    """

    schema_version: Literal[1]
    manifest_sha256: str
    """Of the bundle's ``manifest.json``: figures of another export are not this one's."""
    device: Device
    cells: tuple[DeviceCell, ...]


@dataclass(frozen=True)
class Report:
    """``report.json``: what was asked, what came out, and how it was proved."""

    schema_version: Literal[1]
    vitexport: str
    request: ExportRequest
    out: str
    provenance: Provenance
    host: dict[str, str]
    steps_s: dict[str, float]
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()
    """What was done otherwise than asked."""

    @property
    def verdict(self) -> Verdict:
        """``failed`` if any cell failed, else ``passed`` if any passed: what could not be run proves nothing."""
        verdicts = {r.verdict for r in self.results}
        return "failed" if "failed" in verdicts else "passed" if "passed" in verdicts else "not run"
