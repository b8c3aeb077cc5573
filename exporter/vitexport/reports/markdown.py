"""A report, or a comparison of two, as GitHub-flavoured Markdown: short enough for a pull request.

Texts come from anybody, and a pull request's reader is notified of every ``@name``: they are escaped for HTML, for
tables and for GitHub's own marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vitexport.contract import Report, Verdict
from vitexport.reports import again, cells, ways
from vitexport.reports.cells import milliseconds, number
from vitexport.reports.compare import Check, Compared, Comparison
from vitexport.reports.file import device_of

_MARKS: dict[str, str] = {"passed": "✅", "failed": "❌", "not run": "⬜", "timed": "⏱️"}

_OUTCOMES: dict[Verdict, str] = {
    "passed": "✅ nothing became worse",
    "failed": "❌ regression",
    "not run": "⬜ nothing could be compared",
}

#: CommonMark takes a backslash before any ASCII punctuation. ``&`` and ``<`` become entities, for HTML's sake.
_PUNCTUATION = re.compile(r"([\\`*_{}\[\]()#+!|~>-])")

#: GitHub makes links of these wherever letters follow; a space of no width in between keeps them words.
_LINKS = re.compile(r"([@#]|://|www\.|gh-)(?=\w)", re.IGNORECASE)

_NO_WIDTH = "\u200b"

_WIDE = "In brackets after a median whose runs spread widely: where it lies, with 95% confidence."

#: A comment on GitHub ends at 65,536 characters, and a list that long helps nobody.
_MOST_REASONS = 20


def report(made: Report) -> str:
    """The table, and in a fold what ran it and what did not run."""
    notes = _Notes()
    rows = [row for group in cells.groups(made) for row in group.rows]
    table = [_row(row, notes) for row in rows]
    model = made.results[0].model if made.results else made.request.model
    lines = [
        f"### {text(model)}: {_said(made.verdict)}",
        "",
        f"{cells.counted(made)}. {text(made.provenance.origin)}, {text(made.provenance.licence)}.",
        "",
        *_table(
            (
                "",
                "variant",
                "on",
                "size",
                "bytes",
                "drift",
                "SNR dB",
                "agreement",
                "cold ms",
                "median ms",
                "p90 ms",
                "notes",
            ),
            "llllrrrrrrrl",
            table,
        ),
        "",
        *([_WIDE, ""] if any(row.interval for row in rows) else []),
        *_fold("Devices, and what was not run", [f"{mark}. {each}" for mark, each in notes.lines]),
        *_fold("What would run the rest", [f"- {text(way.where)}: {_code(way.command)}" for way in ways.all_of(made)]),
        *_fold("Notes", [f"- {text(note)}" for note in made.notes[:_MOST_REASONS]]),
        *_fold(
            f"The same again, with vitexport {text(made.vitexport)}",
            [
                f"- {_code(again.command(made.request))}",
                *(f"- {text(way.where)}: {_code(way.command)}" for way in ways.of_devices(made)),
            ],
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def comparison(made: Comparison) -> str:
    """Verdict, regressions in words, and the table in a fold."""
    worse, known = made.regressions, [cell for cell in made.cells if cell.was != "missing"]
    lines = [
        f"### Beside the last export: {_OUTCOMES[made.verdict]}{_left_out(made)}",
        "",
        *(f"- {text(sentence)}" for sentence in worse[:_MOST_REASONS]),
        *([f"- and {len(worse) - _MOST_REASONS} more"] if len(worse) > _MOST_REASONS else []),
        *([""] if worse else []),
        *(f"{text(note)}\n" for note in made.notes),
        *_fold(
            f"{len(known)} cells from before, {len(made.cells) - len(known)} new",
            _table(
                ("", "variant", "on", "size", "was", "is", "bytes", "drift", "SNR dB", "agreement", "median ms"),
                "llllllrrrrr",
                [_compared(cell) for cell in made.cells],
            ),
        ),
        *_fold("Not compared", [f"- {text(each)}" for each in _not_compared(made)[:_MOST_REASONS]]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _left_out(made: Comparison) -> str:
    checks = [check for cell in made.cells for check in cell.checks if check.figure == "latency"]
    count = sum(check.verdict == "not run" for check in checks)
    return f"; latency of {count} cell{'' if count == 1 else 's'} was not compared" if count else ""


def text(said: str) -> str:
    """``said`` on one line, as nothing but what it says."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())
    escaped = _PUNCTUATION.sub(r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")
    return _LINKS.sub(rf"\1{_NO_WIDTH}", escaped)


def _code(command: str) -> str:
    """As code: what an ``@`` or a link is elsewhere is none there, and a backtick needs more of them around it."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in command).split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


class _Notes:
    """Numbered; the same text gets the same number."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def mark(self, *said: str) -> str:
        known = dict.fromkeys(each for each in said if each)
        self._texts += [each for each in known if each not in self._texts]
        return ", ".join(map(str, sorted(self._texts.index(each) + 1 for each in known)))

    @property
    def lines(self) -> list[tuple[int, str]]:
        return [(index, text(each)) for index, each in enumerate(self._texts, 1)]


def _row(row: cells.Row, notes: _Notes) -> Sequence[str]:
    r = row.result
    device = f"{row.ran_on}, {row.runtime}" if row.runtime and row.runtime != row.ran_on else row.ran_on
    stand_in = f"no device's figure: {row.stand_in}" if row.stand_in else ""
    return (
        _said(row.verdict),
        f"{text(r.target)} {text(r.precision)}",
        text(", ".join(word for word in (r.provider, device_of(r)) if word)),
        str(r.size),
        f"{row.bytes:,}",
        _judged(row, "drift", number(r.parity.drift, ".1e")),
        _judged(row, "snr_db", number(r.parity.snr_db, ".1f")),
        number(r.parity.agreement, ".4f"),
        milliseconds(r.latency.cold_ms),
        milliseconds(r.latency.median_ms) + (f" ({row.interval})" if row.interval else ""),
        milliseconds(r.latency.p90_ms),
        notes.mark(row.why, device, stand_in, row.warning),
    )


def _judged(row: cells.Row, figure: str, said: str) -> str:
    """With its bound where it decided, small where the other one did."""
    if row.held is None:
        return said
    if row.held.figure != figure:
        return f"<sub>{said}</sub>"
    return f"{said} ({row.held.shown})"


def _compared(cell: Compared) -> Sequence[str]:
    checks = {check.figure: check for check in cell.checks}
    return (
        f"{'🆕' if cell.was == 'missing' else _MARKS[cell.verdict]} {cell.said}",
        f"{text(cell.target)} {text(cell.precision)}",
        text(cell.where),
        str(cell.size),
        cell.was,
        cell.now,
        _change(checks.get("bytes"), "{:+.1f} %"),
        _change(checks.get("drift"), "×{:.2f}"),
        _change(checks.get("snr_db"), "{:+.1f}", -1),
        _change(checks.get("agreement"), "{:+.2f}", -1),
        _change(checks.get("latency"), "×{:.2f}"),
    )


def _change(check: Check | None, how: str, sign: float = 1.0) -> str:
    """Bold where it failed, so that the cell to look at is seen; with the mark of what was not run where it is shown,
    and not judged."""
    if check is None or (check.change is None and check.verdict != "not run"):
        return "–"
    if check.change is None:
        return _MARKS["not run"]
    # What is lost is counted upwards, and read downwards; -0.0 is no loss.
    said = how.format(sign * check.change + 0.0)
    if check.verdict == "not run":
        return f"{said} {_MARKS['not run']}"
    return f"**{said}**" if check.verdict == "failed" else said


def _not_compared(made: Comparison) -> list[str]:
    return [
        f"{check.figure} of {cell.name}: {check.reason}"
        for cell in made.cells
        for check in cell.checks
        if check.verdict == "not run"
    ]


def _said(verdict: Verdict | cells.Shown) -> str:
    return f"{_MARKS[verdict]} {verdict}"


def _table(heads: Sequence[str], aligned: str, lines: Sequence[Sequence[str]]) -> list[str]:
    rule = ["--:" if side == "r" else "---" for side in aligned]
    return ["| " + " | ".join(each) + " |" for each in (heads, rule, *lines)]


def _fold(title: str, lines: Sequence[str]) -> list[str]:
    return ["<details>", f"<summary>{title}</summary>", "", *lines, "", "</details>", ""] if lines else []
