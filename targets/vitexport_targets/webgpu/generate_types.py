"""Write the manifest's JSON Schema and TypeScript type from the Python dataclass. Run it with ``python -m``."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from vitexport import manifest, toolchain

RUNTIME = Path(__file__).parent / "runtime"
SCHEMA = RUNTIME / "manifest.schema.json"
TYPES = RUNTIME / "manifest.d.ts"

_INSTALL = "Run: npm install, in web-demo."
_BANNER = "/* Generated from vitexport.contract.Manifest by generate_types.py. Do not edit. */"


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a manifest as vitexport writes it: no field is left out, none is added."""
    made = manifest.schema()
    for definition in made["$defs"].values():
        definition["required"] = list(definition["properties"])
        definition["additionalProperties"] = False
        if "description" in definition:
            definition["description"] = definition["description"].split("\n")[0].replace("``", "`")
    root = made["$defs"].pop("Manifest")
    return {"$schema": made["$schema"], **root, "$defs": made["$defs"]}


def schema_text() -> str:
    return json.dumps(schema(), indent=2) + "\n"


def types_text() -> str:
    """The TypeScript declarations, by json-schema-to-typescript."""
    script = toolchain.npm_package("json-schema-to-typescript", _INSTALL)[0] / "dist" / "src" / "cli.js"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "manifest.json"
        source.write_text(json.dumps(_older(schema())))
        command = ["node", str(script), "--input", str(source), "--bannerComment", _BANNER, "--style.singleQuote"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout


def _older(node: Any) -> Any:
    """Tuples as draft 7 spells them, which is what json-schema-to-typescript reads; titles name the types."""
    if isinstance(node, list):
        return [_older(item) for item in node]
    if not isinstance(node, dict):
        return node
    older = {key: _older(value) for key, value in node.items() if key != "default"}
    if "prefixItems" in older:
        older["items"] = older.pop("prefixItems")
    return older


if __name__ == "__main__":
    SCHEMA.write_text(schema_text())
    TYPES.write_text(types_text())
