"""Write ``kernels.json``: which operators, in which types, onnxruntime-web's WebGPU provider has kernels for.

Run it with ``python -m``, after onnxruntime-web's pin has moved. It takes two minutes, a browser, and an adapter (any:
kernels are registered whatever the adapter can do). Nothing is taken from documentation: for every version of every
operator that ONNX Runtime's schemas know, a graph with one node for each combination of types is given to the runtime,
whose log says which of them have no kernel (:mod:`.placement`).
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vitexport_targets.webgpu import ort_web
from vitexport_targets.webgpu.kernels import FILE, RUNTIME
from vitexport_targets.webgpu.probing import Answer, Oracle, oracle

if TYPE_CHECKING:
    import onnx

DOMAINS = ("", "com.microsoft")

#: ONNX Runtime promises nothing for graphs of an older one.
OLDEST_OPSET = 7

#: Of the operators that are its own although they stand in ONNX's domain, such as ``SimplifiedLayerNormalization``.
_OWN_OPSET = 20

#: Element types that are asked for. Complex and 8-bit floats no browser computes with.
TYPES = (
    *("float", "float16", "bfloat16", "double", "bool", "string"),
    *("int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
)

#: A node that never has a kernel, in every graph: where the log is silent about it, nothing was placed.
_SENTINEL = "sentinel"

Combination = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Operator:
    """One version of an operator, and what can be asked of it."""

    schema: Any
    """ONNX Runtime's own ``SchemaDef``."""
    parameters: tuple[str, ...]
    """Names of its types (``T``, ``Tind``), as its inputs name them; a cast's target is ``T2``."""
    combinations: tuple[Combination, ...]
    """An element type for each parameter."""

    @classmethod
    def of(cls, schema: Any) -> Operator:
        allowed = {c.type_param_str: _tensors(c.allowed_type_strs) for c in schema.type_constraints}
        named = [given.typeStr for given in schema.inputs if given.typeStr in allowed]
        if _casts(schema):
            named.append("T2")
        parameters = tuple(dict.fromkeys(name for name in named if allowed[name]))
        return cls(schema, parameters, tuple(itertools.product(*(allowed[name] for name in parameters))))

    @property
    def inputs(self) -> list[str]:
        """What each input is typed by, in order; empty where its type does not vary."""
        return [given.typeStr if given.typeStr in self.parameters else "" for given in self.schema.inputs]

    def graph(self, combinations: Sequence[Combination], *, whole: bool) -> bytes:
        """A node for each combination, named by its place; ``whole``: with its optional inputs.

        Raises ``ValueError`` where it takes what is no tensor.
        """
        from onnx import TensorProto, helper

        inputs, outputs, nodes = [], [], []
        for number, combination in enumerate(combinations):
            node, taken, made = self._node(str(number), dict(zip(self.parameters, combination, strict=True)), whole)
            nodes.append(node)
            inputs += taken
            outputs += made
        nodes.append(helper.make_node("Relu", ["never"], ["nothing"], name=_SENTINEL))
        inputs.append(helper.make_tensor_value_info("never", TensorProto.DOUBLE, None))
        outputs.append(helper.make_empty_tensor_value_info("nothing"))
        graph = helper.make_graph(nodes, "kernels", inputs, outputs)
        imports = [helper.make_opsetid("", self._opset()), helper.make_opsetid("com.microsoft", 1)]
        stored: bytes = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
        return stored

    def _opset(self) -> int:
        if self.schema.domain or _is_own(self.schema):
            return _OWN_OPSET
        return max(int(self.schema.since_version), OLDEST_OPSET)

    def _node(
        self, name: str, types: Mapping[str, str], whole: bool
    ) -> tuple[onnx.NodeProto, list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
        from onnx import helper

        taken, names = [], []
        for position, given in enumerate(self.schema.inputs):
            optional = given.option.name == "Optional"
            element = types.get(given.typeStr) or next(iter(_tensors([given.typeStr])), None)
            if element is None and not optional:
                raise ValueError(f"{given.name} is no tensor")
            if element is None or (optional and not whole):
                names.append("")
                continue
            for copy in range(2 if given.option.name == "Variadic" else 1):
                names.append(f"{name}_{position}_{copy}")
                taken.append(helper.make_tensor_value_info(names[-1], _number(element), None))
        while names and not names[-1]:
            names.pop()
        results = [f"{name}_out_{i}" for i in range(max(1, self.schema.min_output))]
        attributes = {key: _value(a) for key, a in self.schema.attributes.items() if a.required}
        if _casts(self.schema):
            attributes["to"] = _number(types["T2"])
        node = helper.make_node(self.schema.name, names, results, name=name, domain=self.schema.domain, **attributes)
        return node, taken, [helper.make_empty_tensor_value_info(result) for result in results]


def operators() -> Iterator[Operator]:
    """Every version that a graph of :data:`OLDEST_OPSET` or later can have, by name."""
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    schemas = [schema for schema in native.get_all_operator_schema() if schema.domain in DOMAINS]
    versions: dict[tuple[str, str], list[int]] = {}
    for schema in schemas:
        versions.setdefault((schema.domain, schema.name), []).append(schema.since_version)
    for schema in sorted(schemas, key=lambda s: (s.domain, s.name, s.since_version)):
        later = [v for v in versions[schema.domain, schema.name] if v > schema.since_version]
        if not schema.deprecated and (not later or min(later) > OLDEST_OPSET):
            yield Operator.of(schema)


def taken_by(page: Oracle, operator: Operator) -> tuple[set[Combination], str]:
    """The combinations that have a kernel; and where none could be asked for, why."""
    try:
        for whole in (True, False):
            asked = page.place(operator.graph(operator.combinations, whole=whole), optimised=False)
            if _was_placed(asked):
                missing = asked.missing
                return {c for i, c in enumerate(operator.combinations) if str(i) not in missing}, ""
        return _one_by_one(page, operator)
    except ValueError as untypable:
        return set(), str(untypable)


def _one_by_one(page: Oracle, operator: Operator) -> tuple[set[Combination], str]:
    """Where one combination makes the whole graph invalid."""
    found, reason = set(), ""
    placed = False
    for combination in operator.combinations:
        for whole in (True, False):
            asked = page.place(operator.graph([combination], whole=whole), optimised=False)
            if _was_placed(asked):
                placed = True
                found |= set() if "0" in asked.missing else {combination}
                break
            reason = asked.refusal
    return found, "" if placed else _first_sentence(reason)


def _was_placed(asked: Answer) -> bool:
    return _SENTINEL in asked.missing


def boxes(parameters: Sequence[str], taken: Iterable[Combination]) -> list[dict[str, list[str]]]:
    """``taken`` as few products of sets, as kernels are registered."""
    if not parameters:
        return [{}] if set(taken) else []
    rest: dict[str, set[Combination]] = {}
    for first, *others in taken:
        rest.setdefault(first, set()).add(tuple(others))
    alike: dict[frozenset[Combination], list[str]] = {}
    for first in sorted(rest, key=TYPES.index):
        alike.setdefault(frozenset(rest[first]), []).append(first)
    return [{parameters[0]: firsts, **box} for others, firsts in alike.items() for box in boxes(parameters[1:], others)]


def read() -> dict[str, Any]:
    """The contents of ``kernels.json``. Raises as :func:`.probing.oracle` does."""
    found: dict[str, dict[str, dict[str, Any]]] = {domain: {} for domain in DOMAINS}
    unasked: dict[str, str] = {}
    with oracle() as page:
        for operator in operators():
            schema = operator.schema
            taken, reason = taken_by(page, operator)
            entry: dict[str, Any] = {"takes": boxes(operator.parameters, taken)}
            if taken:
                entry |= {"inputs": operator.inputs, **({"to": "T2"} if _casts(schema) else {})}
            if reason:
                unasked[f"{schema.domain}:{schema.name}:{schema.since_version}"] = reason
            found[schema.domain].setdefault(schema.name, {})[str(schema.since_version)] = entry
    return {RUNTIME: ort_web.VERSION, "unasked": unasked, "operators": found}


def text(kernels: Mapping[str, Any]) -> str:
    """JSON with an operator a line, so that a diff shows what a release has brought."""
    lines = [f'"{RUNTIME}": {json.dumps(kernels[RUNTIME])}', f'"unasked": {_block(kernels["unasked"])}']
    domains = [f"{json.dumps(domain)}: {_block(names)}" for domain, names in kernels["operators"].items()]
    lines.append('"operators": {\n' + ",\n".join(domains) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _block(entries: Mapping[str, Any]) -> str:
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()) + "\n}"


def _tensors(allowed: Iterable[str]) -> list[str]:
    named = {each.removeprefix("tensor(").removesuffix(")") for each in allowed if each.startswith("tensor(")}
    return [element for element in TYPES if element in named]


def _number(element: str) -> int:
    from onnx import TensorProto

    return int(TensorProto.DataType.Value({"float": "FLOAT"}.get(element, element.upper())))


def _casts(schema: Any) -> bool:
    """Whether it is told the type of its result by an attribute; of others an input tells."""
    return not schema.domain and schema.name == "Cast"


def _is_own(schema: Any) -> bool:
    from onnx import defs

    return not defs.has(schema.name, schema.domain)


def _value(attribute: Any) -> Any:
    """Something that its type allows: kernels are found by types alone."""
    values = {"INT": 1, "INTS": [1], "FLOAT": 1.0, "FLOATS": [1.0], "STRING": "ab->ba", "STRINGS": ["a"]}
    kind = attribute.type.name
    if kind == "GRAPH":
        return _branch()
    if kind not in values:
        raise ValueError(f"{attribute.name} is a {kind.lower()}")
    return values[kind]


def _branch() -> onnx.GraphProto:
    """Takes nothing and answers a number: what ``If`` asks of its branches. A loop's body is another matter."""
    from onnx import TensorProto, helper

    number = helper.make_tensor("number", TensorProto.FLOAT, [1], [1.0])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1])
    return helper.make_graph([helper.make_node("Constant", [], ["answer"], value=number)], "branch", [], [answer])


def _first_sentence(refusal: str) -> str:
    """Without the build machine's paths."""
    return refusal.partition("ERROR_MESSAGE: ")[2].partition("\n")[0][:160] or refusal[:160]


if __name__ == "__main__":
    made = read()
    FILE.write_text(text(made))
    kernels = Counter(
        bool(entry["takes"]) for of in made["operators"].values() for e in of.values() for entry in e.values()
    )
    print(f"{FILE.name}: {kernels[True]} have kernels, {kernels[False]} have none; {len(made['unasked'])} not asked")
