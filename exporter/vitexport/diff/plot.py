"""SNR along the network as a picture: a panel for each trace, with the place in red at which it falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from vitexport.diff.trace import Row, Trace

_INK, _FAINT, _PAPER, _PANEL, _GRID = (232, 234, 237), (150, 156, 166), (17, 19, 23), (26, 29, 36), (52, 57, 68)
_LINE, _OWN, _FALL = (92, 168, 255), (124, 132, 148), (255, 104, 96)

_SCALE = 2  # drawn twice as large, since Pillow draws lines without antialiasing
_LEFT, _RIGHT, _TOP, _HEIGHT, _NAMES, _GAP = 56, 24, 58, 190, 96, 14
_LEAST_WIDTH, _STEP = 640, 30  # pixels; from one place to the next
_LONGEST_NAME = 16  # letters that fit in _NAMES
_TICK_DB = 20

#: Above this a value is PyTorch's own, but for rounding: bit-identical ones are reported as 200 dB.
_CEILING_DB = 160.0


_font = cache(ImageFont.load_default)


def plot(traces: Sequence[Trace]) -> Image.Image:
    """RGB. What was not run has no panel; where nothing was, the picture says so."""
    shown = [trace for trace in traces if trace.rows]
    places = max((len(trace.rows) for trace in shown), default=0)
    width = max(_LEAST_WIDTH, _LEFT + _RIGHT + _STEP * places)
    panels = [_panel(trace, width) for trace in shown] or [_said("Nothing was run.", width)]
    sheet = Image.new("RGB", (width + 2 * _GAP, sum(p.height + _GAP for p in panels) + _GAP), _PAPER)
    y = _GAP
    for panel in panels:
        sheet.paste(panel, (_GAP, y))
        y += panel.height + _GAP
    return sheet


def _panel(trace: Trace, width: int) -> Image.Image:
    size = (width, _TOP + _HEIGHT + _NAMES)
    panel = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), _PANEL)
    draw = ImageDraw.Draw(panel)
    axes = _Axes(trace.rows, width)
    for db in range(0, int(axes.top_db) + 1, _TICK_DB):
        draw.line([*axes.at(axes.left, db), *axes.at(axes.right, db)], _GRID, _SCALE)
    draw.line(axes.points("own_snr_db"), _OWN, _SCALE, joint="curve")
    draw.line(axes.points("snr_db"), _LINE, 2 * _SCALE, joint="curve")
    for index, row in enumerate(trace.rows):
        if row.snr_db is not None:
            fell = row.place == trace.first
            _dot(draw, axes.place(index, row.snr_db), _FALL if fell else _LINE, 5 if fell else 3)
    panel = panel.resize(size, Image.Resampling.LANCZOS)
    _label(panel, trace, axes)
    return panel


class _Axes:
    """From a place and decibels to pixels of the enlarged panel."""

    def __init__(self, rows: Sequence[Row], width: int) -> None:
        self.rows = rows
        values = [_clipped(row.snr_db) for row in rows if row.snr_db is not None]
        self.top_db: float = _TICK_DB * max(1, math.ceil(max(values, default=0.0) / _TICK_DB))
        self.left, self.right = float(_LEFT), float(width - _RIGHT)

    def at(self, x: float, db: float) -> tuple[float, float]:
        return x * _SCALE, (_TOP + _HEIGHT * (1 - db / self.top_db)) * _SCALE

    def place(self, index: int, db: float) -> tuple[float, float]:
        return self.at(self.x(index), min(_clipped(db), self.top_db))

    def x(self, index: int) -> float:
        return self.left + (self.right - self.left) * (index + 0.5) / len(self.rows)

    def points(self, figure: str) -> list[tuple[float, float]]:
        found = [(index, getattr(row, figure)) for index, row in enumerate(self.rows)]
        return [self.place(index, db) for index, db in found if db is not None]


def _clipped(db: float) -> float:
    """NaN is drawn as 0."""
    return min(max(db, 0.0), _CEILING_DB) if db == db else 0.0


def _dot(draw: ImageDraw.ImageDraw, at: tuple[float, float], ink: tuple[int, int, int], radius: int) -> None:
    x, y, r = *at, radius * _SCALE
    draw.ellipse((x - r, y - r, x + r, y + r), ink)


def _label(panel: Image.Image, trace: Trace, axes: _Axes) -> None:
    draw = ImageDraw.Draw(panel)
    draw.text((12, 10), f"{trace.model}: {trace.label}", _INK, _font(15))
    said = trace.finding.partition(". ")[0].rstrip(".")
    draw.text((12, 33), said, _FALL if trace.first else _FAINT, _font(13))
    small = _font(11)
    draw.text((panel.width - 12, 12), "SNR dB", _LINE, small, anchor="ra")
    draw.text((panel.width - 64, 12), "of its own", _OWN, small, anchor="ra")
    for db in range(0, int(axes.top_db) + 1, _TICK_DB):
        draw.text((_LEFT - 8, axes.at(0, db)[1] / _SCALE), str(db), _FAINT, small, anchor="rm")
    every = math.ceil(14 * len(trace.rows) / (axes.right - axes.left))  # a name takes 14 pixels
    for index, row in enumerate(trace.rows):
        fell = row.place == trace.first
        if index % every == 0 or fell:
            _name(panel, row, round(axes.x(index)), _FALL if fell else _FAINT)


def _name(panel: Image.Image, row: Row, x: int, ink: tuple[int, int, int]) -> None:
    """Upright, its end at the axis; the end of a long one, which tells it from others."""
    length = _NAMES - 12
    said = row.place if len(row.place) <= _LONGEST_NAME else f"…{row.place[1 - _LONGEST_NAME :]}"
    strip = Image.new("RGB", (length, 14), _PANEL)
    ImageDraw.Draw(strip).text((length, 7), said, ink, _font(11), anchor="rm")
    panel.paste(strip.rotate(90, expand=True), (x - 7, _TOP + _HEIGHT + 8))


def _said(what: str, width: int) -> Image.Image:
    panel = Image.new("RGB", (width, _TOP), _PANEL)
    ImageDraw.Draw(panel).text((12, 18), what, _FAINT, _font(15))
    return panel
