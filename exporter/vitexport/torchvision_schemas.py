"""Import torchvision where its compiled operators cannot load.

Symptom: torchvision's wheel on PyPI is a CUDA build for Linux; beside a CPU build of torch its library does not load,
and ``import torchvision`` (hence timm and transformers' image processors) fails with ``operator torchvision::nms does
not exist``, because it registers shapes and autocast rules for two operators that the library would have defined.

Declaring the two schemas is enough: no model here calls them. Delete this file when torchvision tolerates its own
missing library (https://github.com/pytorch/vision/issues/8985).
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_SCHEMA = "{}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_NAMES = ("nms", "qnms")

_library: Any = None  # torch.library.Library withdraws its schemas when it is collected


def declare() -> None:
    """Make ``import torchvision`` work. Call it before importing timm or transformers; calling it again is free.

    A torchvision whose library loads is imported and otherwise left alone. Raises what torchvision raises if
    declaring the schemas does not help.
    """
    if "torchvision" in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        _declare_missing()
        importlib.import_module("torchvision")


def _declare_missing() -> None:
    import torch

    global _library
    # A failed import leaves the submodules it got through; they must run again with the schemas in place.
    for leftover in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[leftover]
    _library = torch.library.Library("torchvision", "DEF")
    for name in _NAMES:
        _library.define(_SCHEMA.format(name))
