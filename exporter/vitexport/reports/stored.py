"""A folder that vitexport wrote, as a reader of its report finds it: the report, the pictures, what a diff left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitexport.contract import Manifest, Report
from vitexport.manifest import MANIFEST_NAME, Malformed, decode
from vitexport.reports.file import read_report

if TYPE_CHECKING:
    from vitexport.diff.trace import Trace

PROOF_NAME = "proof.png"

#: What ``vitexport diff`` leaves beside its picture: the figures.
TRACES_NAME = "diff.json"

#: Of a picture that is put into the page, which is read on phones: twenty times what selfie's is.
LARGEST_PICTURE = 16 * 2**20


@dataclass(frozen=True)
class Stored:
    home: Path
    """The folder that holds the report and the bundles."""
    report: Report
    manifests: tuple[Manifest, ...] = ()
    """Of the bundles that are there and can be read."""
    proof: bytes | None = None
    """``proof.png``, where there is one."""
    traces: tuple[Trace, ...] = ()


def read(directory: Path) -> Stored:
    """Raises ``BadRequest`` where ``directory`` holds no report that this version reads."""
    home = directory.parent if directory.is_file() else directory
    return around(home, read_report(directory))


def around(home: Path, report: Report) -> Stored:
    """``report`` with what lies in ``home``. What is missing or damaged there is left out: the report stands alone."""
    return Stored(home, report, _manifests(home), _proof(home / PROOF_NAME), _traces(home / TRACES_NAME, report))


def _manifests(home: Path) -> tuple[Manifest, ...]:
    found = []
    for path in sorted(home.glob(f"*/{MANIFEST_NAME}")):
        try:
            found.append(decode(path.read_bytes(), Manifest))
        except (OSError, Malformed):
            continue
    return tuple(found)


def _proof(path: Path) -> bytes | None:
    try:
        if path.stat().st_size > LARGEST_PICTURE:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return data if data.startswith(b"\x89PNG\r\n\x1a\n") else None


def _traces(path: Path, report: Report) -> tuple[Trace, ...]:
    from vitexport.diff.trace import Trace

    try:
        traces = decode(path.read_bytes(), tuple[Trace, ...])
    except (OSError, Malformed):
        return ()
    known = {(r.model, r.target, r.precision, r.provider, r.size) for r in report.results}
    return tuple(t for t in traces if (t.model, t.target, t.precision, t.provider, t.size) in known)
