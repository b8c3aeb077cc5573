"""What a user asks of one export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitexport.errors import BadRequest

Task = Literal["classify", "features", "segment"]

#: iOS 16 shipped with macOS 13, 17 with 14, 18 with 15.
CoremlTarget = Literal["ios16", "ios17", "ios18"]
Layout = Literal["ane"]

#: How the range of an activation is taken from what was seen of it: see :mod:`vitexport.quantize.observers`.
Observer = Literal["min-max", "percentile", "mse", "entropy"]

#: A dimension of the input that an artifact leaves open.
Dynamic = Literal["batch", "size"]

#: A side's upper limit is JPEG's (ITU-T T.81 B.2.2): beyond it a number is a slip of the keyboard, not a size.
LARGEST_SIDE = 65_535


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
