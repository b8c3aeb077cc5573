"""Licence names as the hubs write them -> SPDX identifiers, or the name by which the publisher calls its own."""

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

#: What a model card means by ``other``, by how its repository's name begins: its text links the licence itself.
_OTHER = {
    "nvidia/segformer-": "NVIDIA Source Code License for SegFormer (non-commercial)",
    "nvidia/mit-": "NVIDIA Source Code License for SegFormer (non-commercial)",
    "apple/deeplabv3-mobilevit-": "Apple Sample Code License (apple/ml-cvnets)",
    "apple/mobilevit-": "Apple Sample Code License (apple/ml-cvnets)",
}


def of_repository(repository: str, name: str | None) -> str:
    """What a card of the hub's ``repository`` calls its licence."""
    if name == "other":
        return next((own for start, own in _OTHER.items() if repository.startswith(start)), name)
    return spdx(name)


def spdx(name: str | None) -> str:
    """``apache-2.0`` -> ``Apache-2.0``; what is not known stays as it is written; nothing is ``unknown``."""
    return _BY_LOWER.get(name.lower(), name) if name else UNKNOWN
