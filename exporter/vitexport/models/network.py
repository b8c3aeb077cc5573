"""What every source family builds: a PyTorch module, and all that is known about feeding and reading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vitexport.contract import Meaning, Preprocessing, Scores, Task

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Network:
    """A module that takes float32 (N, 3, H, W), or clips in the layout of its preprocessing's ``clip``, and returns one
    tensor. Eval mode, weights loaded, size fixed.

    A factory of your own (``--model file.py:factory``) may return one of these, or a bare ``torch.nn.Module``.
    """

    module: torch.nn.Module
    preprocessing: Preprocessing
    task: Task
    output_name: str
    """``logits``, ``mask`` or ``features``."""
    meaning: Meaning
    labels: tuple[str, ...] = ()
    origin: str = "own module"
    licence: str = "unknown"
    size_step: int | None = None
    """Heights and widths it takes are multiples of this: the patch size. None: not known; see `vitexport.dynamic`."""
    hub_config: Mapping[str, Any] = field(default_factory=dict)
    """What a transformers ``config.json`` says of this architecture, where it has one."""
    pos_embed_rule: str = ""
    """How learned positions were taken to this size: a rule of :mod:`vitexport.posembed`; empty where nothing was."""
    pos_embed_source: str = ""
    """The paper, library or file that the rule comes from."""
    notes: tuple[str, ...] = ()
    """What was done otherwise than asked, for the user to read."""
    scores: Scores | None = None
    """None: by its meaning. A mask holds probabilities, logits and a segmentation hold logits."""
