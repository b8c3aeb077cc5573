"""The browser's side of the manifest is generated from Python's, and its JavaScript is type-checked as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

from vitexport.contract import Manifest, Preprocessing, Provenance, Rung, Size
from vitexport.manifest import encode
from vitexport_targets.webgpu import generate_types

WEB_DEMO = Path(__file__).parents[1] / "web-demo"


def test_the_stored_schema_is_what_the_dataclass_says() -> None:
    assert generate_types.SCHEMA.read_text() == generate_types.schema_text()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_stored_typescript_type_is_what_the_schema_says() -> None:
    assert generate_types.TYPES.read_text() == generate_types.types_text()


def test_a_written_manifest_is_valid_and_a_misspelt_one_is_not() -> None:
    written = Manifest(
        schema_version=1,
        target="webgpu",
        model="m",
        task="features",
        input_name="pixel_values",
        rungs=(Rung((1, 3, 2, 2), Preprocessing(Size(2, 2)), (), (), (), 0.0),),
        provenance=Provenance("here", "MIT", "0"),
        toolchain={},
        files=(),
    )
    manifest = msgspec.json.decode(encode(written))
    jsonschema.validate(manifest, generate_types.schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest, "modell": "m"}, generate_types.schema())


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")
def test_the_runtime_and_the_page_pass_the_type_checker() -> None:
    checked = subprocess.run(
        ["npm", "run", "--silent", "check"], cwd=WEB_DEMO, capture_output=True, text=True, timeout=300, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_target_is_described_without_its_toolchain() -> None:
    program = (
        "import sys; import vitexport_targets.webgpu; "
        "print({m for m in ('onnx', 'torch', 'playwright', 'numpy') if m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
