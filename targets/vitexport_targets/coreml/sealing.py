"""What a package says of itself, and nothing of the machine and the day that made it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from vitexport.contract import OutputSpec, SourceModel
from vitexport.manifest import metadata as carried

_SPEC = Path("Data/com.apple.CoreML/model.mlmodel")
_MANIFEST = Path("Manifest.json")

#: coremltools writes it beside the package's own files for ExecuTorch's debugger; Core ML does not know it.
_STRAY = "executorch_debug_handle_mapping.json"


def weights_folder(package: Path) -> Path:
    return (package / _SPEC).parent / "weights"


def read_spec(package: Path) -> Any:
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString((package / _SPEC).read_bytes())
    return spec


def write_spec(package: Path, spec: Any) -> None:
    """In the same bytes whenever it is the same."""
    path = package / _SPEC
    path.write_bytes(spec.SerializeToString(deterministic=True))
    path.chmod(0o644)  # coremltools leaves it readable by its owner alone


def seal(package: Path, spec: Any, source: SourceModel, facts: dict[str, str]) -> None:
    """Write ``spec`` back, described, in the same bytes whenever it is made of the same source."""
    _describe(spec.description, source, facts)
    write_spec(package, spec)
    (package / _STRAY).unlink(missing_ok=True)
    (package / _MANIFEST).write_text(_renamed(json.loads((package / _MANIFEST).read_text())), encoding="utf-8")


def _describe(description: Any, source: SourceModel, facts: dict[str, str]) -> None:
    metadata = description.metadata
    del_keys = list(metadata.userDefined)
    for key in del_keys:  # the day of the conversion among them
        del metadata.userDefined[key]
    metadata.shortDescription = f"{source.name} ({source.task}), exported and proven by vitexport"
    metadata.author = source.provenance.origin
    metadata.license = source.provenance.licence
    metadata.versionString = source.provenance.weights_sha256[:12]
    for key, value in {**carried(source), **facts}.items():
        metadata.userDefined[key] = value
    for function in description.functions or [description]:
        for output in function.output:
            about = next((o for o in source.outputs if o.name == output.name), None)
            if about:
                output.shortDescription = about_output(about)


_MEANINGS = {
    "logits": "scores (N, classes)",
    "features": "features",
    "mask": "probability of the foreground, 0..1, at (N, 1, H, W)",
    "segmentation": "scores (N, classes, H, W): the largest is the pixel's class",
}


def about_output(output: OutputSpec) -> str:
    labels = f"; classes: {', '.join(output.labels)}" if 0 < len(output.labels) <= 25 else ""
    person = "" if output.person is None or output.meaning == "mask" else f"; people: channel {output.person}"
    return f"{_MEANINGS[output.meaning]}{_reading(output)}{labels}{person}"


def _reading(output: OutputSpec) -> str:
    """Of a classifier's scores, how they become probabilities."""
    if output.meaning != "logits":
        return ""
    if output.scores == "probabilities":
        return ", probabilities as they are"
    return f", before the {'sigmoid' if output.shape[1] == 1 else 'softmax'}"


def _renamed(manifest: dict[str, Any]) -> str:
    """The package's manifest with identifiers that follow from the paths they stand for, not from a random number."""
    old = manifest["itemInfoEntries"]
    new = {identifier: str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])) for identifier, entry in old.items()}
    manifest["itemInfoEntries"] = {new[i]: entry for i, entry in sorted(old.items(), key=lambda item: item[1]["path"])}
    manifest["rootModelIdentifier"] = new[manifest["rootModelIdentifier"]]
    return json.dumps(manifest, indent=4) + "\n"
