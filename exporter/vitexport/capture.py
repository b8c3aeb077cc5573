"""From a PyTorch module to the captured program that every target lowers. The only ``torch.export`` call there is."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport.contract import INPUT_NAME, OutputSpec, Probe, Provenance, SourceModel
from vitexport.errors import BadRequest, LoweringFailed
from vitexport.models import weights
from vitexport.parity import drift
from vitexport.preprocess import preprocess
from vitexport.rewrites import rewriting

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from vitexport.models.network import Network

#: Drift allowed between the module and its own capture. Both run the same kernels; a rewrite may pick another one of
#: the same precision, and a sum in another order moves float32 by about 1e-6 over the depth of these networks.
CAPTURE_TOLERANCE = 1e-5


def capture(network: Network, name: str, probes: tuple[Probe, ...], dynamic_batch: bool = False) -> SourceModel:
    """Fix ``network`` as a program with one input ``pixel_values``, float32 (N, 3, H, W), and one output.

    N is 1, or any with ``dynamic_batch``. The program is run beside the module on a probe before it is handed on.
    Raises ``BadRequest`` where the module itself does not answer the probes with finite numbers, ``LoweringFailed``
    where torch cannot capture it.
    """
    import torch

    module = network.module.eval().float()
    entry = _entry(module)
    batches = [preprocess(probe.image, network.preprocessing) for probe in probes]
    forward = _forward(entry, network.output_name)
    shape = _check_answers(forward, network, name, probes, batches)

    example = np.concatenate(batches[:2] if dynamic_batch else batches[:1])
    if dynamic_batch and len(batches) < 2:
        example = np.concatenate([example, example])
    program = _export(entry, torch.from_numpy(example), name, dynamic_batch)
    _check_program(program, forward, network.output_name, example, name)
    return SourceModel(
        name=name,
        task=network.task,
        preprocessing=network.preprocessing,
        outputs=(OutputSpec(network.output_name, network.meaning, shape, network.labels),),
        provenance=Provenance(network.origin, network.licence, weights.sha256(module)),
        program=program,
        forward=forward,
        probes=probes,
        rounding=_rounding(entry, network, batches),
        hub_config=network.hub_config,
    )


def _entry(module: torch.nn.Module) -> torch.nn.Module:
    """``module`` behind a ``forward(pixel_values)`` that returns one tensor."""
    import torch

    class Entry(torch.nn.Module):  # type: ignore[misc]  # torch ships no types for it
        def __init__(self) -> None:
            super().__init__()
            self.network = module

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return first_tensor(self.network(pixel_values))

    return Entry().eval()


def first_tensor(answer: Any) -> Any:
    """Out of a tuple, a dict or a transformers ``ModelOutput``, which list their main output first."""
    while not hasattr(answer, "shape"):
        answer = next(iter(answer.values() if hasattr(answer, "values") else answer))
    return answer


def _forward(entry: torch.nn.Module, output_name: str) -> Any:
    def forward(pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        import torch

        with torch.no_grad():
            return {output_name: entry(torch.from_numpy(np.ascontiguousarray(pixel_values))).numpy()}

    return forward


def _check_answers(
    forward: Any, network: Network, name: str, probes: tuple[Probe, ...], batches: list[NDArray[np.float32]]
) -> tuple[int, ...]:
    """Every probe has a finite answer. Returns the output's shape for a batch of 1."""
    for probe, batch in zip(probes, batches, strict=True):
        try:
            answer = forward(batch)[network.output_name]
        except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, StopIteration) as error:
            raise BadRequest(
                f"'{name}' cannot take a float32 image of shape {batch.shape} ({_first_line(error)}). "
                "Try another --size, or check the module."
            ) from error
        if not np.isfinite(answer).all():
            raise BadRequest(f"'{name}' answers '{probe.name}' with NaN or infinity in PyTorch. Check its weights.")
    return tuple(int(n) for n in answer.shape)


def _rounding(entry: torch.nn.Module, network: Network, batches: list[NDArray[np.float32]]) -> float:
    """Drift between the module's float32 and float64 answers; 0 where its code insists on float32."""
    import torch

    exact = copy.deepcopy(entry).double()
    worst = 0.0
    with torch.no_grad():
        for batch in batches:
            pixel_values = torch.from_numpy(batch)
            try:
                true = exact(pixel_values.double()).numpy()
            except RuntimeError:
                return 0.0
            worst = max(worst, drift(entry(pixel_values).numpy(), true, network.meaning))
    return worst


def _export(entry: torch.nn.Module, example: torch.Tensor, name: str, dynamic_batch: bool) -> Any:
    import torch

    shapes = {INPUT_NAME: {0: torch.export.Dim("batch", min=1)}} if dynamic_batch else None
    try:
        with torch.no_grad(), rewriting():
            return torch.export.export(entry, (example,), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises its users' and its own exceptions of every kind
        hint = (
            "Its batch size may be fixed by its code: leave --dynamic out."
            if dynamic_batch
            else ("Data-dependent Python control flow is the usual cause; it must be removed from the module.")
        )
        raise LoweringFailed(f"torch.export cannot capture '{name}': {_first_line(error)}. {hint}") from error


def _check_program(program: Any, forward: Any, output: str, example: NDArray[np.float32], name: str) -> None:
    import torch

    with torch.no_grad():
        got = program.module()(torch.from_numpy(example)).numpy()
    true = forward(example)[output]
    drift = float(np.abs(got - true).max() / max(np.abs(true).max(), np.finfo(np.float32).tiny))
    if not drift <= CAPTURE_TOLERANCE:
        raise LoweringFailed(
            f"The captured program of '{name}' does not compute what the module computes (drift {drift:.1e}, "
            f"tolerance {CAPTURE_TOLERANCE:.0e}). Random or stateful operations in eval mode are the usual cause."
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]
