"""Behaves as ``adb`` is documented to, with a folder for a device, and is run in its place from a test's PATH.

It is honest: the device it shows says ``ro.boot.qemu``, as every emulator does, so nothing that it runs can be filed as
a device's. Its ``benchmark_model`` speaks in that tool's words and answers what LiteRT answered on this machine:
``ADB_ANSWERS`` holds a file for each input, by its SHA-256. ``ADB_TROUBLE`` names what goes wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

ROOT = Path(os.environ.get("ADB_ROOT", ""))
TROUBLE = os.environ.get("ADB_TROUBLE", "")
SERIAL = "R5CT10XYZ"

PROPERTIES = {
    "ro.product.manufacturer": "Stand-in",
    "ro.product.model": "Model 1",
    "ro.build.version.release": "15",
    "ro.build.fingerprint": "stand-in/model1:15/TEST/1:userdebug/test-keys",
    "ro.soc.model": "no chip",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.boot.qemu": "1",
}

LISTED = {
    "none": "",
    "unauthorised": f"{SERIAL}         unauthorized usb:1-1 transport_id:1\n",
    "offline": f"{SERIAL}         offline transport_id:1\n",
    "no permissions": f"{SERIAL}         no permissions (missing udev rules? user is in the plugdev group); see [x]\n",
    "two": f"{SERIAL}         device usb:1-1 product:a model:Model_1 device:a transport_id:1\n"
    "emulator-5554          device product:b model:Model_2 device:b transport_id:2\n",
}


def main(words: list[str]) -> int:
    with (ROOT / "calls").open("a") as calls:
        print(json.dumps(words), file=calls)
    if words[0] == "devices":
        if TROUBLE == "broken":
            print("* daemon not running; starting now at tcp:5037\nADB server didn't ACK", file=sys.stderr)
            return 1
        one = f"{SERIAL}         device usb:1-1 product:a model:Model_1 device:a transport_id:1\n"
        print(f"List of devices attached\n{LISTED.get(TROUBLE, one)}")
        return 0
    assert words[0] == "-s"
    assert words[1] in (SERIAL, "emulator-5554")
    verb, *rest = words[2:]
    if verb == "push" and (TROUBLE == "unplugged" or (TROUBLE == "unplugged later" and folders_made() > 1)):
        print(f"adb: device '{words[1]}' not found", file=sys.stderr)
        return 1
    asked = rest[0].split()[0] if verb == "shell" else verb
    if TROUBLE.removeprefix("hangs at ") == asked:
        time.sleep(30)
    return {"shell": shell, "push": push, "pull": pull}[verb](*rest)


def folders_made() -> int:
    """So far, by all who came."""
    return (ROOT / "calls").read_text().count('"mkdir ')


def there(path: str) -> Path:
    assert path.startswith("/data/local/tmp/")
    return ROOT / path.lstrip("/")


def push(here: str, path: str) -> int:
    if TROUBLE == "full" and path.endswith(".tflite"):
        print(f"adb: error: failed to copy '{here}' to '{path}': remote write failed: No space left on device")
        return 1
    shutil.copyfile(here, there(path))
    print(f"{here}: 1 file pushed, 0 skipped. 30.1 MB/s ({Path(here).stat().st_size} bytes in 0.1s)")
    return 0


def pull(path: str, here: str) -> int:
    if not there(path).is_file():
        print(f"adb: error: failed to stat remote object '{path}': No such file or directory", file=sys.stderr)
        return 1
    shutil.copyfile(there(path), here)
    return 0


def shell(command: str) -> int:
    program, *words = shlex.split(command)
    if program == "getprop":
        unknown = {"nameless": ("ro.product.model", "ro.build.fingerprint")}.get(TROUBLE, ())
        print("".join(f"[{key}]: [{value}]\n" for key, value in PROPERTIES.items() if key not in unknown))
        return 0
    if program in ("mkdir", "rm", "chmod"):
        path = there(words[-1])
        if program == "mkdir":
            path.mkdir(parents=True)
        elif program == "rm":
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return 0
    assert there(program).name == "benchmark_model"
    return benchmark(dict(word.removeprefix("--").partition("=")[::2] for word in words))


def benchmark(flags: dict[str, str]) -> int:
    print(f"INFO: STARTING!\nINFO: Graph: [{flags['graph']}]")
    if TROUBLE == "crash":
        print("Segmentation fault")
        return 139
    if TROUBLE == "slow":
        time.sleep(30)
    if TROUBLE == "garbage":
        print("\x1b[2J\udcff count=what Inference timings in us: soon".encode("utf-8", "replace").decode())
        return 0
    gpu, nnapi = flags.get("use_gpu") == "true", flags.get("use_nnapi") == "true"
    if gpu and TROUBLE == "no gpu":
        print("Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.")
    elif gpu:
        print(
            "INFO: Replacing 5 out of 7 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 2 partitions.\n"
            "INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ "
            "1 delegate kernels."
        )
    if nnapi:
        print("ERROR: Failed to apply NNAPI delegate.\nERROR: Benchmarking failed.")
        return 1
    if TROUBLE != "no answers":
        answer(flags, gpu)
    percentiles = "" if TROUBLE == "old" else " p5=900 median=1000 p95=1200"
    print(
        "INFO: Initialized session in 5.5ms.\n"
        "INFO: count=1 first=9000 curr=9000 min=9000 max=9000 avg=9000 std=0 p5=9000 median=9000 p95=9000\n\n"
        f"INFO: count={flags['num_runs']} first=1100 curr=990 min=880 max=1300 avg=1010 std=40{percentiles}\n\n"
        "INFO: Inference timings in us: Init: 5500, First inference: 9000, Warmup (avg): 9000, Inference (avg): 1010"
    )
    return 0


def answer(flags: dict[str, str], gpu: bool) -> None:
    """The file's own; of a GPU that computes wrongly, the bytes of it in another order."""
    given = there(flags["input_layer_value_files"].partition(":")[2]).read_bytes()
    floats = 1
    for side in flags["input_layer_shape"].split(","):
        floats *= int(side)
    assert len(given) == 4 * floats
    known = (Path(os.environ["ADB_ANSWERS"]) / hashlib.sha256(given).hexdigest()).read_bytes()
    there(flags["output_filepath"]).write_bytes(known[4:] + known[:4] if gpu and TROUBLE == "wrong" else known)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
