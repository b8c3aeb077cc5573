"""Weights that did not come with the model: from a file of the user's, and their identity."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitexport.errors import BadRequest, did_you_mean

if TYPE_CHECKING:
    import torch

PRETRAINED = "pretrained"
RANDOM = "random"

_TORCH_SUFFIXES = frozenset({".pt", ".pth", ".bin"})

#: Keys under which training scripts nest the state dict beside optimiser and epoch.
_NESTS = ("state_dict", "model", "model_state_dict")


def load_file(module: torch.nn.Module, path: str | Path) -> None:
    """Load every parameter and buffer of ``module`` from a ``.safetensors``, ``.pt`` or ``.pth`` file, strictly.

    Raises ``BadRequest``: the file cannot be read, wants to run code, or does not fit (naming what does not).
    """
    assign(module, read(path), f"'{path}'")


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """Name -> tensor, on the CPU. A state dict nested under ``state_dict`` or ``model`` is taken out of its nest."""
    path = Path(path)
    if not path.is_file():
        raise BadRequest(f"There is no weights file '{path}'. Name a .safetensors, .pt or .pth file, or use 'random'.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in _TORCH_SUFFIXES:
        return _unnest(_read_torch(path), path)
    raise BadRequest(
        f"'{path}' is not a weights file that can be read: its suffix is '{path.suffix}', and not .safetensors, .pt "
        "or .pth. Save the state dict with safetensors.torch.save_file."
    )


def assign(module: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy ``state`` into ``module``; names and shapes must agree exactly. ``source`` names it in messages."""
    wanted = module.state_dict()
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    if missing:
        raise BadRequest(
            f"{source} has no '{missing[0]}'{_others(missing)}, which the model needs."
            f"{did_you_mean(missing[0], extra or state)} Check that the file is a state dict of this architecture."
        )
    if extra:
        raise BadRequest(
            f"{source} holds '{extra[0]}'{_others(extra)}, which the model does not have."
            f"{did_you_mean(extra[0], wanted)} Check that the file is a state dict of this architecture."
        )
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise BadRequest(
                f"'{name}' has shape {tuple(state[name].shape)} in {source}, and {tuple(tensor.shape)} in the model. "
                "Check the size, the patch size and the number of classes."
            )
    module.load_state_dict(dict(state), strict=True)


def sha256(module: torch.nn.Module) -> str:
    """The identity of what is exported: parameters and persistent buffers, by name, in sorted order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise BadRequest(
            f"'{path}' is not a whole safetensors file ({error}). It was probably cut short: copy or download it again."
        ) from error


def _read_torch(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise BadRequest(
                f"'{path}' holds more than tensors: loading it would run code of the file's choosing, so it was not "
                "loaded. Where you trust it, load it yourself and save its state dict with safetensors.torch.save_file."
            ) from error
        raise _not_whole(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> BadRequest:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return BadRequest(
        f"'{path}' is not a whole PyTorch file ({reason}). It was probably cut short: copy or download it again."
    )


def _unnest(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    for nest in _NESTS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(nest), Mapping):
            loaded = loaded[nest]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise BadRequest(
            f"'{path}' holds no state dict (a mapping of names to tensors), at the top or under "
            f"{', '.join(repr(nest) for nest in _NESTS)}. Save module.state_dict()."
        )
    return dict(loaded)


def _others(names: list[str]) -> str:
    return f" (nor {len(names) - 1} more)" if len(names) > 1 else ""
