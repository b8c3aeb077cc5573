"""Where transformers' video networks keep their positions, and how one of them is taken to other clips, in place."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

from vitexport.contract import Size
from vitexport.posembed import Fitted, Rule, check_asked, rule_for
from vitexport.posembed.space_time import Volume, to_volume

if TYPE_CHECKING:
    import torch

#: By architecture: the rule in space and the one in time. transformers' own for ViViT takes the root of steps x rows x
#: columns for the side of a square, which gives a table of the wrong length: InternVideo2's pair is taken, a ViT's
#: rule in each step and a line in time. So for VideoMAE where a rule is asked for; else see ``_COMPUTED``.
_OWN = {"timesformer": ("timesformer", "nearest"), "vivit": ("hf", "linear"), "videomae": ("hf", "linear")}

_COMPUTED = (
    "transformers' VideoMAE (arXiv:2203.12602): sines of the token's number, computed for the new number of tokens"
)


def fit(module: Any, size: Size, frames: int, asked: str | None = None) -> Fitted:
    """Take ``module`` to clips of ``frames`` pictures of ``size``, in place. Returns what was done.

    ``asked`` overrides the rule of the kind of table that it is for. Raises ``BadRequest`` where it is for another.
    """
    check_asked({"absolute", "temporal"}, asked)
    config = module.config
    owner = next(part for part in module.modules() if type(part).__name__ in _FITTERS)
    source = _volume(config, _sides(config.image_size), int(config.num_frames))
    target = _volume(config, size, frames)
    own_space, own_time = _OWN[config.model_type]
    space, time = rule_for("absolute", asked, own_space), rule_for("temporal", asked, own_time)
    computed = config.model_type == "videomae" and asked is None
    _FITTERS[type(owner).__name__](owner, source, target, None if computed else (space, time))
    # TimeSformer's blocks find the grid's width in the config, so that a clip that is not square needs it there.
    config.num_frames, config.image_size = frames, size.width
    if source == target:
        return Fitted()
    if computed:
        return Fitted("computed", _COMPUTED)
    used = [*([space] if source[1:] != target[1:] else []), *([time] if source[0] != target[0] else [])]
    return Fitted("+".join(rule.name for rule in used), "; ".join(rule.source for rule in used))


Rules = tuple[Rule, Rule]


def _videomae(owner: Any, source: Volume, target: Volume, rules: Rules | None) -> None:
    """A fixed table, and patches that insist on their size."""
    from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

    table = owner.position_embeddings
    if rules is None:
        steps, rows, columns = target
        owner.position_embeddings = get_sinusoid_encoding_table(steps * rows * columns, table.shape[-1])
    else:
        owner.position_embeddings = _resampled(table, source, target, 0, rules)
    owner.patch_embeddings.forward = MethodType(_project_tubelets, owner.patch_embeddings)


def _vivit(owner: Any, source: Volume, target: Volume, rules: Rules | None) -> None:
    """One learned table over time and space after a class token, and patches that insist on a square."""
    assert rules is not None
    owner.position_embeddings = _parameter(_resampled(owner.position_embeddings, source, target, 1, rules))
    owner.patch_embeddings.forward = MethodType(_project_tubelets, owner.patch_embeddings)


def _timesformer(owner: Any, source: Volume, target: Volume, rules: Rules | None) -> None:
    """A table over space after a class token, another over time."""
    assert rules is not None
    space, time = rules
    owner.position_embeddings = _parameter(space.resample(owner.position_embeddings, source[1:], target[1:], 1))
    if hasattr(owner, "time_embeddings"):
        steps = ((source[0], 1), (target[0], 1))
        owner.time_embeddings = _parameter(time.resample(owner.time_embeddings, *steps, 0))


_FITTERS = {
    "TimesformerEmbeddings": _timesformer,
    "VideoMAEEmbeddings": _videomae,
    "VivitEmbeddings": _vivit,
}


def _project_tubelets(self: Any, pixel_values: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """(N, T, 3, H, W) -> (N, tokens, dim), whatever the size."""
    tokens: torch.Tensor = self.projection(pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)
    return tokens


def _resampled(table: torch.Tensor, source: Volume, target: Volume, kept: int, rules: Rules) -> torch.Tensor:
    import torch

    space, time = rules
    with torch.no_grad():
        return to_volume(table, source, target, kept, space.resample, time.resample)


def _parameter(table: torch.Tensor) -> torch.nn.Parameter:
    import torch

    return torch.nn.Parameter(table.detach().clone(), requires_grad=False)


def _volume(config: Any, size: Size, frames: int) -> Volume:
    depth, *patch = _tubelet(config)
    return frames // depth, size.height // patch[0], size.width // patch[1]


def _tubelet(config: Any) -> tuple[int, int, int]:
    """Frames, rows and columns that one token sees."""
    size = getattr(config, "tubelet_size", 1)
    if not isinstance(size, int):
        depth, rows, columns = size
        return int(depth), int(rows), int(columns)
    return size, int(config.patch_size), int(config.patch_size)


def _sides(value: Any) -> Size:
    return Size(value, value) if isinstance(value, int) else Size(int(value[0]), int(value[1]))
