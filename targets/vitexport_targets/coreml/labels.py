"""Make a package a Core ML classifier: probabilities and ``classify`` appended to its program, beside the scores.

Why not ``ct.ClassifierConfig``: coremltools 9.0 stops with an IndexError where outputs have types as well
(``get_func_output`` counts them before and after the label is added), calls raw logits probabilities, and can neither
compress such a program nor put it into a multifunction package (https://github.com/apple/coremltools/issues/1906).
Added last, to the finished program, it meets none of these. Delete this when ``ct.convert`` does it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from vitexport.contract import OutputSpec, SourceModel
from vitexport_targets.coreml.apple import coremltools
from vitexport_targets.coreml.inputs import Kind

#: Core ML's own names, which Vision and Xcode's preview look for.
LABEL = "classLabel"
PROBABILITIES = "classLabel_probs"

#: The value that is made of logits. Scores that are probabilities are given to ``classify`` as they are.
_MADE = "vitexport_probabilities"


def wanted(source: SourceModel, kind: Kind) -> bool:
    """What classifies pictures is a classifier; what takes a tensor is for code, which reads scores."""
    output = source.outputs[0]
    return kind == "image" and output.meaning == "logits" and bool(output.labels)


def unique(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Probabilities are keyed by label: of ImageNet's two cranes and two maillots, each gets its index."""
    seen = Counter(labels)
    return tuple(label if seen[label] == 1 else f"{label} ({index})" for index, label in enumerate(labels))


def about_probabilities(output: OutputSpec) -> str:
    adds_up = output.scores != "probabilities" and len(output.labels) > 1
    return f"every class's probability{'; they add up to 1' if adds_up else ''}"


def attach(spec: Any, output: OutputSpec) -> None:
    """Give every function of an ML program a label and probabilities, of its float32 ``output`` (1, classes)."""
    operations = [_classify(output.name if output.scores == "probabilities" else _MADE, unique(output.labels))]
    if output.scores != "probabilities":
        operations.insert(0, _probabilities(output.name, len(output.labels)))
    for function in spec.mlProgram.functions.values():
        block = function.block_specializations[function.opset]
        block.operations.extend(operations)
        block.outputs[:0] = [LABEL, PROBABILITIES]
    for description in spec.description.functions or [spec.description]:
        _describe(description, about_probabilities(output))


def detach(block: Any) -> None:
    """Take out of a block what :func:`attach` put there; nothing where it did not."""
    kept = [each for each in block.operations if each.type != "classify" and each.outputs[0].name != _MADE]
    outputs = [name for name in block.outputs if name not in (LABEL, PROBABILITIES)]
    del block.operations[:]
    block.operations.extend(kept)
    del block.outputs[:]
    block.outputs.extend(outputs)


def _describe(description: Any, about: str) -> None:
    """Name the two outputs, first, and say which is which."""
    model_pb2 = coremltools().proto.Model_pb2
    label, probabilities = (model_pb2.FeatureDescription(name=name) for name in (LABEL, PROBABILITIES))
    label.type.stringType.SetInParent()
    probabilities.type.dictionaryType.stringKeyType.SetInParent()
    label.shortDescription = "the most probable class"
    probabilities.shortDescription = about
    others = list(description.output)
    del description.output[:]
    description.output.extend([label, probabilities, *others])
    description.predictedFeatureName = LABEL
    description.predictedProbabilitiesName = PROBABILITIES


def _probabilities(logits: str, classes: int) -> Any:
    """Softmax; of one class alone, which would always have a share of 1, a sigmoid."""
    operation = _operation(*(("sigmoid", "vitexport_sigmoid") if classes == 1 else ("softmax", "vitexport_softmax")))
    operation.inputs["x"].arguments.add(name=logits)
    if classes > 1:
        axis = operation.inputs["axis"].arguments.add().value
        axis.type.tensorType.dataType = _types().INT32
        axis.immediateValue.tensor.ints.values.append(-1)
    output = operation.outputs.add(name=_MADE)
    output.type.tensorType.dataType = _types().FLOAT32
    output.type.tensorType.rank = 2
    for size in (1, classes):
        output.type.tensorType.dimensions.add().constant.size = size
    return operation


def _classify(given: str, names: tuple[str, ...]) -> Any:
    operation = _operation("classify", "vitexport_classify")
    operation.inputs["probabilities"].arguments.add(name=given)
    classes = operation.inputs["classes"].arguments.add().value
    classes.type.listType.type.tensorType.dataType = _types().STRING
    classes.type.listType.length.constant.size = len(names)
    for name in names:
        value = classes.immediateValue.list.values.add()
        value.type.tensorType.dataType = _types().STRING
        value.immediateValue.tensor.strings.values.append(name)
    operation.outputs.add(name=LABEL).type.tensorType.dataType = _types().STRING
    probabilities = operation.outputs.add(name=PROBABILITIES).type.dictionaryType
    probabilities.keyType.tensorType.dataType = _types().STRING
    probabilities.valueType.tensorType.dataType = _types().FLOAT64
    return operation


def _operation(kind: str, name: str) -> Any:
    operation = coremltools().proto.MIL_pb2.Operation(type=kind)
    value = operation.attributes["name"]
    value.type.tensorType.dataType = _types().STRING
    value.immediateValue.tensor.strings.values.append(name)
    return operation


def _types() -> Any:
    return coremltools().proto.MIL_pb2
