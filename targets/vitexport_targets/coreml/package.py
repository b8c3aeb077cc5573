"""Reads an ``.mlpackage`` as a stranger would: no coremltools, nothing believed that is not checked.

::

    Model.mlpackage/
      Manifest.json                              which item is the model
      Data/com.apple.CoreML/model.mlmodel        protobuf (Model.proto, MIL.proto)
      Data/com.apple.CoreML/weights/weight.bin   the constants

The reader is not the one that wrote the file, so it sees what ships. It never writes, never follows a path out of the
package, and refuses with a sentence what is damaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from vitexport_targets.coreml import description, program
from vitexport_targets.coreml.blob import read_blob
from vitexport_targets.coreml.mil import Package
from vitexport_targets.coreml.wire import BadPackage, Message

__all__ = ["BadPackage", "Package", "read"]

#: Real ones have some 600 bytes; what is larger is not a manifest.
LARGEST_MANIFEST = 1 << 20

#: protobuf's own limit for a message.
LARGEST_PROGRAM = (1 << 31) - 1

#: Kinds of model that people have, of Model.proto's oneof; ML Programs are 502.
_ML_PROGRAM = 502
_OTHER_KINDS: Final[Mapping[int, str]] = {
    200: "a pipeline classifier",
    201: "a pipeline regressor",
    202: "a pipeline",
    303: "a neural network regressor",
    403: "a neural network classifier",
    500: "a neural network",
    555: "a custom model",
}


def read(package: Path) -> Package:
    """The package at ``package``, every constant at hand.

    Raises :class:`BadPackage` where it is not an ML Program's package, or is damaged.
    """
    if not package.is_dir():
        raise BadPackage(_no_package(package))
    home = package.resolve()
    model = _model_path(home, package.name)
    message = Message(memoryview(_content(model, LARGEST_PROGRAM, package.name)), "the model")
    _expect_ml_program(message, package.name)
    weights = _WeightFiles(home, model.parent, package.name)
    functions = program.functions(message.message(_ML_PROGRAM, "the ML Program"), weights)
    said = description.read(message.message(2, "the model's description"))
    default = said.default_function
    if default not in functions or set(said.interfaces) - set(functions):
        raise BadPackage(
            f"'{package.name}' describes the functions {', '.join(said.interfaces)}, and its program has "
            f"{', '.join(functions)}. Export it again."
        )
    version = message.integer(1, "the specification version")
    return Package(package, version, functions, said.interfaces, default, said.metadata)


class _WeightFiles:
    """The weight files of one package, each read once."""

    def __init__(self, home: Path, beside: Path, name: str) -> None:
        self._home, self._beside, self._name = home, beside, name
        self._read: dict[str, memoryview] = {}

    def __call__(self, file: str, offset: int, dtype: str, shape: tuple[int, ...], what: str) -> NDArray[Any]:
        if file not in self._read:
            root, _, rest = file.partition("/")
            if root != "@model_path":
                raise BadPackage(f"{what} has its weights in '{file}', which is not inside '{self._name}'.")
            path = _inside(self._home, self._beside / rest, self._name)
            self._read[file] = memoryview(_content(path, None, self._name))
        return read_blob(self._read[file], offset, dtype, shape, what)


def _no_package(path: Path) -> str:
    if not path.is_file():
        return f"'{path}' does not exist. Name an .mlpackage folder."
    return (
        f"'{path.name}' is a file. An ML Program is a folder that ends in .mlpackage; an .mlmodel is of the older "
        "kinds (neural network, pipeline), which are not evaluated here. Convert the model with "
        "minimum_deployment_target iOS16 or later."
    )


def _model_path(home: Path, name: str) -> Path:
    content = _content(home / "Manifest.json", LARGEST_MANIFEST, name)
    try:
        manifest = json.loads(content)
        path = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadPackage(
            f"Manifest.json of '{name}' does not say which file is the model ({type(error).__name__}). Copy it again."
        ) from error
    if not isinstance(path, str):
        raise BadPackage(f"Manifest.json of '{name}' gives no path for its model. Copy the package again.")
    return _inside(home, home / "Data" / path, name)


def _inside(home: Path, path: Path, name: str) -> Path:
    """``path`` with links followed, which must stay in the package."""
    try:
        found = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # an endless link, a NUL
        raise BadPackage(f"'{name}' points to a path that cannot be followed. Copy the package again.") from error
    if not found.is_relative_to(home):
        raise BadPackage(f"'{name}' points outside itself, to '{path.name}'. It was tampered with; do not use it.")
    return found


def _content(path: Path, limit: int | None, name: str) -> bytes:
    try:
        if not path.is_file():
            raise BadPackage(f"'{name}' lacks {path.name}. Copy the whole folder again.")
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise BadPackage(f"{path.name} of '{name}' has {size} bytes; more than {limit} cannot be one.")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadPackage(f"{path.name} of '{name}' cannot be read ({error}). Copy the package again.") from error


def _expect_ml_program(message: Message, name: str) -> None:
    if _ML_PROGRAM in message:
        return
    kind = next((_OTHER_KINDS.get(n, f"a model of kind {n}") for n in message.numbers if n >= 200), "an empty model")
    raise BadPackage(
        f"'{name}' is {kind}, not an ML Program; only those are evaluated here. Convert the model with "
        "minimum_deployment_target iOS16 or later."
    )
