"""Where timm keeps its position parameters, and how a timm module is taken to another size.

``Model.set_input_size`` does the geometry: the patch grid, windows, shift masks, relative position indices, SwinV2's
coordinate tables and rotary embeddings, which are all computed from the grid. What is *learned* on the old grid is then
resampled from the untouched originals by one of our rules, so that the rule can be chosen. Models without that method
are built again at the new size and given their weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vitexport.contract import Size
from vitexport.errors import BadRequest
from vitexport.posembed import RULES, Fitted, Grid, Rule, Table, check_asked, rule_for
from vitexport.posembed.kernel import pi_resize
from vitexport.posembed.relative import offsets

_ABSOLUTE = "pos_embed"
_RELATIVE = "relative_position_bias_table"

#: Whose rule a module's relative tables follow, by the file of timm that its attention comes from. Swin's own code
#: resamples per head, and so do we; timm's set_input_size takes BEiT's rule there too (``--pos-embed-rule beit``).
_RELATIVE_RULES = {"swin_transformer": "swin"}

#: The absolute rule by what an architecture's name begins with, as timm's vision_transformer.py picks it at loading:
#: its own, but for FlexiViT (arXiv:2212.08013), whose checkpoints "have a strong preference for bilinear".
_ABSOLUTE_RULES = {"flexivit_": "bilinear"}

_COMPUTED = "computed"


@dataclass(frozen=True)
class Shape:
    """What to make of a module. ``rebuild`` builds it blank at ``size``, for the models that cannot change theirs."""

    size: Size
    rebuild: Callable[[], Any]
    patch: int | None = None
    """Patch size; None: the module's own."""
    rule: str | None = None
    """The rule that was asked for; None: the model's own."""


@dataclass(frozen=True, eq=False)
class _Learned:
    """A table as it was on the training grid."""

    owner: str
    name: str
    table: Any
    kind: Table
    grid: Grid
    kept: int


def fit(module: Any, architecture: str, shape: Shape) -> tuple[Any, Fitted]:
    """``module``, weighed at its own size, in another shape: (module, what was done).

    Nothing but position tables (and, with a patch size, the patch kernel) changes. Raises ``BadRequest``.
    """
    import torch

    own = next((rule for start, rule in _ABSOLUTE_RULES.items() if architecture.startswith(start)), "timm")
    with torch.no_grad():
        learned = list(_learned(module))
        check_asked({table.kind for table in learned}, shape.rule)
        rules = [_rule_of(table, module, own, shape.rule) for table in learned]
        if not hasattr(module, "set_input_size"):
            module = _rebuilt(module, learned, rules, shape)
        else:
            kernel = _set_shape(module, shape)
            for table, rule in zip(learned, rules, strict=True):
                _put(module, table, rule)
            if kernel is not None:
                _put_kernel(module, kernel, own)
    return module, _told({rule.name for rule in rules}, module)


def grid_of(module: Any) -> Grid | None:
    """The patch grid that a module is built for, where it has one. Hiera keeps its own elsewhere."""
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    grid = grid or getattr(module, "tokens_spatial_shape", None)
    return (int(grid[0]), int(grid[1])) if grid is not None else None


def tables(module: Any) -> dict[str, Any]:
    """Name -> parameter, of every learned table that belongs to a size."""
    return {
        name: value for name, value in module.named_parameters() if name.rpartition(".")[2] in (_ABSOLUTE, _RELATIVE)
    }


def check_rule(module: Any, model: str, asked: str | None) -> None:
    """Raise ``BadRequest`` where a rule is asked for and ``module`` has one of its own that cannot be exchanged."""
    if asked is not None and _is_windowed(module):
        raise BadRequest(
            f"'{model}' sums two tables of positions by a rule of its own (arXiv:2311.05613), so --pos-embed-rule "
            f"{asked} says nothing to it. Leave it out."
        )


def _is_windowed(module: Any) -> bool:
    return getattr(module, "pos_embed_win", None) is not None and hasattr(module, "mask_spatial_shape")


def bake(module: Any) -> Fitted | None:
    """Sum Hiera's windowed positions once: a resized global table and a tiled window table (arXiv:2311.05613).

    timm does it in every forward, at the training size too, with an antialiased bicubic resize that most runtimes lack.
    None: ``module`` has no such tables.
    """
    import torch

    if not _is_windowed(module):
        return None
    with torch.no_grad():
        tiled = module.pos_embed_win.tile(module.mask_spatial_shape)
        table = torch.nn.functional.interpolate(module.pos_embed, tiled.shape[-2:], mode="bicubic", antialias=True)
        module.pos_embed = torch.nn.Parameter((table + tiled).flatten(2).transpose(1, 2), requires_grad=False)
        module.pos_embed_win = None
    return Fitted("hiera", "timm's Hiera (arXiv:2311.05613): global table bicubic, antialias; window table tiled")


