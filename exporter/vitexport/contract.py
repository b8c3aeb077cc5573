"""The nouns that pass through vitexport, and the one seam that a target implements. No torch, no I/O.

``ExportRequest`` -> ``SourceModel`` -> ``Artifact`` -> ``Bundle`` -> ``Parity`` + ``Measurement`` -> ``Report``

All of them are frozen dataclasses. What is stored (``Manifest``, ``Report``) or sent (``ExportRequest``) holds only
plain data, so that it round-trips through JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, runtime_checkable

import msgspec

from vitexport.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vitexport.preview import Site

    Image = NDArray[np.uint8]  # (height, width, 3), RGB, 0..255
    Tensor = NDArray[Any]
    Tensors = Mapping[str, Tensor]

Verdict = Literal["passed", "failed", "not run"]
Task = Literal["classify", "features", "segment"]

#: iOS 16 shipped with macOS 13, 17 with 14, 18 with 15.
CoremlTarget = Literal["ios16", "ios17", "ios18"]
Layout = Literal["ane"]

#: How the range of an activation is taken from what was seen of it: see :mod:`vitexport.quantize.observers`.
Observer = Literal["min-max", "percentile", "mse", "entropy"]

#: A dimension of the input that an artifact leaves open.
Dynamic = Literal["batch", "size"]

#: What an output means, which decides how it is judged and shown.
#: ``logits`` (N, classes) · ``features`` (N, dim) or (N, tokens, dim) · ``mask`` (N, 1, H, W), probability of
#: foreground in 0..1 · ``segmentation`` (N, classes, H, W), scores.
Meaning = Literal["logits", "features", "mask", "segmentation"]

#: How a class's probability is read off an output: ``probabilities`` are in 0..1 as they are; ``logits`` take a softmax
#: over the classes (axis 1) first, and where there is one class alone a sigmoid.
Scores = Literal["logits", "probabilities"]

#: How an artifact is held to PyTorch. ``drift``: max|a-b| / max|b|, for precisions that only round differently.
#: ``noise``: rms(a-b) / rms(b), for precisions that lose bits, where one pixel on a mask's edge may flip and the mask
#: still be right. ``loss``: noise of precisions that change the weights, which is what the user asked for: no more than
#: their rounding explains. A mask's scale is its range, 1. See :mod:`vitexport.parity`.
Metric = Literal["drift", "noise", "loss"]

#: ``batch``: two photos at once; ``size``: a photo at another size than the network was traced at.
CaseKind = Literal["photo", "noise", "batch", "size"]

INPUT_NAME = "pixel_values"  # what Optimum and transformers.js feed

#: A side's upper limit is JPEG's (ITU-T T.81 B.2.2): beyond it a number is a slip of the keyboard, not a size.
LARGEST_SIDE = 65_535


# --------------------------------------------------------------------------------------------------- the request


@dataclass(frozen=True, order=True)
class Size:
    """Height x width in pixels, in that order everywhere."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """``"224"`` is square, ``"144x256"`` is height 144, width 256."""
        parts = text.lower().split("x")
        if len(parts) > 2 or not all(p.isascii() and p.isdigit() and 0 < int(p) <= LARGEST_SIDE for p in parts):
            raise BadRequest(
                f"'{text}' is not a size. Write height x width, such as 144x256, or one number for a square, such as "
                "224."
            )
        return cls(int(parts[0]), int(parts[-1]))


@dataclass(frozen=True)
class ExportRequest:
    """Everything a user can ask of one export. The command line is a spelling of this, nothing more."""

    model: str
    targets: tuple[str, ...] = ("all",)
    sizes: tuple[Size, ...] = ()
    """A ladder: one rung per size, in this order. Empty: the model's own size."""
    pad_size: bool = False
    """Round a size up to the model's patch grid instead of refusing it."""
    pos_embed_rule: str | None = None
    """How position tables are resampled: a name of :data:`vitexport.posembed.RULES`. None: the model's own rule."""
    weights_size: Size | None = None
    """The size that a weights file was trained at, where its position table does not tell."""
    patch_size: int | None = None
    """FlexiViT: another patch size, for which the patch kernel is resized."""
    frames: int | None = None
    """Of a clip, for networks that take video. None: the model's own number."""
    frame_stride: int | None = None
    """One in this many frames of a video goes into a clip. None: as the model was trained."""
    precisions: tuple[str, ...] = ()
    """Empty: each target's defaults."""
    weights: str = "pretrained"
    """``pretrained``, ``random`` (seeded, see :mod:`vitexport.models.weights`), or a file."""
    task: Task | None = None
    """None: what the checkpoint was trained for."""
    images: str | None = None
    """Folder of parity images. None: the built-in photos."""
    calibration: str | None = None
    """Folder of images that activations are measured on. None: the parity photos, with crops and mirror images."""
    observer: Observer | None = None
    """How their ranges are taken from what was seen. None: as :mod:`vitexport.quantize.observers` finds best."""
    out: str | None = None
    force: bool = False
    seed: int = 0
    dynamic: tuple[Dynamic, ...] = ()
    runtime: Literal["copy", "none"] = "copy"
    """Whether a web bundle carries the runtime's files or leaves them to the page's bundler."""
    max_file_bytes: int | None = None
    """Weights above this are sharded, for hosts that cap a file's size."""
    max_drop: float | None = None
    """Points of agreement that fewer bits may cost. None: 0.5 for classes, 1 for masks."""
    plan: str | None = None
    """File with a plan of which layers stay float. None: one is made, where agreement tells anything."""
    require_proof: bool = False
    """``not run`` counts as failed."""
    require_device: bool = False
    """A verdict from anything but the runtime that users have counts as failed."""
    coreml_target: CoremlTarget | None = None
    """The oldest system that a Core ML package runs on. None: iOS 17."""
    image_input: bool | None = None
    """Whether a Core ML package takes a picture, not a tensor. None: it does unless it returns features."""
    layout: Layout | None = None
    """``ane``: (B, C, 1, S) tensors and 1x1 convolutions, as Apple advises for the Neural Engine. None: as captured."""

    @property
    def size(self) -> Size | None:
        """The one size that a network is built at. None: its own."""
        if len(self.sizes) > 1:
            raise ValueError("a ladder is built rung by rung: replace(request, sizes=(rung,))")
        return self.sizes[0] if self.sizes else None


