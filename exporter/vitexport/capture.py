"""From a PyTorch module to the captured program that every target lowers. The only ``torch.export`` call there is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from vitexport import dynamic as dynamic_shapes
from vitexport import photos, rounding
from vitexport.contract import Dynamic, Meaning, OutputSpec, Probe, Provenance, Scores, SourceModel
from vitexport.errors import BadRequest, LoweringFailed, first_line
from vitexport.models import weights
from vitexport.preprocess import preprocess
from vitexport.rewrites import PROGRAM_REWRITES, rewriting

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from vitexport.models.network import Network

#: Drift allowed between the module and its own capture. Both run the same kernels; a rewrite may pick another one of
#: the same precision, and a sum in another order moves float32 by about 1e-6 over the depth of these networks.
CAPTURE_TOLERANCE = 1e-5

#: What an output holds unless its network says otherwise.
_SCORES: Mapping[Meaning, Scores | None] = {
    "logits": "logits",
    "mask": "probabilities",
    "segmentation": "logits",
    "features": None,
}


def capture(network: Network, name: str, probes: tuple[Probe, ...], dynamic: tuple[Dynamic, ...] = ()) -> SourceModel:
    """Fix ``network`` as a program with one input ``pixel_values``, float32 (N, 3, H, W) or clips, and one output.

    ``probes`` are pictures; a network of clips is shown a pan over each. N is 1, or any where ``dynamic`` has
    ``batch``; H and W are the network's, or any multiple of its step where ``dynamic`` has ``size``. The program is run
    beside the module on a probe before it is handed on.
    Raises ``BadRequest`` where the module itself does not answer the probes with finite numbers, ``LoweringFailed``
    where torch cannot capture it.
    """
    import torch

    # Nothing is trained here, and torch picks attention's kernel, hence strides, by whether a mask wants a gradient:
    # BEiT's bias did, and what was a view in the trace was none when torch.onnx took the program apart.
    module = network.module.eval().float().requires_grad_(False)
    entry = _entry(module)
    probes = photos.as_inputs(probes, network.preprocessing)
    batches = [preprocess(probe.image, network.preprocessing) for probe in probes]
    forward = _forward(entry, network.output_name)
    shape = _check_answers(forward, network, name, probes, batches)

    example = _example(batches, dynamic)
    every = dynamic_shapes.step(network.preprocessing.size, network.size_step)
    program = _export(entry, torch.from_numpy(example), name, dynamic, every)
    _check_program(program, forward, network.output_name, example, name)
    return SourceModel(
        name=name,
        task=network.task,
        preprocessing=network.preprocessing,
        outputs=(_output(network, shape),),
        provenance=Provenance(network.origin, network.licence, weights.sha256(module)),
        program=program,
        forward=forward,
        probes=probes,
        module=module,
        rounding=rounding.float32(entry, network.meaning, batches),
        size_step=every,
        pos_embed_rule=network.pos_embed_rule,
        pos_embed_source=network.pos_embed_source,
        notes=network.notes,
        hub_config=network.hub_config,
    )


def _output(network: Network, shape: tuple[int, ...]) -> OutputSpec:
    scores = network.scores or _SCORES[network.meaning]
    shows_people = network.meaning in ("mask", "segmentation")
    person = person_channel(network.labels) if shows_people else None
    return OutputSpec(network.output_name, network.meaning, shape, network.labels, scores, person)


def person_channel(labels: Sequence[str]) -> int | None:
    """The class of people: ``person`` in ADE20K (12), PASCAL VOC (15), Cityscapes and COCO. None where none is called
    that. ADE20K's own list, unlike the hub's, goes on with synonyms: ``person, individual, someone``."""
    names = [label.partition(",")[0].strip().lower() for label in labels]
    return names.index("person") if "person" in names else None


def recapture(source: SourceModel, module: torch.nn.Module, dynamic: tuple[Dynamic, ...] = ()) -> SourceModel:
    """``source`` by way of another module with the same answers; what is true stays as it was."""
    import torch

    example = _example([preprocess(probe.image, source.preprocessing) for probe in source.probes], dynamic)
    program = _export(_entry(module), torch.from_numpy(example), source.name, dynamic, source.size_step)
    _check_program(program, source.forward, source.outputs[0].name, example, source.name)
    return replace(source, program=program)


def _example(batches: list[NDArray[np.float32]], dynamic: tuple[Dynamic, ...]) -> NDArray[np.float32]:
    """What is traced: torch takes a batch of 1 for a fixed one."""
    return batches[0] if "batch" not in dynamic else np.concatenate([batches[0], batches[-1]])


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
                f"'{name}' cannot take a float32 input of shape {batch.shape} ({first_line(error)}). "
                "Try another --size, or check the module."
            ) from error
        if not np.isfinite(answer).all():
            raise BadRequest(f"'{name}' answers '{probe.name}' with NaN or infinity in PyTorch. Check its weights.")
    return tuple(int(n) for n in answer.shape)


def _export(entry: torch.nn.Module, example: torch.Tensor, name: str, dynamic: tuple[Dynamic, ...], every: int) -> Any:
    import torch

    shapes = dynamic_shapes.shapes(dynamic, every, example.ndim)
    with torch.no_grad(), rewriting(), _no_dump(), dynamic_shapes.watch_ties() as ties:
        try:
            program = torch.export.export(entry, (example,), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch.export raises its users' and its own exceptions of every kind
            raise LoweringFailed(_why_not(error, name, dynamic, ties)) from error
    for rewrite in PROGRAM_REWRITES:
        rewrite(program)
    return program


def _why_not(error: Exception, name: str, dynamic: tuple[Dynamic, ...], ties: list[dynamic_shapes.Tie]) -> str:
    if dynamic and ties:
        return (
            f"'{name}' cannot leave its {' and '.join(dynamic)} open: it is tied to one by {ties[0]}. "
            "Export a ladder of fixed sizes instead (--size, repeated), or leave --dynamic out."
        )
    hint = (
        f"Its {' or '.join(dynamic)} may be fixed by its code: leave --dynamic out."
        if dynamic
        else "Data-dependent Python control flow is the usual cause; it must be removed from the module."
    )
    return f"torch.export cannot capture '{name}': {first_line(error)}. {hint}"


@contextmanager
def _no_dump() -> Iterator[None]:
    """torch.export prints the graph of a module that it cannot capture; our sentence names the cause instead."""
    handlers = logging.getLogger("torch").handlers
    levels = [handler.level for handler in handlers]
    try:
        for handler in handlers:
            handler.setLevel(logging.CRITICAL + 1)
        with redirect_stderr(StringIO()):
            yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


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
