"""Your own network: ``--model path/to/file.py:factory``, where ``factory()`` returns a module or a :class:`Network`."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vitexport.contract import Clip, ExportRequest, Meaning, Preprocessing, Size, Task
from vitexport.errors import BadRequest, did_you_mean
from vitexport.models import licences, lively, video, weights
from vitexport.models.network import Network

if TYPE_CHECKING:
    import torch

_SPELLING = re.compile(r"(?P<file>.+\.py)(?::(?P<factory>.*))?")  # greedy: C:\folder\file.py:factory parses too
_DEFAULT_SIZE = Size(224, 224)

_TASKS: dict[Meaning, Task] = {
    "logits": "classify",
    "features": "features",
    "mask": "segment",
    "segmentation": "segment",
}


class OwnModule:
    name = "module"
    honours = video.OPTIONS
    presets: Mapping[str, str] = {}

    def claims(self, model: str) -> bool:
        return _SPELLING.fullmatch(model) is not None

    def build(self, request: ExportRequest) -> Network:
        """A bare module is taken to eat RGB in 0..1 without normalisation, squashed to ``--size`` (224 by default), or
        with ``--frames`` clips of it, (N, T, 3, H, W);
        its output's shape says what it means (see :func:`_meaning`). A ``Network`` says all of it itself.
        """
        import torch

        file, factory = _parse(request.model)
        with _importable(file.parent):
            made = _call(_find(_load(file), file, factory), request.model)
        if isinstance(made, Network):
            network = made
            if network.preprocessing.clip is None:
                video.refuse_frames(request)
            elif request.frames not in (None, network.preprocessing.clip.frames):
                raise BadRequest(
                    f"'{request.model}' fixes its own {network.preprocessing.clip.frames} frames. Leave --frames out, "
                    "or let the factory build for others."
                )
            if request.size not in (None, made.preprocessing.size):
                raise BadRequest(
                    f"'{request.model}' fixes its own size, {made.preprocessing.size}. Leave --size out, or let the "
                    "factory build the other size."
                )
        elif isinstance(made, torch.nn.Module):
            network = _described(made, request)
        else:
            raise BadRequest(
                f"'{request.model}' returned {type(made).__name__}. It must return a torch.nn.Module or a "
                "vitexport.models.network.Network."
            )
        return _weighed(_tasked(network, request), request)


FAMILY = OwnModule()


def _parse(model: str) -> tuple[Path, str]:
    match = _SPELLING.fullmatch(model)
    assert match is not None
    file, factory = Path(match["file"]), match["factory"]
    if not factory or not factory.isidentifier():
        raise BadRequest(f"'{model}' names no factory. Write path/to/file.py:factory, a function without arguments.")
    if not file.is_file():
        raise BadRequest(f"There is no file '{file}'. Write path/to/file.py:factory, from the current folder.")
    return file, factory


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the file import its neighbours, as it could if it were run itself."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def _load(file: Path) -> ModuleType:
    name = f"vitexport_own_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up by name
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a __main__ guard may exit
        del sys.modules[name]
        raise BadRequest(f"'{file}' cannot be imported: {_said(error)}.") from error
    return module


def _find(module: ModuleType, file: Path, factory: str) -> Any:
    found = getattr(module, factory, None)
    if not callable(found):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise BadRequest(
            f"'{file}' has no function '{factory}'.{did_you_mean(factory, names)} "
            "The factory takes no arguments and returns a torch.nn.Module."
        )
    return found


def _call(factory: Any, model: str) -> Any:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise BadRequest(f"'{model}' failed to build a model: {_said(error)}.") from error


def _said(error: BaseException) -> str:
    """The kind of ``error`` and its first line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(".: ")


def _described(module: torch.nn.Module, request: ExportRequest) -> Network:
    clip = Clip(request.frames, request.frame_stride or 1) if request.frames else None
    preprocessing = Preprocessing(request.size or _DEFAULT_SIZE, clip=clip)
    meaning = _meaning(_answer(module.eval().float(), preprocessing, request.model), request.model)
    name = meaning if meaning in ("logits", "mask") else "features" if meaning == "features" else "segmentation"
    return Network(module, preprocessing, _TASKS[meaning], name, meaning, origin=Path(request.model).name)


def _answer(module: torch.nn.Module, preprocessing: Preprocessing, model: str) -> torch.Tensor:
    """The module's output for a photo, or a sentence."""
    import torch

    from vitexport import photos
    from vitexport.capture import first_tensor
    from vitexport.preprocess import preprocess

    first, *_ = photos.as_inputs(photos.probes(None), preprocessing)
    pixel_values = torch.from_numpy(preprocess(first.image, preprocessing))
    try:
        with torch.no_grad():
            answer = first_tensor(module(pixel_values))
    except Exception as error:
        raise BadRequest(
            f"'{model}' cannot take a float32 input of shape {tuple(pixel_values.shape)}: {_said(error)}. "
            "Try another --size, or return a Network with a Preprocessing of its own."
        ) from error
    return answer


def _meaning(answer: torch.Tensor, model: str) -> Meaning:
    """(N, n): logits. (N, 1, H, W) within 0..1: a mask. (N, C, H, W) otherwise: segmentation. (N, T, D): features."""
    if answer.ndim == 2:
        return "logits"
    if answer.ndim == 3:
        return "features"
    if answer.ndim == 4:
        is_mask = answer.shape[1] == 1 and answer.min() >= 0 and answer.max() <= 1
        return "mask" if is_mask else "segmentation"
    raise BadRequest(
        f"'{model}' answers with shape {tuple(answer.shape)}, which is none of logits (N, n), features (N, T, D) or a "
        "map (N, C, H, W). Return a Network that says what it means."
    )


def _tasked(network: Network, request: ExportRequest) -> Network:
    """``--task`` can turn logits into features, which have the same shape, and nothing else."""
    if request.task in (None, network.task):
        return network
    if request.task == "features" and network.meaning == "logits":
        return replace(network, task="features", meaning="features", output_name="features", labels=())
    raise BadRequest(f"'{request.model}' answers with {network.meaning}, and cannot {request.task}. Leave --task out.")


def _weighed(network: Network, request: ExportRequest) -> Network:
    """``pretrained`` is what the factory put in."""
    if request.weights == weights.PRETRAINED:
        return network
    if request.weights == weights.RANDOM:
        lively.enliven_on_photos(network.module, network.preprocessing, request.seed)
        return replace(network, origin=f"random (seed {request.seed})", licence=licences.RANDOM)
    weights.load_file(network.module, request.weights)
    return replace(network, origin=Path(request.weights).name, licence=licences.UNKNOWN)
