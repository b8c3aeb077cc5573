"""coremltools reads a package again: its type inference derives each value's type from the operation that makes it.

What the evaluator reads is what the file declares, and what it computes is what it knows of MIL; here Apple's own
definitions of the operations say whether the program is one.
"""

from __future__ import annotations

from typing import Any

from vitexport.errors import first_line
from vitexport_targets.coreml import sealing
from vitexport_targets.coreml.apple import coremltools, quietly
from vitexport_targets.coreml.mil import Package, ValueType

#: coremltools' names of element types -> MIL's.
_DTYPES = {"fp16": "float16", "fp32": "float32", "fp64": "float64", "str": "string"}


class ProgramRefused(Exception):
    """coremltools does not take the program; the message is the reason, in its words."""


def disagreements(package: Package) -> tuple[int, list[str]]:
    """How many values were compared, and a sentence's part for each that is of another type.

    Raises ``ProgramRefused``.
    """
    read = _read_by_coremltools(package)
    compared, wrong = 0, []
    for name, function in package.functions.items():
        derived = read[name]
        for operation in function.operations:
            for output in operation.outputs:
                if operation.kind == "const" or output.type.kind != "tensor":
                    continue
                compared += 1
                if derived.get(output.name) != _declared(output.type):
                    found = derived.get(output.name, "nothing")
                    wrong.append(f"{operation.name}: declared {_declared(output.type)}, derived {found}")
    return compared, wrong


def _read_by_coremltools(package: Package) -> dict[str, dict[str, str]]:
    """Function -> value -> type."""
    coremltools()
    from coremltools.converters.mil.frontend.milproto import load as milproto

    spec = sealing.read_spec(package.path)
    try:
        with quietly():
            program = milproto.load(spec, spec.specificationVersion, str(sealing.weights_folder(package.path)))
    except Exception as error:  # it asserts what it finds and raises whatever an op's own checks raise
        raise ProgramRefused(first_line(error)) from error
    return {
        name: {output.name: _derived(output) for operation in function.operations for output in operation.outputs}
        for name, function in program.functions.items()
    }


def _declared(declared: ValueType) -> str:
    return f"{declared.dtype}{tuple('?' if n is None else n for n in declared.shape)}"


def _derived(var: Any) -> str:
    from coremltools.converters.mil.mil import types
    from coremltools.converters.mil.mil.types.symbolic import is_symbolic

    if not (types.is_tensor(var.sym_type) or types.is_primitive(var.sym_type)):
        return str(var.sym_type)
    name = types.builtin_to_string(var.dtype)
    return f"{_DTYPES.get(name, name)}{tuple('?' if is_symbolic(n) else int(n) for n in var.shape)}"
