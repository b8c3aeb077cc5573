"""Write ``gpu_operators.json``: what LiteRT's GPU delegate takes of the operators that networks are made of.

Run it with ``python -m``, after LiteRT.js's pin has moved. Nothing is taken from documentation: one network that has
every operator side by side is converted and compiled for WebGPU in a browser, where the delegate names those that it
refuses, with its reasons (:mod:`.litertjs.console`).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from vitexport import torchvision_schemas
from vitexport_targets.tflite.gpu_operators import FILE, RUNTIME
from vitexport_targets.tflite.lint import MOST_DIMENSIONS
from vitexport_targets.tflite.litertjs import VERSION, open_in_litertjs
from vitexport_targets.tflite.quiet import quietly
from vitexport_targets.tflite.structure import read

_SIGNATURE = "every"


def every_operator() -> Any:
    """A module on float32 (1, 8, 16, 16) whose outputs are one operator each, of at most four dimensions."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Every(nn.Module):  # type: ignore[misc]  # torch ships no types
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.depthwise = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.up, self.linear, self.prelu = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.Linear(16, 24), nn.PReLU(8)
            self.register_buffer("rows", torch.tensor([0, 5, 3]))

        def forward(self, x: Any) -> dict[str, Any]:
            y, positive, tokens = x * 0.5 + 0.25, x.abs() + 1, x.flatten(2)
            made = [
                *(x + y, x - y, x * y, x / positive, torch.maximum(x, y), torch.minimum(x, y), (x - y) ** 2),
                *(x.abs(), x.neg(), x.exp(), positive.log(), positive.sqrt(), positive.rsqrt(), x.sin(), x.cos()),
                *(x.floor(), x.tanh(), x.sigmoid(), positive**1.5, torch.sign(x), torch.round(x)),
                *(x.relu(), functional.relu6(x), functional.gelu(x), functional.hardswish(x), self.prelu(x)),
                *(functional.leaky_relu(x), functional.elu(x), functional.softmax(x, -1)),
                *(x.mean((2, 3)), x.sum(-1), x.amax(-1), x.amin(-1), x.prod(-1), x.cumsum(-1), x.argmax(-1)),
                *(self.conv(x), self.depthwise(x), self.up(x), self.linear(x), x @ y, tokens @ tokens.mT),
                *(functional.avg_pool2d(x, 2), functional.max_pool2d(x, 2)),
                *(functional.interpolate(x, scale_factor=2.0, mode=mode) for mode in ("bilinear", "nearest")),
                *(functional.pad(x, (1, 1, 1, 1)), functional.pad(x, (1, 1, 1, 1), value=2.0)),
                *(torch.cat([x, y], 1), torch.stack([x[0], y[0]]), *x.split(4, 1), x[:, 2:5], x[:, ::2], x[..., ::3]),
                *(x.transpose(1, 2), x.reshape(1, 64, 32), x.expand(3, -1, -1, -1)),
                *(x[:, self.rows], x[:, :, self.rows], torch.where(x > y, x, y), (x > y).float(), (x <= 0).float()),
                *(x.to(torch.int32).float(), functional.layer_norm(x, (16,)), x.roll(1, 2)),
            ]
            return {f"made_{number}": value for number, value in enumerate(made)}

    return Every().eval()


def read_operators() -> dict[str, Any]:
    """The contents of ``gpu_operators.json``. Raises as :func:`.litertjs.open_in_litertjs` does."""
    torchvision_schemas.declare()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "every.tflite"
        with quietly():
            import litert_torch
            import torch

            sample = (torch.zeros(1, 8, 16, 16),)
            litert_torch.signature(_SIGNATURE, every_operator(), sample_args=sample).convert().export(str(path))
        graph = read(path.read_bytes(), path.name).graphs[0]
        if high := [tensor.name for tensor in graph.tensors if len(tensor.shape) > MOST_DIMENSIONS]:
            sys.exit(
                f"The converter made tensors of many dimensions ({high[0]}), which are refused whatever makes them."
            )
        with open_in_litertjs(path, _SIGNATURE, "webgpu", dict, dict) as session:
            placement = session.placement
    if placement is None:
        sys.exit("LiteRT.js did not say where the operators run. Look at what it logs.")
    refused = dict(sorted(said.split(": ", 1) for said in placement.fallback))
    return {RUNTIME: VERSION, "takes": sorted(set(graph.operations) - set(refused)), "refuses": refused}


if __name__ == "__main__":
    FILE.write_text(json.dumps(read_operators(), indent=2) + "\n")
