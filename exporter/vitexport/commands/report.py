"""``vitexport report``: a report that is there already, for another reader, or beside another report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vitexport.errors import OK, BadRequest, ParityFailed
from vitexport.terminal import EXIT_CODES, Parser, print_json

if TYPE_CHECKING:
    from vitexport.contract import Result

#: Option and field of :class:`vitexport.reports.compare.Allowed`, and how the option is explained.
_BOUNDS = (
    ("--max-bytes", "bytes_percent", "PERCENT", "by which a file may grow (default: 1)"),
    ("--max-drift", "drift_ratio", "RATIO", "of drift to the old one (default: 4)"),
    ("--max-snr-drop", "snr_drop_db", "DB", "that SNR may fall by, below 100 dB (default: 3)"),
    ("--max-agreement-drop", "agreement_points", "POINTS", "of 100 that agreement may fall by (default: 0.5)"),
    ("--max-latency", "latency_ratio", "RATIO", "of median latency to the old one (default: 1.25)"),
)


def run(words: list[str]) -> int:
    """Parse, call, print; the exit code."""
    asked = _parser().parse_args(words)
    given = {field: value for _, field, _, _ in _BOUNDS if (value := getattr(asked, field)) is not None}
    if asked.compare:
        if asked.directory is not None or asked.html or asked.add:
            raise BadRequest("--compare takes two reports and nothing else: vitexport report --compare OLD NEW.")
        return _compare(asked, given)
    if given:
        option = next(option for option, field, _, _ in _BOUNDS if field in given)
        raise BadRequest(f"{option} means nothing without --compare OLD NEW.")
    if asked.directory is None:
        raise BadRequest("Name the folder that vitexport wrote, such as vitexport report DIR --html.")
    return _show(asked)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="vitexport report",
        description="A report that an export left, for another reader, or beside an older one.",
        epilog=f"{EXIT_CODES}with --compare, 5 says that something became worse",
    )
    add = parser.add_argument
    add("directory", nargs="?", metavar="DIR", help="the folder that vitexport wrote")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--html", action="store_true", help="write DIR/report.html again, with what a diff found since")
    form.add_argument("--markdown", action="store_true", help="print it as GitHub-flavoured Markdown")
    form.add_argument("--json", action="store_true", help="print it as JSON")
    add(
        "--add",
        action="append",
        default=[],
        metavar="FILE",
        help="take back what a device measured: the JSON of a Core ML bundle's Swift package; repeatable",
    )
    add("--compare", nargs=2, metavar=("OLD", "NEW"), help="what became worse: folders or report.json files")
    for option, field, unit, text in _BOUNDS:
        add(option, dest=field, type=float, metavar=unit, help=text)
    return parser


def _show(asked: argparse.Namespace) -> int:
    from vitexport.bundle import whole
    from vitexport.devices import filing
    from vitexport.reports import markdown, page, stored

    place = filing.home_of(Path(asked.directory))
    added = _add(place, asked.add) if asked.add else ()
    found = stored.read(place)
    if asked.html:
        path = found.home / page.PAGE_NAME
        with whole(path) as part:
            part.write_bytes(page.render(found))
        print(f"Written: {path}")
    elif asked.markdown:
        print(markdown.report(found.report), end="")
    elif asked.json:
        print_json(found.report)
    else:
        from vitexport.reports.table import render, rest

        render(found.report.results)
        for line in rest(found.report):
            print(line)
    return ParityFailed.exit_code if any(result.verdict == "failed" for result in added) else OK


def _add(home: Path, files: Sequence[str]) -> tuple[Result, ...]:
    """Into ``report.json``, all of ``files`` or none."""
    from vitexport.bundle import undamaged
    from vitexport.devices import filing
    from vitexport.devices import report as device_report

    bundles = undamaged(home)
    read = (device_report.read(Path(file)) for file in files)
    added = tuple(result for raw in read for result in device_report.accept(raw, bundles))
    filed = filing.file(added, home)
    devices = dict.fromkeys(result.latency.device or result.parity.runtime for result in added)
    print(
        f"Filed in {filed}: {len(added)} cell{'' if len(added) == 1 else 's'} of {', '.join(devices)}.", file=sys.stderr
    )
    return added


def _compare(asked: argparse.Namespace, given: dict[str, float]) -> int:
    from vitexport.reports import compare, comparison_table, markdown
    from vitexport.reports.file import read_report

    allowed = compare.checked(compare.Allowed(**given))
    old, new = (read_report(Path(place)) for place in asked.compare)
    made = compare.compare(old, new, allowed)
    if asked.markdown:
        print(markdown.comparison(made), end="")
    elif asked.json:
        print_json(made)
    else:
        comparison_table.render(made)
    return ParityFailed.exit_code if made.verdict == "failed" else OK
