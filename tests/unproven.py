"""Bundles as ``vitexport`` writes them, but for the proof: for tests that read the files, or run them by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitexport import bundle as bundles
from vitexport import pipeline, registry
from vitexport.contract import Bundle, Exam, ExportRequest


def written(folder: Path, request: ExportRequest, exams: Sequence[Exam] = ()) -> tuple[Bundle, ...]:
    """What is asked of the one target, in ``folder``: a bundle for each size. ``exams`` are of networks that no request
    can name."""
    folder.mkdir(parents=True, exist_ok=True)
    (target,) = request.targets
    asked = exams or pipeline.captured(request)
    artifact = registry.target(target).lower(tuple(exam.source for exam in asked), request, folder)
    return bundles.complete(folder, target, asked, artifact)
