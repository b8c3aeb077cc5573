"""What was made of a captured program for one plan, for the next: a search lowers the same one a dozen times, and
coremltools' conversion and the ranges of 32 pictures take most of each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from vitexport.contract import SourceModel

T = TypeVar("T")


class Shelf:
    """Lives as long as its program does; so do the packages on it, in a folder of their own."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="vitexport-coreml-")

    def value(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._values:
            self._values[key] = make()
        found: T = self._values[key]
        return found

    def package(self, key: Hashable, make: Callable[[Path], Path], path: Path) -> Path:
        """A copy at ``path``."""
        kept = Path(self._folder.name) / f"{len(self._values)}.mlpackage"
        return Path(shutil.copytree(self.value(("package", key), lambda: make(kept)), path))


_shelves: WeakKeyDictionary[Any, Shelf] = WeakKeyDictionary()


def of(source: SourceModel) -> Shelf:
    if source.program not in _shelves:
        _shelves[source.program] = Shelf()
    return _shelves[source.program]
