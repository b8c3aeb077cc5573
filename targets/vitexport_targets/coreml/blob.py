"""``weight.bin``: the constants that are too large for the program's text, each behind a header of its own.

::

    struct blob_metadata { uint32 sentinel = 0xDEADBEEF, data_type; uint64 size_in_bytes, offset, padding_in_bits; }

Little endian; ``offset`` is from the start of the file. The layout is that of coremltools' MILBlob
(https://github.com/apple/coremltools/blob/main/mlmodel/src/MILBlob/Blob/StorageFormat.hpp); no code of it is used.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitexport_targets.coreml.wire import BadPackage

_HEADER = struct.Struct("<IIQQQ")
_SENTINEL = 0xDEADBEEF

#: ``BlobDataType`` of StorageFormat.hpp, by number.
_STORED: Mapping[int, str] = {
    1: "float16",
    2: "float32",
    3: "uint8",
    4: "int8",
    6: "int16",
    7: "uint16",
    8: "int4",
    9: "uint1",
    10: "uint2",
    11: "uint4",
    12: "uint3",
    13: "uint6",
    14: "int32",
    15: "uint32",
}

#: MIL's element types that numpy has.
_WHOLE: Mapping[str, Any] = {
    "bool": np.bool_,
    "float16": np.float16,
    "float32": np.float32,
    "float64": np.float64,
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}").type for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

#: Those it has not: bits an element, packed without gaps, the first one in a byte's lowest bits.
_PACKED: Mapping[str, int] = {"int4": 4, "uint4": 4, "uint6": 6, "uint3": 3, "uint2": 2, "uint1": 1}

ELEMENT_TYPES = frozenset({*_WHOLE, *_PACKED})


def read_blob(content: memoryview, offset: int, dtype: str, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    """The constant whose header is at ``offset``; it must be stored as the program declares it. A view where it can be.

    Raises :class:`BadPackage`, with ``what`` naming the constant.
    """
    if not 0 <= offset <= len(content) - _HEADER.size:
        raise BadPackage(
            f"{what} points to byte {offset} of a weight file of {len(content)} bytes: the file is cut short, or the "
            "offset is wrong. Copy the package again."
        )
    sentinel, number, size, start, _ = _HEADER.unpack_from(content, offset)
    if sentinel != _SENTINEL:
        raise BadPackage(f"{what} points to byte {offset} of the weight file, where no blob begins. Export it again.")
    stored = _STORED.get(number, f"type {number}")
    if stored != dtype and not (stored == "uint8" and dtype == "bool"):
        raise BadPackage(f"{what} is declared {dtype}, and its weights are stored as {stored}. Export it again.")
    if start > len(content) or size > len(content) - start:
        raise BadPackage(
            f"{what} has its weights in bytes {start} to {start + size} of a weight file of {len(content)} bytes: the "
            "file is cut short. Copy the package again."
        )
    return unpack(content[start : start + size], dtype, shape, what)


def unpack(content: memoryview, dtype: str, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    """Raw little-endian elements as an array; ``int4`` and the like become ``int8`` or ``uint8``, one byte each."""
    count = math.prod(shape)
    bits = _PACKED.get(dtype) or 8 * np.dtype(_WHOLE[dtype]).itemsize
    if len(content) != -(-count * bits // 8):
        raise BadPackage(
            f"{what} has {len(content)} bytes, and its shape {list(shape)} of {dtype} takes {-(-count * bits // 8)}. "
            "Export it again."
        )
    if dtype == "bool":
        return np.frombuffer(content, np.uint8).astype(np.bool_).reshape(shape)
    if dtype in _WHOLE:
        return np.frombuffer(content, np.dtype(_WHOLE[dtype]).newbyteorder("<")).reshape(shape)
    return unpack_bits(content, bits, count, signed=dtype.startswith("i")).reshape(shape)


def unpack_bits(content: memoryview, bits: int, count: int, *, signed: bool) -> NDArray[Any]:
    """``count`` integers of ``bits`` (1 to 8) each, least significant bit first, across byte boundaries."""
    flat = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")[: count * bits].reshape(count, bits)
    values = np.packbits(flat, axis=1, bitorder="little")[:, 0]
    if not signed:
        return values
    return ((values ^ (1 << (bits - 1))).astype(np.int16) - (1 << (bits - 1))).astype(np.int8)
