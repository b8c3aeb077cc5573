"""The demo's engine in headless Chromium: built once, its pipeline driven frame by frame, its arrays read back."""

from __future__ import annotations

import atexit
import base64
import io
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from PIL import Image as PILImage

import headless
from vitexport.contract import Preprocessing, Site
from vitexport.serving import serve

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from playwright.sync_api import Page

    Floats = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

TESTS = Path(__file__).parent
DEMO = TESTS.parent / "web-demo"
BLANK = {"/blank.html": b"<!doctype html><title>engine</title>"}

#: As DEFAULT_LOOK in protocol.ts, but for what would hide a fault: nothing is mirrored, softened or lit.
LOOK: dict[str, Any] = {
    "mode": "blur",
    "blur": 0.5,
    "colour": [0.1, 0.45, 0.35],
    "compare": None,
    "mirror": False,
    "edge": {"guidance": 1, "softness": 1},
    "temporal": 0,
    "lightWrap": 0,
}


@cache
def built() -> Path:
    """The modules of ``js/demo``, the engine among them, in a folder of their own."""
    out = Path(mkdtemp(prefix="vitexport-demo-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    entries = [TESTS / f"js/demo/{name}.ts" for name in ("stages", "driver", "counted")]
    command = ["node", str(TESTS / "js/demo/build.mjs"), str(DEMO), str(out), *map(str, entries)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return out


@contextmanager
def engine_page(mounts: dict[str, Path] | None = None) -> Iterator[Page]:
    """A blank page on a site that has the built modules at its root and WebGPU on the software adapter."""
    with serve(Site(built(), mounts or {}, BLANK)) as url, headless.page(gpu=True) as page:
        page.goto(f"{url}blank.html")
        yield page


@dataclass(frozen=True)
class Step:
    """One frame (height, width, 3), and what the network is to have answered to it; ``since_ms`` None: the first."""

    image: Bytes
    output: Floats | None = None
    since_ms: float | None = None
    kind: str = "video"


@dataclass(frozen=True)
class Network:
    """What the pipeline has to know of one: as in a manifest."""

    preprocessing: Preprocessing
    mask: tuple[int, int]
    classes: int = 1
    person: int = 0
    logits: bool = False


@dataclass(frozen=True)
class Answer:
    """What was asked for, of one frame."""

    arrays: dict[str, bytes] = field(repr=False)
    network: Network
    frame: tuple[int, int]

    def input(self) -> Floats:
        """(1, 3, height, width)."""
        size = self.network.preprocessing.size
        return np.frombuffer(self.arrays["input"], "<f4").reshape(1, 3, size.height, size.width)

    def planes(self, name: str) -> Floats:
        """``now``, ``steady``: colours and person; ``means``: planes. (mask height, mask width, 4)."""
        return np.frombuffer(self.arrays[name], "<f4").reshape(*self.network.mask, 4)

    def matted(self) -> Bytes:
        return np.frombuffer(self.arrays["matted"], np.uint8).reshape(*self.frame, 4)

    def canvas(self) -> Bytes:
        """(height, width, 3)."""
        return np.frombuffer(self.arrays["canvas"], np.uint8).reshape(*self.frame, 4)[..., :3]


def run(
    page: Page,
    network: Network,
    steps: list[Step],
    *want: str,
    look: dict[str, Any] | None = None,
    picture: Bytes | None = None,
) -> list[Answer]:
    height, width = network.mask
    job = {
        "preprocessing": msgspec.to_builtins(network.preprocessing),
        "person": {
            "name": "mask",
            "height": height,
            "width": width,
            "classes": network.classes,
            "person": network.person,
            "logits": network.logits,
        },
        "look": {**LOOK, **(look or {})},
        "picture": None if picture is None else png(picture),
        "frames": [
            {
                "png": png(step.image),
                "as": step.kind,
                "output": None if step.output is None else text(step.output),
                "sinceMs": 1e12 if step.since_ms is None else step.since_ms,
            }
            for step in steps
        ],
        "want": list(want),
    }
    found = page.evaluate("async (job) => (await import('/stages.js')).run(job)", job)
    return [
        Answer({name: base64.b64decode(value) for name, value in each.items()}, network, step.image.shape[:2])
        for each, step in zip(found, steps, strict=True)
    ]


def png(image: Bytes) -> str:
    file = io.BytesIO()
    PILImage.fromarray(image).save(file, "png", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def text(values: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(values, np.float32).tobytes()).decode()
