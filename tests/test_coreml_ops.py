"""The table of ops, each held to an oracle that is not ours: the numpy that Apple's converter folds constants with
(``value_inference``), or PyTorch where it has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ct = pytest.importorskip("coremltools")

from coremltools.converters.mil import Builder as mb  # noqa: E402, N813
from coremltools.converters.mil.mil import Function, Program, types  # noqa: E402

from coreml_op_cases import CASES, Case  # noqa: E402
from coreml_packages import save  # noqa: E402
from vitexport_targets.coreml.evaluator import Evaluator  # noqa: E402
from vitexport_targets.coreml.ops import TABLE  # noqa: E402
from vitexport_targets.coreml.package import read  # noqa: E402

#: float32 on both sides, sums of at most 300 products of numbers of about 1, in another order.
TOLERANCE = 2e-6

#: Tested in test_coreml_weights.py: they unpack constants, and are written otherwise.
ELSEWHERE = {name for name in TABLE if name.startswith("constexpr_")} | {"dequantize", "classify"}


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def saved(case: Case, into: Path) -> tuple[Path, dict[str, np.ndarray], tuple[str, ...]]:
    """The package of one op; what to feed it; the names of what it makes."""
    feeds: dict[str, np.ndarray] = {}

    def declare(name: str, value: np.ndarray) -> Any:
        feeds[name] = value
        return mb.placeholder(value.shape, types.numpy_type_to_builtin_type(value.dtype))

    def taken(function: Function, value: Any, name: str) -> Any:
        if isinstance(value, tuple):
            return tuple(function.inputs[f"{name}{i}"] for i in range(len(value)))
        return function.inputs[name]

    flat = {
        f"{name}{i}" if isinstance(value, tuple) else name: part
        for name, value in case.inputs.items()
        for i, part in enumerate(as_tuple(value))
    }
    program = Program()
    opset = case.opset or ct.target.iOS17
    with Function({name: declare(name, value) for name, value in flat.items()}, opset_version=opset) as function:
        arguments = {name: taken(function, value, name) for name, value in case.inputs.items()}
        made = as_tuple(getattr(mb, case.op)(**arguments, **case.attributes, name="made"))
        function.set_outputs(list(made))
        program.add_function("main", function)
    version = 9 if opset == ct.target.iOS18 else 8
    return save(program, into, version), feeds, tuple(value.name for value in made)


def inferred(case: Case) -> tuple[np.ndarray, ...]:
    """What Apple's converter folds the op to where all it takes is constant."""
    with Function({}, opset_version=case.opset or ct.target.iOS17):
        made = as_tuple(getattr(mb, case.op)(**case.inputs, **case.attributes))
    assert all(value.val is not None for value in made), f"{case.op} has no value_inference: it needs another oracle"
    return tuple(np.asarray(value.val) for value in made)


def torch_says(case: Case) -> tuple[np.ndarray, ...]:
    assert case.oracle is not None
    given = {
        name: tuple(map(torch.tensor, value)) if isinstance(value, tuple) else torch.tensor(value)
        for name, value in case.inputs.items()
    }
    return tuple(np.asarray(value) for value in as_tuple(case.oracle(**given)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_does_what_its_oracle_does(case: Case, tmp_path: Path):
    package, feeds, names = saved(case, tmp_path / "op.mlpackage")
    made = Evaluator(read(package)).run(feeds)
    expected = torch_says(case) if case.oracle else inferred(case)
    assert len(names) == len(expected)
    for name, wanted in zip(names, expected, strict=True):
        got = made[name]
        assert got.shape == wanted.shape
        assert got.dtype.kind == wanted.dtype.kind or {got.dtype.kind, wanted.dtype.kind} == {"i", "u"}
        np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_every_op_of_the_table_has_a_case():
    assert {case.op for case in CASES} | ELSEWHERE == set(TABLE)
