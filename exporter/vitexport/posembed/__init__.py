"""Position parameters at another size: resampled once, on the weights, before any trace.

A ViT learns one vector per patch of its training grid, so at another size its table must be resampled, and every
library does it a little differently: on a smooth table the rules below differ by 3 to 15 % (relative L2). A rule is
chosen by the library that the model comes from, can be overridden (``--pos-embed-rule``), and is named in the result.

What is resampled, one file per kind: :mod:`.absolute` tables (ViT, DeiT, DINOv2, SigLIP, Hiera), :mod:`.relative` bias
tables (Swin, BEiT), tables over :mod:`.space_time` (ViViT), the patch :mod:`.kernel` (FlexiViT). What is computed from
the grid (rotary embeddings, SwinV2's continuous positions, VideoMAE's sines) has no table: it is only told the new
grid. :mod:`.in_timm`, :mod:`.in_transformers` and :mod:`.in_video` know where each library keeps them.

Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from vitexport.errors import BadRequest, did_you_mean
from vitexport.posembed import absolute, relative
from vitexport.posembed.grid import Grid, source_grid

if TYPE_CHECKING:
    import torch

    Resample = Callable[[torch.Tensor, Grid, Grid, int], torch.Tensor]

__all__ = ["RULES", "Fitted", "Grid", "Rule", "Table", "check_asked", "named", "rule_for", "source_grid"]

Table = Literal["absolute", "relative", "temporal"]


@dataclass(frozen=True)
class Rule:
    """One way of resampling a table of positions.

    ``resample(table, source, target, kept)``: an *absolute* table is (1, kept + rows x columns, dim), its first
    ``kept`` tokens (class, distillation, registers) having no place on the grid; source and target are patch grids. A
    *relative* one is (offsets + kept, heads), its last ``kept`` rows being BEiT's class-token biases, or (heads, 2 rows
    - 1, 2 columns - 1); source and target are windows. A *temporal* one is (places, steps, dim), and its grids have one
    column: (steps, 1). Computed in float32, returned in the table's dtype; a table
    that is on the target grid already is returned as it is.
    """

    name: str
    table: Table
    source: str
    """The paper, library or file that the rule comes from."""
    resample: Resample


def _rule(name: str, table: Table, source: str, how: Callable[..., Any], **settings: Any) -> Rule:
    return Rule(name, table, source, partial(how, **settings) if settings else how)


RULES = {
    rule.name: rule
    for rule in (
        _rule(
            "timm",
            "absolute",
            "timm.layers.resample_abs_pos_embed: bicubic, antialias",
            absolute.to_size,
            mode="bicubic",
            antialias=True,
        ),
        _rule(
            "hf",
            "absolute",
            "transformers' interpolate_pos_encoding (ViT, DeiT, DINOv2, CLIP, SigLIP): bicubic, no antialias",
            absolute.to_size,
            mode="bicubic",
            antialias=False,
        ),
        _rule(
            "dinov2",
            "absolute",
            "facebookresearch/dinov2, vision_transformer.py: bicubic, no antialias, scale factor (n + 0.1) / N",
            absolute.by_offset_scale,
            offset=0.1,
        ),
        _rule(
            "dinov2-registers",
            "absolute",
            "facebookresearch/dinov2, hub/backbones.py, the _reg models (arXiv:2309.16588): bicubic, antialias",
            absolute.to_size,
            mode="bicubic",
            antialias=True,
        ),
        _rule(
            "bilinear",
            "absolute",
            "timm.layers.resample_abs_pos_embed as it loads FlexiViT (arXiv:2212.08013): bilinear, no antialias",
            absolute.to_size,
            mode="bilinear",
            antialias=False,
        ),
        _rule(
            "timesformer",
            "absolute",
            "facebookresearch/TimeSformer, vit.py, and transformers' TimesformerEmbeddings: nearest",
            absolute.to_size,
            mode="nearest",
        ),
        _rule(
            "nearest",
            "temporal",
            "facebookresearch/TimeSformer, vit.py, and transformers' TimesformerEmbeddings: nearest",
            absolute.to_size,
            mode="nearest",
        ),
        _rule(
            "linear",
            "temporal",
            "OpenGVLab/InternVideo, InternVideo2's pos_embed.py (arXiv:2403.15377): linear, half-pixel centres",
            absolute.to_size,
            mode="bilinear",
        ),
        _rule(
            "swin",
            "relative",
            "microsoft/Swin-Transformer, utils.py load_pretrained: bicubic per head, no antialias",
            relative.to_window,
            mode="bicubic",
            antialias=False,
        ),
        _rule(
            "levit",
            "relative",
            "timm.layers.resize_rel_pos_bias_table_levit (microsoft/Cream, TinyViT): bicubic per head, antialias",
            relative.to_window,
            mode="bicubic",
            antialias=True,
        ),
        _rule(
            "beit",
            "relative",
            "timm.layers.resize_rel_pos_bias_table (microsoft/unilm, BEiT): linear on a geometrically spaced grid",
            relative.by_geometric_grid,
        ),
        _rule(
            "hf-beit",
            "relative",
            "transformers' BeitRelativePositionBias (MiDaS v3.1, arXiv:2307.14460): bilinear per head, no antialias",
            relative.to_window,
            mode="bilinear",
            antialias=False,
        ),
    )
}


@dataclass(frozen=True)
class Fitted:
    """What was done to a module's position parameters; empty where nothing had to be."""

    rule: str = ""
    """A name of ``RULES``, or ``computed`` for positions that are a function of the grid."""
    source: str = ""


def named(name: str) -> Rule:
    """The rule called ``name``. Raises ``BadRequest`` with the nearest one."""
    if name not in RULES:
        raise BadRequest(
            f"There is no position rule '{name}'.{did_you_mean(name, RULES)} There are: {', '.join(RULES)}."
        )
    return RULES[name]


def check_asked(kinds: set[Table], asked: str | None) -> None:
    """Check that a model whose tables are of ``kinds`` has one for the rule ``asked``. Raises ``BadRequest``."""
    if asked is None or named(asked).table in kinds:
        return
    fitting = ", ".join(rule.name for rule in RULES.values() if rule.table in kinds)
    raise BadRequest(
        f"Position rule '{asked}' is for {RULES[asked].table} tables, and this model learns "
        + (f"{' and '.join(sorted(kinds))} ones. Use one of: {fitting}." if kinds else "no table of positions.")
    )


def rule_for(table: Table, asked: str | None, own: str) -> Rule:
    """The rule ``asked`` for, where it is one for such a ``table``, else the model's ``own``."""
    return RULES[asked] if asked is not None and RULES[asked].table == table else RULES[own]
