"""Behaves as Xcode's tools do, with a folder for a device: ``xcrun``, ``devicectl`` and ``xcodebuild`` by one script,
and coremltools' model runner, the app that they build, install and launch.

It is written after ``devicectl``'s JSON as public projects keep it (jsonVersion 2), and after the runner's own Swift,
which coremltools' wheels for macOS bring (``coremltools/modelrunner/ModelRunner``): a folder per request under
``Documents/modelrunnerd/requests/messages``, its file under ``resources``, the answer under ``responses``. The app
answers with this project's MIL evaluator, at a speed that it makes up. It is honest: it answers on Linux, where no
iPhone can.
``DEVICECTL_TROUBLE`` names what goes wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(os.environ.get("DEVICECTL_ROOT", ""))
TROUBLE = os.environ.get("DEVICECTL_TROUBLE", "")

IDENTIFIER = "AAAAAAAA-1111-2222-3333-BBBBBBBBBBBB"
OTHER = "CCCCCCCC-1111-2222-3333-DDDDDDDDDDDD"

_SIMULATED = {"reality": "simulated", "developerModeStatus": "", "tunnelState": "disconnected"}

#: Made up, so long that a measurement is over after two.
PREDICTION_NS, LOAD_NS = 6_000_000_000, 41_500_000


def device(identifier: str = IDENTIFIER, kind: str = "iPhone", **changed: Any) -> dict[str, Any]:
    """An entry of ``devicectl list devices``, with what is read of it."""
    told: dict[str, Any] = {
        "connectionProperties": {"pairingState": "paired", "transportType": "wired", "tunnelState": "connected"},
        "deviceProperties": {
            "name": "Somebody's phone",
            "osVersionNumber": "18.2",
            "osBuildUpdate": "22C55",
            "developerModeStatus": "enabled",
        },
        "hardwareProperties": {
            "deviceType": kind,
            "marketingName": f"{kind} 16",
            "productType": f"{kind}17,3",
            "reality": "physical",
            "udid": f"00008140-{identifier[:8]}",
        },
        "identifier": identifier,
    }
    for key, value in changed.items():
        next(section for section in told.values() if isinstance(section, dict) and key in section)[key] = value
    return told


def devices() -> list[dict[str, Any]]:
    woken = (ROOT / "woken").exists()
    return {
        "none": [device(kind="appleWatch")],
        "unpaired": [device(pairingState="unpaired")],
        "no developer mode": [device(developerModeStatus="disabled")],
        "away": [device(tunnelState="unavailable")],
        "asleep": [device(tunnelState="connected" if woken else "disconnected")],
        "deaf": [device(tunnelState="disconnected")],
        "two": [device(), device(OTHER, "iPad")],
        "one of two here": [device(), device(OTHER, "iPad", tunnelState="unavailable")],
        "nameless": [device(marketingName="")],
        "iOS 16": [device(osVersionNumber="16.7.2")],
        "simulators": [device(), device(OTHER, **_SIMULATED)],
        "simulators alone": [device(OTHER, **_SIMULATED)],
        "no hardware": [{"identifier": IDENTIFIER, "properties": {"hardware": {"deviceType": "iPhone"}}}],
    }.get(TROUBLE, [device()])


def main(program: str, words: list[str]) -> int:
    with (ROOT / "calls").open("a") as calls:
        print(json.dumps([program, *words]), file=calls)
    match [program, *words]:
        case ["xcrun", "devicectl", "--timeout", seconds, *rest]:
            return devicectl(rest, float(seconds))
        case ["xcrun", "devicectl", *rest]:
            return devicectl(rest, None)
        case ["xcodebuild", *rest]:
            return xcodebuild(rest)
    raise AssertionError(program)


def xcodebuild(words: list[str]) -> int:
    if TROUBLE == "unsigned":
        print("error: No profiles for 'com.vitexport.modelrunner' were found")
        return 65
    settings = dict(word.split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    assert settings["DEVELOPMENT_TEAM"] == "A1B2C3D4E5"
    app = Path(settings["SYMROOT"]) / "Release-iphoneos" / "modelrunner.app"
    app.mkdir(parents=True)
    (app / "bundle").write_text(settings["PRODUCT_BUNDLE_IDENTIFIER"])
    return 0


def devicectl(words: list[str], longest_s: float | None) -> int:
    print("10:04:12  Acquired tunnel connection to device.", file=sys.stderr)
    told = dict(pairwise(words))
    told |= dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    report = told.get("-j") or told.get("--json-output")
    match words[:3]:
        case ["list", "devices", *_]:
            if TROUBLE == "broken":
                print("ERROR: CoreDeviceService cannot be launched.", file=sys.stderr)
                return 1
            info = {"jsonVersion": 5 if TROUBLE == "no hardware" else 2, "version": "477.39", "outcome": "success"}
            Path(report).write_text(json.dumps({"info": info, "result": {"devices": devices()}}))
            return 0
        case ["device", "info", "details"]:
            if TROUBLE in ("away", "deaf"):
                print("ERROR: The device is not connected.", file=sys.stderr)
                return 1
            (ROOT / "woken").touch()
            return 0
        case ["device", "install", "app"]:
            if TROUBLE == "locked":
                print("ERROR: The device is locked.", file=sys.stderr)
                return 1
            bundle = (Path(words[5]) / "bundle").read_text()
            (container(bundle) / "Documents").mkdir(parents=True, exist_ok=True)
            (ROOT / "installed").write_text(str(time.time()))  # which ends what runs of it
            Path(report).write_text(json.dumps({"result": {"installedApplications": [{"bundleID": bundle}]}}))
            return 0
        case ["device", "uninstall", "app"]:
            shutil.rmtree(container(words[-1]))
            return 0
        case ["device", "copy", "to"] if TROUBLE == "hanging" and told["--source"].endswith(".mlmodelc") and once():
            assert longest_s is not None, "whoever copies would wait for ever"
            time.sleep(longest_s)
            print("ERROR: The operation timed out.", file=sys.stderr)
            return 1
        case ["device", "copy", direction]:
            return copied(direction, told, report)
        case ["device", "process", "launch"]:
            if TROUBLE == "untrusted":
                print("ERROR: The app could not be launched: its profile is not trusted.", file=sys.stderr)
                return 1
            return run(container(words[-1]) / "Documents" / "modelrunnerd")
    raise AssertionError(words)


def once() -> bool:
    first = not (ROOT / "once").exists()
    (ROOT / "once").touch()
    return first


def container(bundle: str) -> Path:
    return ROOT / "containers" / bundle


def copied(direction: str, told: dict[str, str], report: str | None) -> int:
    home = container(told["--domain-identifier"])
    if TROUBLE == "unplugged":
        shutil.rmtree(home / "Documents", ignore_errors=True)
        print("ERROR: The device was disconnected.", file=sys.stderr)
        return 1
    source, destination = Path(told["--source"]), Path(told["--destination"])
    source, destination = (home / source, destination) if direction == "from" else (source, home / destination)
    if not source.exists():
        print(f"ERROR: No file at {source.name}.", file=sys.stderr)
        return 1
    destination.parent.mkdir(parents=True, exist_ok=True)
    beside = destination.with_name(f".{destination.name}")
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, beside)
    beside.rename(destination)
    Path(report or os.devnull).write_text(
        json.dumps({"result": {"source": str(source), "destination": str(destination)}})
    )
    return 0


# ------------------------------------------------------------------------------------------------------------- the app


def run(home: Path) -> int:
    """Until it is taken away, or who launched it ends."""
    messages, launcher, installed = home / "requests" / "messages", os.getppid(), (ROOT / "installed").read_text()
    while home.parent.is_dir() and os.getppid() == launcher and (ROOT / "installed").read_text() == installed:
        for path in sorted(messages.glob("*/message.json")) if messages.is_dir() else []:
            message = json.loads(path.read_text())
            path.unlink()  # before it is answered, as the Swift does
            if TROUBLE == "old" and once():
                continue
            answer(home, message)
        time.sleep(0.02)
    return 0


def answer(home: Path, message: dict[str, Any]) -> None:
    folder = home / "responses" / message["id"]
    folder.mkdir(parents=True)
    resource = home / "requests" / "resources" / message["id"] / str(message.get("resource", ""))
    told: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
    try:
        params = message["params"]
        verb = {"Load": load, "Prediction": predict, "Unload": unload, "ComputePlan": plan}
        done = verb[message["method"].removeprefix("MLModelService.")](params, resource, folder)
        told["result"] = {"modelID": params["modelID"]} | done
        if (folder / "answers.bin").exists():
            told["resource"] = "answers.bin"
    except Refused as error:
        told |= {"result": {}, "error": {"code": -32001, "message": str(error)}}
    (folder / "written").write_text(json.dumps(told))
    if TROUBLE == "slow" and message["method"].endswith("Load") and params["computeUnits"] == "CPU_AND_NE":
        time.sleep(30)
    (folder / "written").rename(folder / "message.json")


class Refused(Exception):
    """Core ML's word."""


