"""Where transformers keeps its position parameters, and how one of its modules is taken to another size, in place.

transformers resamples inside ``forward``, from a square that it takes the root of, and not every architecture without
being asked. Here the table is resampled once and ``interpolate_pos_encoding`` then returns it as it is, so that the
graph holds a constant and a size need not be square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

from vitexport.contract import Size
from vitexport.errors import BadRequest
from vitexport.posembed import Fitted, Grid, Rule, Table, check_asked, rule_for, source_grid
from vitexport.posembed.relative import offsets

if TYPE_CHECKING:
    import torch

#: The absolute rule of an architecture by its folder in transformers/models; all others follow ``hf``.
_ABSOLUTE_RULES = {"dinov2_with_registers": "dinov2-registers"}

_DECLARE = "Correct image_size in its config.json: one number, or [height, width]."


@dataclass(frozen=True, eq=False)
class _Absolute:
    """Embeddings of patches with a learned table, (1, tokens, dim)."""

    owner: Any
    table: torch.Tensor
    trained: Size
    patch: Size
    packed: bool
    """CLIP and SigLIP keep the table in an ``nn.Embedding`` and look it up by position."""


def fit(module: Any, size: Size, model: str, asked: str | None = None) -> Fitted:
    """Resample what ``module`` has learned per position to ``size``, in place. Returns what was done.

    Networks without such tables are left alone. ``asked`` overrides the rule of the kind of table that it is for.
    Raises ``BadRequest``: the table cannot be resampled, or is not that of the size its config says.
    """
    absolute = list(_absolute(module, model, size))
    relative = [part for part in module.modules() if hasattr(part, "generate_relative_position_index")]
    found: dict[Table, bool] = {"absolute": bool(absolute), "relative": bool(relative)}
    check_asked({kind for kind, there in found.items() if there}, asked)
    used: dict[str, Rule] = {}
    for place in absolute:
        rule = rule_for("absolute", asked, _ABSOLUTE_RULES.get(_architecture(place.owner), "hf"))
        if _fit_absolute(place, size, rule, model):
            used[rule.name] = rule
    for part in relative:
        rule, patch = rule_for("relative", asked, "hf-beit"), _size(module.config.patch_size)
        if _fit_relative(part, (size.height // patch.height, size.width // patch.width), rule):
            used[rule.name] = rule
    return Fitted("+".join(used), "; ".join(rule.source for rule in used.values()))


def _absolute(module: Any, model: str, size: Size) -> Iterator[_Absolute]:
    import torch

    for part in module.modules():
        table = getattr(part, "position_embeddings", None)
        patches = getattr(part, "patch_embeddings", None)
        if isinstance(table, torch.nn.Parameter) and patches is not None:
            trained = _size(getattr(patches, "image_size", None) or module.config.image_size)
            if hasattr(part, "interpolate_pos_encoding") and hasattr(patches, "patch_size"):
                yield _Absolute(part, table, trained, _size(patches.patch_size), packed=False)
            elif trained != size:
                raise BadRequest(
                    f"'{model}' was trained at {trained} and its position table cannot be resampled to {size}. "
                    "Leave --size out."
                )
        table = getattr(part, "position_embedding", None)
        if isinstance(table, torch.nn.Embedding) and hasattr(part, "patch_embedding"):
            yield _Absolute(part, table.weight[None], _size(part.image_size), _size(part.patch_size), packed=True)


def _fit_absolute(place: _Absolute, size: Size, rule: Rule, model: str) -> bool:
    """Whether anything was resampled. At its own size too the table becomes a constant of the graph."""
    import torch

    patch, trained = place.patch, place.trained
    declared = (trained.height // patch.height, trained.width // patch.width)
    kept = _kept_tokens(place.owner)
    source = source_grid(place.table.shape[1], kept, declared, f"The position table of '{model}'", _DECLARE)
    target = (size.height // patch.height, size.width // patch.width)
    with torch.no_grad():
        resampled = torch.nn.Parameter(rule.resample(place.table, source, target, kept).clone(), requires_grad=False)
    if place.packed:
        place.owner.position_embedding = torch.nn.Embedding.from_pretrained(resampled[0])
        place.owner.register_buffer("position_ids", torch.arange(resampled.shape[1])[None], persistent=False)
        if source != target:
            place.owner.forward = MethodType(_at_any_size, place.owner)
    else:
        place.owner.position_embeddings = resampled
        place.owner.patch_embeddings.image_size = (size.height, size.width)
    place.owner.interpolate_pos_encoding = MethodType(_as_it_is, place.owner)
    return source != target


def _kept_tokens(owner: Any) -> int:
    """How many tokens of a table have no place on the grid: class and distillation tokens. Registers come later and
    carry no position."""
    names = ("cls_token", "class_embedding", "distillation_token")
    return sum(getattr(owner, name, None) is not None for name in names)


def _as_it_is(self: Any, embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
    table: torch.Tensor | None = getattr(self, "position_embeddings", None)
    return table if table is not None else self.position_embedding.weight[None]


def _at_any_size(self: Any, pixel_values: torch.Tensor, **_: Any) -> torch.Tensor:
    """CLIP refuses any size but its own unless it may interpolate, which :func:`_as_it_is` then does not."""
    embedded: torch.Tensor = type(self).forward(self, pixel_values, interpolate_pos_encoding=True)
    return embedded


def _fit_relative(part: Any, target: Grid, rule: Rule) -> bool:
    """BEiT's and Data2Vec's table, whose forward would resample it and reads rows for columns if it is not square."""
    import torch

    source: Grid = (int(part.window_size[0]), int(part.window_size[1]))
    rows, columns = offsets(source)
    table = part.relative_position_bias_table
    with torch.no_grad():
        resampled = rule.resample(table, source, target, len(table) - rows * columns).clone()
    part.relative_position_bias_table = torch.nn.Parameter(resampled, requires_grad=False)
    part.window_size, part.num_relative_distance = target, len(resampled)
    part.forward = MethodType(_looked_up, part)
    return source != target


def _looked_up(self: Any, *_: Any, **__: Any) -> torch.Tensor:
    """(1, heads, tokens, tokens) at the module's own window."""
    index = self.generate_relative_position_index(self.window_size)
    bias: torch.Tensor = self.relative_position_bias_table[index].permute(2, 0, 1)[None]
    return bias


def _architecture(part: Any) -> str:
    """``vit`` for ``transformers.models.vit.modeling_vit.ViTEmbeddings``."""
    return type(part).__module__.split(".")[-2]


def _size(value: Any) -> Size:
    return Size(value, value) if isinstance(value, int) else Size(int(value[0]), int(value[1]))
