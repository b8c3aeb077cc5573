"""Find what a target needs, or say in one sentence what is missing and how to get it. Nothing is installed here."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vitexport import host
from vitexport.contract import Need
from vitexport.errors import MissingToolchain

CHROMIUM_VARIABLE = "VITEXPORT_CHROMIUM"
NODE_MODULES_VARIABLE = "VITEXPORT_NODE_MODULES"

_CHROMIUM_COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
_CHROMIUM_APPS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def find(need: Need) -> Path:
    """Where ``need`` is. Raises ``MissingToolchain`` with the command that brings it."""
    found = {"python": _python_package, "npm": _npm_package, "browser": _chromium}[need.kind](need)
    if found is None:
        raise MissingToolchain(f"'{need.name}' is not installed. {need.install}")
    return found


def npm_package(name: str, install: str) -> tuple[Path, str]:
    """Folder and version of an npm package."""
    folder = find(Need("npm", name, install))
    return folder, _version(folder)


def _python_package(need: Need) -> Path | None:
    spec = importlib.util.find_spec(need.name)
    return Path(spec.origin) if spec is not None and spec.origin else None


def _npm_package(need: Need) -> Path | None:
    """``name`` or ``name@version``, which must match exactly."""
    name, _, pin = need.name.rpartition("@") if "@" in need.name[1:] else (need.name, "", "")
    folders = [d / name for d in _node_modules() if (d / name / "package.json").is_file()]
    found = next((f for f in folders if pin in ("", _version(f))), None)
    if found is None and folders:
        other = folders[0]
        raise MissingToolchain(f"{name} {_version(other)} is installed ({other}); {pin} is wanted. {need.install}")
    return found


def _version(package: Path) -> str:
    return str(json.loads((package / "package.json").read_text(encoding="utf-8"))["version"])


def _node_modules() -> Iterator[Path]:
    """The folder named by the environment, those above the working directory, and the source checkout's own."""
    if named := os.environ.get(NODE_MODULES_VARIABLE):
        yield Path(named)
        return
    here = host.here()
    for folder in (here, *here.parents):
        yield folder / "node_modules"
        yield folder / "web-demo" / "node_modules"
    yield Path(__file__).parents[2] / "web-demo" / "node_modules"


def _chromium(need: Need) -> Path | None:
    if named := os.environ.get(CHROMIUM_VARIABLE):
        if Path(named).is_file() and os.access(named, os.X_OK):
            return Path(named)
        raise MissingToolchain(
            f"{CHROMIUM_VARIABLE} names '{named}', which is no program. Name Chromium or Chrome, or unset it."
        )
    on_path = (shutil.which(command) for command in _CHROMIUM_COMMANDS)
    apps = (app for app in _CHROMIUM_APPS if os.access(app, os.X_OK))
    found = next((p for p in (*on_path, *apps) if p), None)
    return Path(found) if found else None
