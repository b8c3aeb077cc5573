"""Turn a PyTorch vision model into something that runs where users are, and prove it.

>>> import vitexport
>>> report = vitexport.export(vitexport.ExportRequest(model="vit_small", targets=("webgpu",)))  # doctest: +SKIP
>>> report.verdict  # doctest: +SKIP
'passed'

Importing this package imports neither torch nor any toolchain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["ExportRequest", "Network", "Preprocessing", "Report", "Size", "VitexportError", "export"]

_ROOMS = {
    "ExportRequest": "vitexport.contract",
    "Network": "vitexport.models.network",
    "Preprocessing": "vitexport.contract",
    "Report": "vitexport.contract",
    "Size": "vitexport.contract",
    "VitexportError": "vitexport.errors",
    "export": "vitexport.pipeline",
}

if TYPE_CHECKING:
    from vitexport.contract import ExportRequest, Preprocessing, Report, Size
    from vitexport.errors import VitexportError
    from vitexport.models.network import Network
    from vitexport.pipeline import export


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'vitexport' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
