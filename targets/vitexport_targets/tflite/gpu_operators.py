"""Which operators LiteRT's GPU delegate takes, as the pinned LiteRT.js itself said (``gpu_operators.json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vitexport_targets.tflite.litertjs import PACKAGE

#: Written by :mod:`.generate_gpu_operators`.
FILE = Path(__file__).with_name("gpu_operators.json")

#: The key of the version that was asked.
RUNTIME = PACKAGE


@dataclass(frozen=True)
class GpuOperators:
    runtime: str
    """``@litertjs/core 2.5.3``"""
    takes: frozenset[str]
    refuses: Mapping[str, str]
    """Operator -> the delegate's reason."""


@cache
def gpu_operators() -> GpuOperators:
    stored = json.loads(FILE.read_text())
    return GpuOperators(f"{RUNTIME} {stored[RUNTIME]}", frozenset(stored["takes"]), stored["refuses"])
