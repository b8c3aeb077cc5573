"""The house stays as it was designed: one seam, light imports, everything documented."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vitexport as package
from vitexport import cli, models, registry
from vitexport.commands import COMMANDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
HEAVY = ("torch", "timm", "onnx", "onnxruntime", "transformers", "playwright", "numpy", "PIL", "rich")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_imports_nothing_heavy_and_answers_at_once():
    code = f"""
import sys
from vitexport.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules])
"""
    assert "HEAVY []" in run(code)


@pytest.mark.parametrize("command", ["models", "targets"])
def test_lists_import_no_toolchain(command: str):
    toolchains = ("torch", "timm", "onnx", "onnxruntime", "transformers", "playwright")
    code = f"""
import sys
from vitexport.cli import main
try:
    main([{command!r}])
except SystemExit:
    pass
print("HEAVY", [name for name in {toolchains!r} if name in sys.modules])
"""
    assert "HEAVY []" in run(code)


def test_the_core_never_names_a_target():
    """But for `reference`, which is PyTorch itself, and the prose of docstrings."""
    names = set(registry.names()) - {"reference"}
    for path in (ROOT / "exporter").rglob("*.py"):
        code = re.sub(r'""".*?"""|#.*', "", path.read_text(), flags=re.DOTALL)
        named = {name for name in names if re.search(rf"""["']{name}["']""", code)}
        assert not named, f"{path.name} names {named}"


def test_the_contract_leans_on_no_room_but_the_errors():
    """What everything passes through may know nothing of it; imports for types alone count too."""
    for path in (ROOT / "exporter" / "vitexport" / "contract").glob("*.py"):
        rooms = set(re.findall(r"^ *(?:from|import) vitexport\.?(\w*)", path.read_text(), re.MULTILINE))
        assert rooms <= {"contract", "errors"}, f"{path.name} leans on {rooms}"


def test_no_target_leans_on_the_room_that_drives_it():
    for path in (ROOT / "targets").rglob("*.py"):
        assert "vitexport.devices" not in path.read_text(), path.name


def test_every_target_has_its_entry_point_and_its_extra():
    declared = PROJECT["entry-points"]["vitexport.targets"]
    assert set(declared) == set(registry.names())
    for name in registry.names():
        traits = registry.target(name).traits
        assert traits.name == name
        if any(need.kind == "python" for need in traits.needs):
            assert name in PROJECT["optional-dependencies"]


def test_every_precision_says_where_its_tolerance_comes_from_and_one_is_the_default():
    for name in registry.names():
        precisions = registry.target(name).traits.precisions
        assert all(p.because and 0 < p.tolerance < (1 if p.metric == "loss" else 0.1) for p in precisions)
        assert any(p.default for p in precisions)


def test_public_names_are_those_that_are_declared():
    assert sorted(package.__all__) == sorted(package._ROOMS)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name


def test_the_version_is_written_once_for_people_and_once_for_pip():
    assert PROJECT["version"] == package.__version__


def test_the_readme_names_every_command_target_precision_and_preset():
    for name in (*COMMANDS, *registry.names(), *models.presets()):
        assert f"`{name}`" in README or f"vitexport {name}" in README, name
    for name in registry.names():
        (row,) = (line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        for precision in registry.target(name).traits.precisions:
            assert f"`{precision.name}`" in row, (name, precision.name)
    for option in re.findall(r"--[a-z-]+", cli._export_parser().format_help()):
        assert option in README, option
