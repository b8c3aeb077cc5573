"""PyTorch itself as a target: the captured program, saved, read back and run. What the core's tests run on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from vitexport import host
from vitexport.contract import (
    Artifact,
    Bundle,
    Device,
    ExportRequest,
    Placement,
    Precision,
    Run,
    Session,
    SourceModel,
    Traits,
    Variant,
)
from vitexport.errors import BadRequest
from vitexport.progress import step

if TYPE_CHECKING:
    from vitexport.contract import Tensor


@dataclass(eq=False)
class _Session:
    device: Device
    load_ms: float
    _module: Any
    _outputs: tuple[str, ...]
    placement: Placement | None = None
    resident: Literal[True] = True

    def run(self, pixel_values: Tensor) -> Run:
        import torch

        with torch.no_grad():
            start = time.perf_counter()
            values = self._module(torch.from_numpy(pixel_values.copy()))
            ms = (time.perf_counter() - start) * 1000
        tensors = values if isinstance(values, tuple) else (values,)
        return Run({n: t.numpy() for n, t in zip(self._outputs, tensors, strict=True)}, ms)

    def __enter__(self) -> _Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._module = None


class Reference:
    traits = Traits(
        name="reference",
        summary="PyTorch's own exported program (.pt2), for comparison and for tests",
        precisions=(
            Precision("fp32", 1e-5, "the same kernels on the same machine: rounding order at most", default=True),
        ),
        providers=("cpu",),
        options=("dynamic",),
    )

    def lower(self, sources: tuple[SourceModel, ...], request: ExportRequest, into: Path) -> Artifact:
        with step("lower", self.traits.name):
            return Artifact(tuple(self._save(source, into) for source in sources), {"torch": version("torch")})

    def _save(self, source: SourceModel, into: Path) -> tuple[Variant, ...]:
        import torch

        stored = BytesIO()  # torch's own file writer aborts the process where the disk is full
        torch.export.save(source.program, stored)
        name = f"model_{source.size}.pt2"
        (into / name).write_bytes(stored.getvalue())
        return (Variant("fp32", (name,), self.traits.precision("fp32").tolerance),)

    def open(self, bundle: Bundle, precision: str, provider: str, taps: tuple[str, ...] = ()) -> Session:
        import torch

        if taps:
            raise BadRequest("The reference target has no intermediates by name: ask the module itself.")
        start = time.perf_counter()
        module = torch.export.load(bundle.path(bundle.variant(precision).files[0])).module()
        load_ms = (time.perf_counter() - start) * 1000
        device = Device(host.cpu_name(), f"torch {torch.__version__}", provider, facts=host.facts())
        return _Session(device, load_ms, module, tuple(o.name for o in bundle.rung.outputs))


TARGET = Reference()
