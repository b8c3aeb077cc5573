"""A WebGPU adapter with ``shader-f16``, in software: ``.ci/webgpu-f16`` sets it up, and says why not Chromium's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

    from vitexport.contract import Tensor

#: Names the folder that ``.ci/webgpu-f16`` filled.
VARIABLE = "VITEXPORT_WEBGPU_F16"

_DEFAULT = Path(__file__).parents[1] / ".venv" / "webgpu-f16"
_WORKER = Path(__file__).with_name("webgpu_f16_worker.py")


class NotHere(Exception):
    """Why nothing can be run."""


def answers(model: onnx.ModelProto, pictures: list[Tensor], folder: Path) -> list[Tensor]:
    """Of onnxruntime-webgpu, to each (1, 3, H, W). Raises ``NotHere`` where there is no adapter."""
    place = Path(os.environ.get(VARIABLE, _DEFAULT))
    adapter = place / "adapter.json"
    if not adapter.is_file():
        raise NotHere(
            f"not run: '{place}' holds no WebGPU adapter with shader-f16. Run: make webgpu-f16, or set {VARIABLE}"
        )
    paths = [folder / name for name in ("model.onnx", "given.npy", "answers.npy")]
    paths[0].write_bytes(model.SerializeToString())
    np.save(paths[1], np.concatenate(pictures))
    command = [place / "bin" / "python", _WORKER, *paths]
    done = subprocess.run(command, env=_environment(place), capture_output=True, text=True, timeout=300)
    if "Failed to get a WebGPU adapter" in done.stderr + done.stdout:
        raise NotHere(f"not run: onnxruntime-webgpu finds no adapter in '{place}'. Run: make webgpu-f16")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("WebGpuExecutionProvider"), done.stdout
    return [each[None] for each in np.load(paths[2])]


def _environment(place: Path) -> dict[str, str]:
    adapter = str(place / "adapter.json")
    return {
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": str(place / "mesa/usr/lib/x86_64-linux-gnu"),
        "VK_DRIVER_FILES": adapter,
        "VK_ICD_FILENAMES": adapter,  # what older Vulkan loaders call it
        "XDG_RUNTIME_DIR": str(place),
        "HOME": str(place),  # Mesa keeps compiled shaders there
    }
