"""A folder that vitexport wrote, with the PyTorch model that it was made of, built again as it was then."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vitexport import bundle as bundles
from vitexport import pipeline
from vitexport.contract import Bundle, Exam, ExportRequest, Report, Size, Target
from vitexport.devices.filing import home_of
from vitexport.errors import BadRequest
from vitexport.manifest import REPORT_NAME, Malformed, decode, find_bundles
from vitexport.toolchain import find

#: The precision in which every target holds PyTorch's own numbers, and by which the others' values are named.
EXACT = "fp32"


@dataclass(frozen=True)
class Exported:
    home: Path
    """The folder that holds the bundles and the report."""
    bundles: tuple[Bundle, ...]
    """Those that were asked for, at each size."""
    request: ExportRequest

    def capture(self) -> dict[Size, Exam]:
        """PyTorch's side at each size. Raises ``BadRequest`` where it is not the network that was exported any more."""
        found = {exam.source.size: exam for exam in pipeline.captured(self.request)}
        for bundle in self.bundles:
            then = bundle.manifest.provenance.weights_sha256
            exam = found.get(bundle.rung.size)
            if exam is None:
                sizes = ", ".join(map(str, found))
                raise BadRequest(
                    f"'{bundle.directory}' is of {bundle.rung.size} and {REPORT_NAME} beside it of {sizes}: it belongs "
                    "to another export. Name a folder as vitexport wrote it."
                )
            now = exam.source.provenance.weights_sha256
            if now != then:
                raise BadRequest(
                    f"'{self.request.model}' has other weights now (sha256 {now[:12]}) than '{bundle.directory}' was "
                    f"exported with ({then[:12]}), so they would differ everywhere. Restore them, or export again."
                )
        return found


def read(directory: Path) -> Exported:
    """Raises ``BadRequest`` where there is no bundle, or no report beside it."""
    found = find_bundles(directory)
    home = home_of(directory)
    path = home / REPORT_NAME
    try:
        report = decode(path.read_bytes(), Report)
    except OSError:
        raise BadRequest(
            f"'{directory}' has no {REPORT_NAME} beside it, which says what PyTorch model it is of. Name a folder "
            "as vitexport wrote it, or export the model again."
        ) from None
    except Malformed as error:
        raise BadRequest(f"'{path}' is not a report this version reads ({error}). Export the model again.") from error
    # Further precisions may prepare the network for fewer bits before it is lowered; here it is wanted as it came.
    return Exported(home, found, replace(report.request, precisions=(EXACT,), runtime="none"))


@contextmanager
def lowered(target: Target, request: ExportRequest, exams: Sequence[Exam], size: Size) -> Iterator[Bundle]:
    """The float32 bundle of the same network, made now, for as long as the block lasts."""
    for need in target.traits.needs:
        find(need)
    with tempfile.TemporaryDirectory(prefix="vitexport-diff-") as folder:
        into = Path(folder)
        artifact = target.lower(tuple(exam.source for exam in exams), request, into)
        made = bundles.complete(into, target.traits.name, exams, artifact)
        yield next(bundle for bundle in made if bundle.rung.size == size)
