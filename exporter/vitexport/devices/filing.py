"""What was measured after an export, by a device or here, filed in its report: one rule for every way it comes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vitexport.bundle import whole
from vitexport.contract import Report, Result
from vitexport.errors import BadRequest
from vitexport.manifest import MANIFEST_NAME, REPORT_NAME
from vitexport.reports.file import device_of, read_report, with_results, write_report

Join = Callable[[Report, Sequence[Result]], Report]


def home_of(directory: Path) -> Path:
    """The folder that holds the report: ``directory``, or the one above where it is a bundle's own."""
    return directory.resolve().parent if (directory / MANIFEST_NAME).is_file() else directory


def file(results: Sequence[Result], home: Path, join: Join = with_results) -> Path:
    """Into the report in ``home``, all of ``results`` or none; ``report.html`` is rendered again where it is there.

    Raises ``BadRequest`` where there is no report, or one of another export, ``WorldFailed`` where nothing is written.
    """
    from vitexport.reports import page, stored

    before = read_report(home)
    if not all(_is_of(before, result) for result in results):
        raise BadRequest(f"'{home / REPORT_NAME}' is of another export. Measure a bundle where it was written.")
    after, shown = join(before, results), home / page.PAGE_NAME
    rendered = page.render(stored.around(home, after)) if shown.is_file() else None
    write_report(after, home)
    if rendered is not None:
        with whole(shown) as part:
            part.write_bytes(rendered)
    return home / REPORT_NAME


def filed(results: Sequence[Result], home: Path, join: Join = with_results) -> tuple[bool, str]:
    """Whether they are, and a sentence: where they are now, or why they are nowhere. What took minutes to measure is
    shown all the same."""
    try:
        return True, f"Filed in {file(results, home, join)}."
    except BadRequest as error:
        return False, f"Not filed: {error}"


def kept(made: Report, before: Path) -> Report:
    """``made`` with what devices measured of these very files, byte for byte, out of the report in the folder that it
    replaces; a note says how much was kept, and how much was not for it ran other files."""
    try:
        old = read_report(before)
    except BadRequest:
        if not (path := before / REPORT_NAME).is_file():
            return made
        note = f"'{path}' was not a report this version reads: what devices measured before, if anything, was dropped"
        return replace(made, notes=(*made.notes, note))
    measured = [result for result in old.results if device_of(result)]
    same = [result for result in measured if _is_of(made, result)]
    notes = [
        *_counted(len(same), "kept: what was exported is what they ran, byte for byte"),
        *_counted(len(measured) - len(same), "dropped: they ran other files. Let the devices measure this export"),
    ]
    return replace(with_results(made, same), notes=(*made.notes, *notes))


def _counted(count: int, outcome: str) -> Iterator[str]:
    if count:
        yield f"{count} result{'' if count == 1 else 's'} of devices {outcome}"


def _is_of(report: Report, result: Result) -> bool:
    """A device ran the files that were exported, byte for byte."""
    known = {entry for own in report.results if own.model == result.model for entry in own.files}
    return bool(result.files) and known.issuperset(result.files)
