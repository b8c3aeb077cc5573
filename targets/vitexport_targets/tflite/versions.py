"""Which version of each operator a file needs, and the oldest runtime that knows them all.

Why: the versions are all that keeps an old runtime from a file that it cannot compute. ai-edge-quantizer changes the
types of an operator and leaves the float file's version and claim: tflite-runtime 2.14 then takes int8 weights with a
scale for each channel, and answers nonsense (cosine 0.05).

The rules are TensorFlow Lite's own, for the operators and types of our files: ``op_version.cc`` and
``runtime_version.cc`` in https://github.com/google-ai-edge/LiteRT/tree/main/tflite/converter/tools/versioning. Runtimes
are counted as TensorFlow counts, whatever carries them: tflite-runtime 2.14 is TensorFlow 2.14's; ai-edge-litert began
again at 1.0 with TensorFlow 2.18's.

Where those rules let a runtime through that computes a form wrongly, ours is the first version whose every runtime is
right. Tried on ViT-Ti and the selfie network in TensorFlow 2.15 to 2.17 and ai-edge-litert 1.0 to 2.3, November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Types that kernels take since their first version.
_PLAIN = ("float32", "int32")


@dataclass(frozen=True)
class Use:
    """One operator, as a file uses it."""

    types: tuple[str, ...]
    """Of its inputs; empty for one that is left out."""
    made: str
    shapes: tuple[tuple[int, ...], ...]
    scales: int
    """Of its second input, or of its first where it has but one."""
    options: Any

    @property
    def rank(self) -> int:
        return max(map(len, self.shapes), default=0)

    @property
    def broadcasts(self) -> bool:
        return len(self.shapes) > 1 and self.shapes[0] != self.shapes[1]

    def has(self, option: str) -> bool:
        """Whether an option is there and is not zero."""
        return bool(getattr(self.options, option, 0))


#: Version, the first runtime that has it, and when it is needed. Of those that match, the last counts.
Row = tuple[int, str, Callable[[Use], bool]]


def _of(*types: str) -> Callable[[Use], bool]:
    """The first inputs are of these types."""
    return lambda use: use.types[: len(types)] == types


def _plain(use: Use) -> bool:
    return use.types[0] in _PLAIN


def _ranked(least: int) -> Callable[[Use], bool]:
    return lambda use: _plain(use) and use.rank > least


def _spread(least: int) -> Callable[[Use], bool]:
    return lambda use: _plain(use) and use.broadcasts and use.rank > least


def _hybrid(use: Use) -> bool:
    """int8 weights with a scale for each channel, float activations."""
    return use.types[:2] == ("float32", "int8") and use.scales > 1


def _matrix(use: Use) -> bool:
    return use.types[:2] in (("float32", "float32"), ("int8", "int8"))


def _grouped(use: Use) -> bool:
    return _matrix(use) and use.shapes[0][-1] != use.shapes[1][-1]


def _dilated(use: Use) -> bool:
    return _matrix(use) and max(use.options.dilationWFactor, use.options.dilationHFactor) > 1


#: Operators of one version as far as our files use them: with plain types.
_ONCE = {
    "AVERAGE_POOL_2D": "1.5.0",
    "CONCATENATION": "1.5.0",
    "ADD": "1.5.0",
    "MUL": "1.5.0",
    "MAX_POOL_2D": "1.5.0",
    "RELU": "1.5.0",
    "RELU6": "1.5.0",
    "RESHAPE": "1.5.0",
    "SOFTMAX": "1.5.0",
    "MEAN": "1.6.0",
    "SQUEEZE": "1.6.0",
    "EXP": "1.7.0",
    "SIN": "1.9.0",
    "NEG": "1.9.0",
    "ARG_MAX": "1.9.0",
    "SUM": "1.10.0",
    "SQRT": "1.10.0",
    "RSQRT": "1.10.0",
    "POW": "1.10.0",
    "REDUCE_MAX": "1.11.0",
    "PACK": "1.11.0",
    "ABS": "1.13.0",
    "SQUARED_DIFFERENCE": "1.13.1",
    "LEAKY_RELU": "1.13.1",
    "COS": "1.14.0",
    "GATHER_ND": "1.14.0",
    "LOGISTIC": "1.14.0",
    "TANH": "1.14.0",
    "HARD_SWISH": "1.15.0",
    "GELU": "2.9.0",
}

_SEVERAL: dict[str, tuple[Row, ...]] = {
    "BATCH_MATMUL": ((1, "2.3.0", _of("float32", "float32")),),
    "BROADCAST_TO": ((2, "2.5.0", _plain),),
    "CAST": ((1, "1.5.0", lambda use: {use.types[0], use.made} <= {*_PLAIN, "uint8", "int64", "bool"}),),
    "CONV_2D": (
        (1, "1.5.0", _of("float32", "float32")),
        (3, "1.14.0", _of("int8", "int8")),
        (4, "2.3.0", _of("int16", "int8")),
        (5, "2.4.0", _hybrid),
        (6, "2.9.0", _grouped),
    ),
    "DEPTHWISE_CONV_2D": (
        (1, "1.5.0", _of("float32", "float32")),
        (2, "1.12.0", _dilated),
        (3, "1.14.0", _of("int8", "int8")),
        (5, "2.3.0", _of("int16", "int8")),
        (6, "2.3.0", _hybrid),
    ),
    "DEQUANTIZE": (
        (2, "1.14.0", _of("int8")),
        (3, "1.15.0", lambda use: use.types[0] in ("int16", "float16")),
        # Scales by channel are 5 in TensorFlow's rules, and only the claim says so here: LiteRT.js 2.5.3's GPU delegate
        # leaves what is above 3 to the CPU, and then computes ViT-Ti wrongly (drift 0.5), which it refuses otherwise.
        (3, "2.7.0", lambda use: use.types[0] == "int8" and use.scales > 1),
    ),
    "DIV": ((1, "1.6.0", _plain), (2, "2.3.0", _spread(4))),
    "FULLY_CONNECTED": (
        (1, "1.5.0", _of("float32", "float32")),
        (4, "1.14.0", _of("int8", "int8")),
        (5, "2.0.0", lambda use: _matrix(use) and use.has("keepNumDims")),
        (6, "2.1.0", lambda use: _matrix(use) and len(use.types) == 2),
        (12, "2.17.0", _hybrid),
        # Of TensorFlow's rules these need no more than 5, being neither refused nor known. Biases under int16 are wrong
        # up to 2.18; blocks of int4 are wrong, or crash, up to ai-edge-litert 1.2. 13 came with 2.18, before both.
        (14, "2.21.0", _of("int16", "int8")),
        (14, "2.21.0", _of("float32", "int4")),
    ),
    "GATHER": ((1, "1.6.0", lambda use: _plain(use) and not use.has("batchDims")),),
    "MAXIMUM": ((1, "1.14.0", _plain), (3, "2.3.0", _spread(4))),
    "MINIMUM": ((1, "1.14.0", _plain), (3, "2.3.0", _spread(4))),
    "PAD": ((1, "1.5.0", _plain), (4, "2.6.0", _ranked(4))),
    "PADV2": ((1, "1.9.0", _plain), (4, "2.6.0", _ranked(4))),
    "QUANTIZE": (
        (1, "1.14.0", lambda use: (use.types[0], use.made) == ("float32", "int8")),
        (2, "1.15.0", lambda use: (use.types[0], use.made) == ("float32", "int16")),
    ),
    "RESIZE_BILINEAR": ((1, "1.7.0", _plain), (3, "2.2.0", lambda use: _plain(use) and use.has("halfPixelCenters"))),
    "SLICE": ((1, "1.14.0", _plain), (5, "2.5.0", _ranked(4))),
    "STRIDED_SLICE": ((1, "1.6.0", _plain), (4, "2.2.0", _ranked(4))),
    "SUB": ((1, "1.6.0", _plain), (3, "2.3.0", _spread(4))),
    "TRANSPOSE": ((1, "1.6.0", _plain), (4, "2.3.0", _ranked(4)), (6, "2.12.0", _ranked(5)), (8, "2.22.0", _ranked(6))),
    "TRANSPOSE_CONV": (
        (1, "1.9.0", _of("int32", "float32", "float32")),
        (3, "2.3.0", _of("int32", "float32", "float32", "float32")),
        # TensorFlow up to 2.16 refuses it by its types, and LiteRT.js's GPU delegate leaves what is above 3 to the CPU.
        (3, "2.17.0", _of("int32", "int8", "float32")),
        (4, "2.13.0", lambda use: _of("int32", "float32", "float32")(use) and use.has("fusedActivationFunction")),
    ),
}

TABLE = _SEVERAL | {name: ((1, runtime, _plain),) for name, runtime in _ONCE.items()}


def stated(model: Any) -> str | None:
    """Raise the versions in a ``ModelT`` to what its operators need; operators of one kind share theirs, as in
    TensorFlow's converter. Returns the oldest runtime for all of them, such as ``2.9.0``: None where the table does not
    know one of them."""
    from ai_edge_litert import schema_py_generated as schema

    operators, types = _names(schema.BuiltinOperator), _names(schema.TensorType)
    runtimes: list[str | None] = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            # Codes above 127 are in the second field; a reader takes the larger.
            rows = TABLE.get(operators.get(max(code.builtinCode, code.deprecatedBuiltinCode), ""), ())
            use = _use(graph, operator, types)
            version, runtime = next(((row[0], row[1]) for row in reversed(rows) if row[2](use)), (0, None))
            code.version = max(code.version, version)
            runtimes.append(runtime)
    known = [runtime for runtime in runtimes if runtime is not None]
    return max(known, key=_numbers, default=None) if len(known) == len(runtimes) else None


def _use(graph: Any, operator: Any, types: Mapping[int, str]) -> Use:
    inputs = [graph.tensors[number] if number >= 0 else None for number in operator.inputs]
    given = [tensor for tensor in inputs if tensor is not None]
    measured = given[min(1, len(given) - 1)].quantization if given else None
    return Use(
        types=tuple("" if tensor is None else types[tensor.type].lower() for tensor in inputs),
        made=types[graph.tensors[operator.outputs[0]].type].lower(),
        shapes=tuple(() if tensor.shape is None else tuple(tensor.shape) for tensor in given),
        scales=0 if measured is None or measured.scale is None else len(measured.scale),
        options=operator.builtinOptions,
    )


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, release.split(".")))
