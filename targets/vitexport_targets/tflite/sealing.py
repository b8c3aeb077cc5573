"""What a file says of itself: metadata entries, which every runtime carries along and none acts upon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vitexport_targets.tflite.versions import stated

#: The oldest runtime that knows every operator in its version, counted as TensorFlow counts. The converter writes it.
_OLDEST = "min_runtime_version"

#: TensorFlow's readers take that many bytes, the text and zeros.
_OLDEST_BYTES = 16

_IDENTIFIER = b"TFL3"


def sealed(content: bytes, facts: Mapping[str, str]) -> bytes:
    """The same file with ``facts`` in it, with operators in the versions that they need, and with no claim about
    runtimes but what follows from those."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    _take_in(model, content)
    oldest = stated(model)
    model.metadata = [entry for entry in model.metadata or [] if entry.name != _OLDEST.encode()]
    claim = {} if oldest is None else {_OLDEST: oldest.ljust(_OLDEST_BYTES, "\0")}
    for name, value in (claim | dict(facts)).items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(value.encode("utf-8"))
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    builder = flatbuffers.Builder(len(content) + 4096)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _take_in(model: Any, content: bytes) -> None:
    """Weights that lie behind the flatbuffer, where ai-edge-quantizer puts them from 256 KiB on: packing the model
    again moves the file's end, and what is written there is lost."""
    for buffer in model.buffers:
        if buffer.offset:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0


def facts(content: bytes) -> dict[str, str]:
    """The metadata of a file, as text."""
    import tflite

    model = tflite.Model.GetRootAs(content, 0)
    entries = [model.Metadata(number) for number in range(model.MetadataLength())]
    return {entry.Name().decode(): _text(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()) for entry in entries}


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "replace").rstrip("\0")
