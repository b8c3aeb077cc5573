"""Licence names as the hubs write them -> SPDX identifiers."""

from __future__ import annotations

UNKNOWN = "unknown"

#: What a set of random numbers is licensed under: nothing to license.
RANDOM = "not applicable (random weights)"

_SPDX = (
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC-BY-4.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "MIT",
    "OpenRAIL",
)
_BY_LOWER = {name.lower(): name for name in _SPDX}


def spdx(name: str | None) -> str:
    """``apache-2.0`` -> ``Apache-2.0``; what is not known stays as it is written; nothing is ``unknown``."""
    return _BY_LOWER.get(name.lower(), name) if name else UNKNOWN