# ------------------------------------------------------------------------------------------------- what a model eats


@dataclass(frozen=True)
class Clip:
    """Frames of one scene as one input, oldest first: what a video network eats."""

    frames: int
    stride: int = 1
    """One in this many frames of the video is taken."""
    layout: Literal["TCHW", "CTHW"] = "TCHW"
    """Of one clip's tensor: time, channels, height, width. transformers' video networks take TCHW."""


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded photo to the network's input, exactly; of a clip, from each of its frames.

    RGB uint8 -> resize (Pillow's antialiased filters) -> centre crop -> float32 / 255 -> (x - mean) / std -> NCHW.

    ``fit`` says how a photo of another shape is resized: ``crop`` scales it until it covers ``resize``, ``squash``
    stretches it to exactly that. The centre crop then takes ``size`` out of either.
    """

    size: Size
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos"] = "bilinear"
    fit: Literal["crop", "squash"] = "squash"
    resize: Size | None = None
    """What is resized to before the crop. None: ``size``, so that ``squash`` has nothing left to crop."""
    crop_rounding: Literal["half-even", "floor"] = "half-even"
    """How an odd margin is halved: torchvision (timm) rounds half to even, transformers rounds down."""
    clip: Clip | None = None
    """None: the network takes single pictures."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, without the batch: (3, H, W), or a clip's four dimensions in its layout."""
        if self.clip is None:
            return (3, self.size.height, self.size.width)
        outer = (self.clip.frames, 3) if self.clip.layout == "TCHW" else (3, self.clip.frames)
        return (*outer, self.size.height, self.size.width)


@dataclass(frozen=True)
class OutputSpec:
    """One named output. ``shape`` counts the batch as 1."""

    name: str
    meaning: Meaning
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()
    scores: Scores | None = None
    """None for features, which are no scores."""
    person: int | None = None
    """Of a mask or a segmentation, the channel that tells of people: with ``scores`` all that a page needs to draw
    their mask, see :func:`vitexport.parity.person_mask`. None: no channel does, as far as its labels tell."""


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from and what may be done with them."""

    origin: str
    """A hub id, an npm or PyPI package with its version, a file's name, or ``random (seed 0)``."""
    licence: str
    """SPDX identifier where there is one; ``unknown`` where the source does not say."""
    weights_sha256: str
    """Of the parameters and buffers, by name, in sorted order: the identity of what was exported."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A picture that parity is judged on. Of a clip, ``image`` holds all frames: (T, height, width, 3)."""

    name: str
    kind: Literal["photo", "noise"]
    image: Image


@dataclass(frozen=True, eq=False)
class SourceModel:
    """The PyTorch side: weights loaded, size fixed, eval mode, captured. The reference all artifacts are held to."""

    name: str
    task: Task
    preprocessing: Preprocessing
    outputs: tuple[OutputSpec, ...]
    provenance: Provenance
    program: Any
    """``torch.export.ExportedProgram``; float32; one input ``pixel_values`` (N, 3, H, W) or clips; outputs in order."""
    forward: Callable[[Tensor], dict[str, Tensor]]
    """The uncaptured PyTorch module on a float32 NCHW batch: what is true."""
    probes: tuple[Probe, ...]
    module: Any = None
    """The ``torch.nn.Module`` that was captured, for a target that must take it apart."""
    rounding: float = 0.0
    """Drift of PyTorch's float32 answers from its own float64 ones: what rounding alone does to this network."""
    size_step: int = 1
    """Where the size is left open, heights and widths are multiples of this."""
    pos_embed_rule: str = ""
    pos_embed_source: str = ""
    notes: tuple[str, ...] = ()
    """What was done otherwise than asked, for the user to read."""
    keep_float: Mapping[str, frozenset[tuple[int, int]]] = field(default_factory=dict)
    """By precision, the layers that stay float in it: fingerprints of their weights, see
    :mod:`vitexport.quantize.layers`."""
    hub_config: Mapping[str, Any] = field(default_factory=dict)
    """What a transformers ``config.json`` says of this architecture (``model_type`` and friends)."""
    calibration: tuple[Probe, ...] = ()
    """What activations are measured on: see :func:`vitexport.quantize.calibration.of`. Empty: the photos of
    ``probes``."""
    observer: Observer | None = None
    """As in the request."""

    @property
    def size(self) -> Size:
        return self.preprocessing.size


@dataclass(frozen=True, eq=False)
class Case:
    """An input, (N, 3, H, W) or clips, and what PyTorch answers to it. Photos, one by one, are what contrast is judged
    on."""

    name: str
    kind: CaseKind
    pixel_values: Tensor
    reference: Tensors


@dataclass(frozen=True, eq=False)
class Exam:
    """What an artifact is held to at one size: a case for each probe of the source, in order, then batches."""

    source: SourceModel
    cases: tuple[Case, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(N, 3, H, W), or (N, ...) of a clip; 0 for each dimension that the artifact is to take any of."""
        kinds = {case.kind for case in self.cases}
        *outer, height, width = self.source.preprocessing.input_shape
        sides = (0, 0) if "size" in kinds else (height, width)
        return (0 if "batch" in kinds else 1, *outer, *sides)


# ------------------------------------------------------------------------------------------------------- the bundle


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


# --------------------------------------------------------------------------------------------------------- the proof

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


# ---------------------------------------------------------------------------------------------------------- the seam


@dataclass(frozen=True)
class Precision:
    """A precision that a target offers. ``because`` says where the tolerance's number comes from."""

    name: str
    tolerance: float
    because: str
    metric: Metric = "drift"
    default: bool = False


@dataclass(frozen=True)
class Need:
    """Something a target cannot do without, as data: found, or reported missing with the command that brings it."""

    kind: Literal["python", "npm", "browser"]
    name: str
    install: str


@dataclass(frozen=True)
class Traits:
    """What a target can do, as data: listed, documented and tested without importing its toolchain."""

    name: str
    summary: str
    precisions: tuple[Precision, ...]
    providers: tuple[str, ...]
    """Each variant is proven on every one of them."""
    older: tuple[str, ...] = ()
    """Those of ``providers``, the oldest first, that are runtimes of years ago. What passes there is stated in the
    manifest; what does not is their limit and no fault of the artifact, hence ``not run``, whatever is required."""
    needs: tuple[Need, ...] = ()
    options: tuple[str, ...] = ()
    """Fields of :class:`ExportRequest` beyond the common ones that it honours: ``dynamic``, ``runtime``, ..."""
    shows: tuple[str, ...] = ()
    """Providers that show what is computed on the way (``taps`` of :meth:`Target.open`), the quickest first. A target
    that has any is :class:`Transparent`."""
    devices: tuple[str, ...] = ()
    """Ways to reach a device that is attached to this machine, ``adb`` or ``ios``. A target that has any is
    :class:`Attachable`."""
    threaded: tuple[str, ...] = ()
    """Providers that can be told how many threads to compute with. A target that has any is :class:`Threaded`."""

    def precision(self, name: str) -> Precision:
        return next(p for p in self.precisions if p.name == name)


@dataclass(frozen=True, eq=False)
class Run:
    """One inference. ``ms`` is taken beside the runtime, from the call to the outputs' arrival in CPU memory."""

    outputs: Tensors
    ms: float


class Session(AbstractContextManager["Session"], Protocol):
    """A variant loaded in its own runtime. ``placement`` is None where the runtime does not tell."""

    device: Device
    load_ms: float
    placement: Placement | None

    def run(self, pixel_values: Tensor) -> Run:
        """One inference on float32 NCHW, or on clips."""


@runtime_checkable
class Gated(Protocol):
    """What a session is as well, whose artifact needs more than one comparison to be proved."""

    def gates(self, cases: Sequence[Case], answers: Sequence[Tensors], judged: Parity) -> tuple[Gate, ...]:
        """Examine what was loaded beyond ``judged``, the comparison of its ``answers`` to ``cases`` with PyTorch's."""


@runtime_checkable
class Resident(Protocol):
    """What a session is as well, that runs in this process: what memory it takes can be read from the system."""

    resident: Literal[True]


class Target(Protocol):
    """A back end. Two verbs, because a target that cannot be opened cannot be proved."""

    traits: Traits

    def lower(self, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
        """Write the model's files into the empty folder ``into``: one network at one or more sizes, the first of which
        is the one a reader who knows nothing of ladders finds. Raises ``LoweringFailed``."""

    def open(self, bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
        """Load a variant. ``taps`` are names of intermediate values to be returned beside the outputs.

        Raises ``RuntimeUnavailable`` where this host cannot run it.
        """


@runtime_checkable
class Threaded(Protocol):
    """What a target is as well, whose runtimes can be told how many threads to use: ``vitexport bench`` asks it."""

    def open_threaded(self, bundle: Bundle, precision: str, provider: str, threads: int) -> Session:
        """As :meth:`Target.open`, on a provider of ``traits.threaded``. The session's device states the number."""


@dataclass(frozen=True)
class Attachment:
    """A device that is attached to this machine, and what its user brings to run files on it."""

    way: str
    """One of ``traits.devices``."""
    serial: str | None = None
    """Which one, where there are several."""
    program: Path | None = None
    """What runs a file there, where no such thing comes with the device."""
    threads: tuple[int, ...] = ()
    """Empty: as the target finds right."""
    team: str | None = None
    """Whose signature a program needs there, where the device runs nothing unsigned."""


@runtime_checkable
class Attachable(Protocol):
    """What a target is as well, whose files run on a device that is attached to this machine."""

    def measure_attached(self, bundles: Sequence[Bundle], asked: Attachment) -> tuple[Result, ...]:
        """Of each variant, on each of the device's own providers, under the device's name. A stand-in is called one.

        Raises ``MissingToolchain`` where there is no device or no way to reach it, ``BadRequest`` where it is not clear
        which or what it is, ``WorldFailed`` where it goes away.
        """


@runtime_checkable
class Hosted(Protocol):
    """What a target is as well, whose runtime may have more providers here than it is proven on everywhere."""

    def further_providers(self) -> tuple[str, ...]:
        """Those of this machine: ``vitexport bench`` times them too."""


@runtime_checkable
class Remote(Protocol):
    """What a target is as well, whose bundles a browser on any device runs by itself: ``vitexport bench --device
    browser`` asks it."""

    def device_site(self, bundle: Bundle) -> Site:
        """A site whose page runs every rung, precision and provider of the bundle, each apart from the others, and
        posts a :class:`DeviceReport` to ``report``, relative to itself; on the way, to ``progress``, JSON of ``done``,
        ``of`` (cells) and ``now`` (words)."""


@dataclass(frozen=True)
class Value:
    """Something that a file computes on the way to its outputs."""

    name: str
    """In this file: what ``taps`` of :meth:`Target.open` takes."""
    shape: tuple[int, ...] | None = None
    """None where it is not known before it is computed."""


@runtime_checkable
class Transparent(Protocol):
    """What a target is as well, whose files show what they compute on the way: ``vitexport diff`` asks it."""

    def values(self, bundle: Bundle, precision: str) -> Mapping[str, Value]:
        """The values of a variant that are floats and no outputs, in the order in which they are computed. The key is
        what the float32 file of the same network calls it: quantisers may rename what they touch."""


@dataclass(frozen=True)
class Finding:
    """An operation of a file that an accelerated path does not take."""

    operation: str
    """``OpType (its name in the file)``"""
    layer: str
    """Of the network, as far as the file tells; ``behind`` a layer where it is what follows. May be empty."""
    why: str
    """What is wrong with it, as the end of a sentence that begins with the operation."""
    rewrite: str
    """What would mend it: a sentence."""


@dataclass(frozen=True)
class Lint:
    """Where a variant's operations would run, told from its file and from what is known of its runtime."""

    accelerator: str
    """What the operations are to run on, as the target calls it."""
    basis: str
    """Where the rules come from, and how far they are to be trusted."""
    operations: NonNegative
    """That the runtime has to place."""
    findings: tuple[Finding, ...]
    note: str = ""
    """What else there is to know."""


@runtime_checkable
class Accelerated(Protocol):
    """What a target is as well, whose users' runtime computes on something that does not take every operation:
    ``vitexport inspect --placement`` asks it."""

    def lint(self, bundle: Bundle, precision: str) -> Lint:
        """Examine a variant; nothing is run. Raises ``LoweringFailed`` where its file cannot be read as what it is."""