def _learned(module: Any) -> Iterator[_Learned]:
    grid, table = grid_of(module), getattr(module, _ABSOLUTE, None)
    if table is not None and grid is not None and table.ndim == 3:
        yield _Learned("", _ABSOLUTE, table, "absolute", grid, table.shape[1] - grid[0] * grid[1])
    for path, owner in module.named_modules():
        table = getattr(owner, _RELATIVE, None)
        if table is not None:
            window = (int(owner.window_size[0]), int(owner.window_size[1]))
            rows, columns = offsets(window)
            kept = 0 if table.ndim == 3 else len(table) - rows * columns
            yield _Learned(path, _RELATIVE, table, "relative", window, kept)


def _rule_of(learned: _Learned, module: Any, own: str, asked: str | None) -> Rule:
    """``asked`` for the kind of table that it is for; each other table keeps its own."""
    if learned.kind == "relative":
        file = type(module.get_submodule(learned.owner)).__module__.rpartition(".")[2]
        own = _RELATIVE_RULES.get(file, "beit")
    return rule_for(learned.kind, asked, own)


def _set_shape(module: Any, shape: Shape) -> Any | None:
    """timm's geometry. Returns the patch kernel as it was, where its size is to change."""
    size = (shape.size.height, shape.size.width)
    kernel = module.patch_embed.proj.weight.clone() if shape.patch else None
    patch = {"patch_size": (shape.patch, shape.patch)} if shape.patch else {}
    try:
        with warnings.catch_warnings():
            # timm resamples the tables too, and its interpolator warns of torch's own deprecations (timm 1.0.31).
            warnings.simplefilter("ignore", UserWarning)
            module.set_input_size(img_size=size, **patch)
    except (AssertionError, ValueError, RuntimeError, TypeError) as error:
        raise BadRequest(
            f"timm cannot take {type(module).__name__} to {shape.size} ({error}). Leave --size out to use its own size."
        ) from error
    return kernel


def _put(module: Any, learned: _Learned, rule: Rule) -> None:
    import torch

    owner = module.get_submodule(learned.owner)
    grid = grid_of(module) if learned.kind == "absolute" else (int(owner.window_size[0]), int(owner.window_size[1]))
    assert grid is not None
    resampled = rule.resample(learned.table, learned.grid, grid, learned.kept)
    setattr(owner, learned.name, torch.nn.Parameter(resampled, requires_grad=False))


def _put_kernel(module: Any, kernel: Any, own: str) -> None:
    patch = module.patch_embed.patch_size
    how: dict[str, Any] = {"mode": "bilinear", "antialias": False} if own == "bilinear" else {}
    module.patch_embed.proj.weight.copy_(pi_resize(kernel, (patch[0], patch[1]), **how))


def _rebuilt(module: Any, learned: list[_Learned], rules: list[Rule], shape: Shape) -> Any:
    """All weights of ``module`` in one that was built for the new size, its table of positions resampled on the way."""
    if shape.patch:
        raise BadRequest(f"{type(module).__name__} cannot change its patch size. Leave --patch-size out.")
    fitted = shape.rebuild()
    state, wanted, target = module.state_dict(), fitted.state_dict(), grid_of(fitted)
    for table, rule in zip(learned, rules, strict=True):
        if table.kind == "absolute" and target is not None:
            state[_ABSOLUTE] = rule.resample(table.table, table.grid, target, table.kept)
    for name, tensor in state.items():
        if name in wanted and wanted[name].shape != tensor.shape:
            raise BadRequest(
                f"{type(module).__name__} is tied to its training size by '{name}', which nobody defines how to "
                "resample. Leave --size out to use its own size."
            )
    fitted.load_state_dict(state, strict=True)
    return fitted


def _told(used: set[str], module: Any) -> Fitted:
    sources = [RULES[name].source for name in sorted(used)]
    names = sorted(used)
    if _computes(module):
        names.append(_COMPUTED)
        sources.append("a function of the grid, recomputed by timm's set_input_size")
    return Fitted("+".join(names), "; ".join(sources))


def _computes(module: Any) -> bool:
    """Rotary embeddings (EVA-02, DINOv3), and coordinates behind an MLP (SwinV2, its CR variant, relpos ViTs)."""
    coordinates = {"relative_coords_table", "relative_coordinates_log", "rel_coords_log"}
    buffers = {name.rpartition(".")[2] for name, _ in module.named_buffers()}
    return getattr(module, "rope", None) is not None or bool(coordinates & buffers)
