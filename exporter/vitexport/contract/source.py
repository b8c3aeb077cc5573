"""The network as PyTorch has it: what it eats, what its answers mean, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from vitexport.contract.request import Observer, Size, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Image = NDArray[np.uint8]  # (height, width, 3), RGB, 0..255
    Tensor = NDArray[Any]
    Tensors = Mapping[str, Tensor]

#: What an output means, which decides how it is judged and shown.
#: ``logits`` (N, classes) · ``features`` (N, dim) or (N, tokens, dim) · ``mask`` (N, 1, H, W), probability of
#: foreground in 0..1 · ``segmentation`` (N, classes, H, W), scores.
Meaning = Literal["logits", "features", "mask", "segmentation"]

#: How a class's probability is read off an output: ``probabilities`` are in 0..1 as they are; ``logits`` take a softmax
#: over the classes (axis 1) first, and where there is one class alone a sigmoid.
Scores = Literal["logits", "probabilities"]

#: ``batch``: two photos at once; ``size``: a photo at another size than the network was traced at.
CaseKind = Literal["photo", "noise", "batch", "size"]

INPUT_NAME = "pixel_values"  # what Optimum and transformers.js feed


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
