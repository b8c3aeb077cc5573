"""Anatomies as a person reads them: a column a size, warnings below."""

from __future__ import annotations

from collections.abc import Sequence

from vitexport.anatomy import Anatomy


def render(found: Sequence[Anatomy]) -> str:
    """All of one model."""
    columns = [_column(anatomy) for anatomy in found]
    names = list(columns[0])
    width = max(map(len, names)) + 2
    widths = [max(len(value) for value in column.values()) + 3 for column in columns]
    lines = [
        f"{name:<{width}}" + "".join(f"{column[name]:>{w}}" for column, w in zip(columns, widths, strict=True))
        for name in names
    ]
    warnings = [f"! {warning}" for anatomy in found for warning in anatomy.warnings]
    return "\n".join([found[0].model, "", *lines, *([""] if warnings else []), *warnings])


def _column(anatomy: Anatomy) -> dict[str, str]:
    macs, weights = anatomy.macs, anatomy.weight_bytes
    return {
        "size": str(anatomy.size),
        "patch grid": "x".join(map(str, anatomy.grid)) if anatomy.grid else "-",
        "tokens": f"{anatomy.tokens:,}" if anatomy.tokens else "-",
        "parameters": _si(anatomy.parameters),
        "MACs (2 FLOPs each)": _si(macs.total),
        "  attention": _share(macs.attention, macs.total),
        "    of it matrices": _share(macs.attention_products, macs.total),
        "  MLP": _share(macs.mlp, macs.total),
        "  rest": _share(macs.rest, macs.total),
        "attention matrices' entries": _si(anatomy.attention_entries),
        "  in fp32": _si(anatomy.attention_bytes, "B"),
        "peak activations, fp32": _si(anatomy.peak_activation_bytes, "B"),
        "weights, fp32": _si(weights.fp32, "B"),
        "  fp16": _si(weights.fp16, "B"),
        "  w8": _si(weights.w8, "B"),
        "  w4": _si(weights.w4, "B"),
    }


def _si(count: int, unit: str = "") -> str:
    """``17.56 G``, ``346.3 MB``: decimal, as files and papers count."""
    for prefix, size, digits in (("G", 1e9, 2), ("M", 1e6, 1), ("k", 1e3, 1)):
        if count >= size:
            return f"{count / size:,.{digits}f} {prefix}{unit}"
    return f"{count} {unit}".rstrip()


def _share(part: int, total: int) -> str:
    return f"{part / total:.0%} {_si(part):>8}" if part else "-"