_loaded: dict[tuple[str, str], Any] = {}


def load(params: dict[str, Any], resource: Path, folder: Path) -> dict[str, Any]:
    if TROUBLE == "refused" and params["computeUnits"] == "CPU_AND_NE":
        raise Refused("Failed to build the model execution plan using a model architecture file.")
    if TROUBLE == "crash" and params["computeUnits"] == "CPU_AND_NE":
        print("App terminated due to signal 9.", file=sys.stderr, flush=True)
        os._exit(9)
    assert resource.suffix == ".mlmodelc"
    package, named = read(resource), params["functionName"]
    _loaded[params["modelID"], params["computeUnits"]] = package, named or package.default_function
    return {"duration": LOAD_NS, "isCached": False}


def predict(params: dict[str, Any], resource: Path, folder: Path) -> dict[str, Any]:
    import numpy as np

    package, function = _loaded[params["modelID"], params["computeUnits"]]
    features = package.interfaces[function]
    if kinds := [f.kind for f in (*features.inputs, *features.outputs) if f.kind != "multi-array"]:
        raise Refused(f"Unsupported output: Incompatible output format detected ({', '.join(kinds)}).")
    data = resource.read_bytes()
    given = {name: array(told, data) for name, told in params["inputs"].items()}
    answers = evaluator(package, function).run(given)
    outputs, stored = {}, b""
    for feature in package.interfaces[function].outputs:
        value = np.ascontiguousarray(answers[feature.name], np.float32)
        if TROUBLE == "wrong" and params["computeUnits"] == "CPU_AND_NE":
            value = np.ascontiguousarray(np.flip(value))
        shape = list(value.shape)
        if TROUBLE == "padded":  # as Core ML may leave the rows of an array
            value = np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, 3)], constant_values=np.nan)
        outputs[feature.name] = {
            "dataType": "Float32",
            "shape": shape,
            "strides": [step // 4 for step in value.strides],
            "storage": {"offset": len(stored), "size": len(stored) + value.nbytes},  # as the Swift counts them
        }
        stored += value.tobytes()
    (folder / "answers.bin").write_bytes(stored)
    return {"outputs": outputs, "duration": PREDICTION_NS, "resource": "answers.bin"}


def array(told: dict[str, Any], data: bytes) -> Any:
    """By the strides that came with it, as ``MLMultiArray`` takes them."""
    import numpy as np

    storage = told["storage"]
    flat = np.frombuffer(data[storage["offset"] : storage["offset"] + storage["size"]], told["dataType"].lower())
    return np.lib.stride_tricks.as_strided(flat, told["shape"], [4 * step for step in told["strides"]])


def unload(params: dict[str, Any], resource: Path, folder: Path) -> dict[str, Any]:
    if _loaded.pop((params["modelID"], params["computeUnits"]), None) is None:
        raise Refused(f"The model with ID '{params['modelID']}' is not currently loaded.")
    return {}


def plan(params: dict[str, Any], resource: Path, folder: Path) -> dict[str, Any]:
    """The Neural Engine takes all but casts, where it may."""
    if TROUBLE == "old":
        raise Refused("MLComputePlan is not supported on this platform.")
    (units, package) = next((units, held[0]) for (model, units), held in _loaded.items() if model == params["modelID"])
    infos = []
    for name, function in package.functions.items():
        for operation in function.operations:
            if operation.kind == "const":
                continue
            on_cpu = units == "CPU_ONLY" or operation.kind == "cast"
            where: dict[str, Any] = {"cpu": {}} if on_cpu else {"neuralEngine": {"totalCoreCount": 16}}
            path = [
                {"program": {}},
                {"programFunction": {"data": {"name": name}}},
                {"programBlock": {"data": {"index": -1}}},
                {"programOperation": {"data": {"outputName": operation.outputs[0].name}}},
            ]
            infos.append(
                {
                    "deviceUsage": {"preferred": where, "supported": [where]},
                    "estimatedCost": 0.1,
                    "path": {"components": path},
                }
            )
    return {"infos": infos}


@cache
def evaluator(package: Any, function: str) -> Any:
    from vitexport_targets.coreml.evaluator import Evaluator

    halves = any(o.type.dtype == "float16" for op in package.functions[function].operations for o in op.outputs)
    return Evaluator(package, function, arithmetic="fp16" if halves else "exact")


def read(package: Path) -> Any:
    from vitexport_targets.coreml.package import read

    return read(package)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
