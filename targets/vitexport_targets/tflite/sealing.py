"""What a file says of itself: metadata entries, which every runtime carries along and none acts upon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Written by the converter for the float file, from the versions of its operations. The quantiser changes operations
#: and leaves it: a runtime of that age loads the file and answers nonsense (tflite-runtime 2.14: cosine 0.05).
_OLDEST = b"min_runtime_version"

_IDENTIFIER = b"TFL3"


def sealed(content: bytes, facts: Mapping[str, str], *, quantised: bool) -> bytes:
    """The same file with ``facts`` in it, and without a claim that no longer holds."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    _take_in(model, content)
    if quantised:
        model.metadata = [entry for entry in model.metadata or [] if entry.name != _OLDEST]
    for name, value in facts.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = list(value.encode("utf-8"))
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata = [*(model.metadata or []), entry]
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
    return {
        entry.Name().decode(): model.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode("utf-8", "replace")
        for entry in entries
    }
