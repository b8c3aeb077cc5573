"""``report.html``: one file that holds all it shows, asks nobody for anything and runs no script.

It is read where a report is sent to: from a disk, an attachment, a CI's artifacts. So there is nothing to load, and the
policy in its head forbids to. Every text of a report comes from a model's card, a file's name or a device, hence from
anybody: Jinja escapes all of them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitexport.contract import FileEntry, Report
from vitexport.reports import again, axes, cells, plots, ways
from vitexport.reports.stored import Stored

PAGE_NAME = "report.html"


def render(stored: Stored) -> bytes:
    """The page, UTF-8."""
    style = _style()
    report = stored.report
    return (
        _templates()
        .get_template("page.html")
        .render(
            report=report,
            style=Markup(style),
            policy=_policy(style),
            model=report.results[0].model if report.results else report.request.model,
            command=again.command(report.request),
            of_devices=ways.of_devices(report),
            groups=cells.groups(report),
            counted=cells.counted(report),
            unrun=[(each, ways.ways(report, each)) for each in cells.unrun(report)],
            shapes=plots.shapes(report),
            scatters=plots.scatters(report),
            latencies=plots.latencies(report),
            walks=plots.walks(stored.traces),
            traces=stored.traces,
            height=axes.HEIGHT,
            proof=_data_uri(stored.proof),
            toolchain=_toolchain(stored),
            rungs=[(manifest, rung) for manifest in stored.manifests for rung in manifest.rungs],
            files=_files(report),
        )
        .encode()
    )


def _policy(style: str) -> str:
    """This page's style and its own pictures, nothing else from anywhere."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


@cache
def _style() -> str:
    return (Path(__file__).parent / "page" / "page.css").read_text(encoding="utf-8")


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("vitexport.reports", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": cells.number, "megabytes": cells.megabytes, "ms": cells.milliseconds, "joined": _joined}
    return made


def _joined(words: Iterable[object]) -> str:
    return ", ".join(map(str, words))


def _data_uri(png: bytes | None) -> str:
    return "" if png is None else f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _files(report: Report) -> tuple[FileEntry, ...]:
    """Each once: providers share them."""
    found = {file.path: file for result in report.results for file in result.files}
    return tuple(found[path] for path in sorted(found))


def _toolchain(stored: Stored) -> dict[str, str]:
    return {
        manifest.target: _joined(f"{name} {version}" for name, version in manifest.toolchain.items())
        for manifest in stored.manifests
    }
