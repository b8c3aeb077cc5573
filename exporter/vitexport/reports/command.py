"""``vitexport report``: a report that is there already, for another reader."""

from __future__ import annotations

from pathlib import Path

from vitexport.errors import OK, BadRequest
from vitexport.terminal import EXIT_CODES, Parser


def run(words: list[str]) -> int:
    """Parse, call, print; the exit code."""
    parser = Parser(
        prog="vitexport report",
        description="A report that an export left, for another reader.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("directory", nargs="?", metavar="DIR", help="the folder that vitexport wrote")
    parser.add_argument("--html", action="store_true", help="write report.html again, with what a diff has found since")
    asked = parser.parse_args(words)
    if asked.directory is None:
        raise BadRequest("Name the folder that vitexport wrote: vitexport report DIR --html.")
    from vitexport.reports import page, stored

    found = stored.read(Path(asked.directory))
    if asked.html:
        path = found.home / page.PAGE_NAME
        stored.write(path, page.render(found))
        print(f"Written: {path}")
        return OK
    from vitexport.report import render

    render(found.report.results)
    return OK
