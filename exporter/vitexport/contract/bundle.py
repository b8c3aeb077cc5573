"""What an export leaves: files, and a manifest that says all that there is to know of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitexport.contract.request import Observer, Size, Task
from vitexport.contract.source import INPUT_NAME, OutputSpec, Preprocessing, Provenance

#: How an artifact is held to PyTorch. ``drift``: max|a-b| / max|b|, for precisions that only round differently.
#: ``noise``: rms(a-b) / rms(b), for precisions that lose bits, where one pixel on a mask's edge may flip and the mask
#: still be right. ``loss``: noise of precisions that change the weights, which is what the user asked for: no more than
#: their rounding explains. A mask's scale is its range, 1. See :mod:`vitexport.parity`.
Metric = Literal["drift", "noise", "loss"]


@dataclass(frozen=True)
class FileEntry:
    """A file of a bundle; ``path`` is relative to the manifest, with forward slashes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Variant:
    """One precision of the model, as stored. ``files[0]`` is what a runtime opens; the rest are its weight shards."""

    precision: str
    files: tuple[str, ...]
    tolerance: float
    """The largest ``metric`` that passes."""
    requires: tuple[str, ...] = ()
    """Device features without which it cannot run, such as ``shader-f16``."""
    metric: Metric = "drift"
    oldest_runtime: str = ""
    """The oldest runtime that it was proven in when it was exported, such as ``tflite-runtime 2.14.0``; empty where the
    target is proven in today's alone."""
    only: tuple[str, ...] = ()
    """The providers that it is for, which others would run badly if at all. Empty: all of the target's."""


@dataclass(frozen=True)
class GoldenCase:
    """A photo, the tensor PyTorch made of it and what PyTorch answered: a bundle carries its own exam.

    ``photo`` is a lossless PNG, of a clip with its frames below one another; ``input`` and ``outputs`` are raw
    little-endian float32 in C order.
    """

    name: str
    photo: str
    input: str
    outputs: dict[str, str]


@dataclass(frozen=True)
class CalibrationSet:
    """The pictures that activations were measured on, where a variant computes in fewer bits."""

    pictures: int
    photos: int
    """How many photos they are views of."""
    sha256: str
    """Of all pictures as the network takes them, in order."""
    observer: Observer | None = None
    """How ranges were taken from what was seen. None: no variant fixes any."""


@dataclass(frozen=True)
class RuntimeBuild:
    """One build of a browser runtime. ``wasm`` lists parts to be joined in order (hosts cap files at 25 MiB)."""

    module: str
    wasm: tuple[str, ...]


@dataclass(frozen=True)
class WebRuntime:
    package: str
    version: str
    builds: dict[str, RuntimeBuild]
    """By what the browser must have: ``jspi``, ``asyncify`` (WebGPU without JSPI), ``wasm`` (no WebGPU)."""


@dataclass(frozen=True)
class Artifact:
    """What a target's ``lower`` made: files in the folder it was given, not yet hashed or published."""

    variants: tuple[tuple[Variant, ...], ...]
    """Of each source, in the order they came; a file may belong to several rungs."""
    toolchain: dict[str, str]
    """Package -> version of everything that shaped the files."""
    runtime: WebRuntime | None = None
    input_name: str = INPUT_NAME
    notes: tuple[str, ...] = ()
    """What was done otherwise than asked, for the user to read."""


@dataclass(frozen=True)
class Rung:
    """The network at one input size, with its own exam: a ladder has several, and they share what weights they can."""

    input_shape: tuple[int, ...]
    """(N, 3, H, W), or (N, ...) of a clip in its layout; 0 means any."""
    preprocessing: Preprocessing
    outputs: tuple[OutputSpec, ...]
    variants: tuple[Variant, ...]
    """In order of preference."""
    golden: tuple[GoldenCase, ...]
    rounding: float
    """Drift of PyTorch's float32 answers from its own float64 ones; see :func:`vitexport.parity.held_to`."""
    pos_embed_rule: str = ""
    """How learned positions were taken to this size: a rule of :mod:`vitexport.posembed`; empty where nothing was."""
    pos_embed_source: str = ""
    """The paper, library or file that the rule comes from."""
    calibration: CalibrationSet | None = None
    """None where no variant quantises activations."""

    @property
    def size(self) -> Size:
        return self.preprocessing.size


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: all that a page, a phone or a later ``vitexport check`` needs to know."""

    schema_version: Literal[1]
    target: str
    model: str
    task: Task
    input_name: str
    rungs: tuple[Rung, ...]
    """In the order they were asked for; the first is what is used unless something else is wanted."""
    provenance: Provenance
    toolchain: dict[str, str]
    files: tuple[FileEntry, ...]
    """Every file of the bundle but the manifest itself."""
    runtime: WebRuntime | None = None


@dataclass(frozen=True)
class Bundle:
    """A target's folder, with its manifest read and valid, at one of its sizes."""

    directory: Path
    manifest: Manifest
    rung: Rung

    def variant(self, precision: str) -> Variant:
        return next(v for v in self.rung.variants if v.precision == precision)

    def path(self, relative: str) -> Path:
        return self.directory / relative
