"""What one forward pass costs, counted operation by operation on the meta device: shapes without numbers.

A multiply-accumulate (MAC) is counted for every product that a convolution or a matrix product sums up, attention's own
two products (queries by keys, and their softmax by values) included; biases, norms, activations and softmax are not. It
is the count by which ViT-B/16 at 224 has 17.6 G (Touvron et al. 2021, arXiv:2012.12877, table 5) and half of what
torch.utils.flop_counter gives; counters that see modules only miss attention's own products, and say 16.9.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Part = Literal["attention", "mlp", "rest"]

#: What the libraries call these modules, as a class or as an attribute: timm (Attention, WindowAttention, Mlp,
#: ConvMlp), torch (MultiheadAttention, self_attn), torchvision (MLPBlock), transformers (ViTAttention, Dinov2MLP).
_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_MLP = re.compile(r"mlp|ffn|feed_?forward|swiglu", re.IGNORECASE)

#: transformers splits the MLP of a block in two classes, ViTIntermediate and ViTOutput; ViTSelfOutput is attention's.
_MLP_CLASS = re.compile(r"Intermediate$|(?<!Self)Output$")


@dataclass(frozen=True)
class Operation:
    """A convolution, a matrix product, or a softmax (which has no MACs of its own)."""

    kind: Literal["convolution", "product", "softmax"]
    path: tuple[str, ...]
    """The modules it was issued under, outermost first."""
    macs: int
    shape: tuple[int, ...]
    """Of its output."""
    weights: tuple[str, ...] = ()
    """The parameters among its operands."""
    of_values: bool = False
    """Both operands were computed from the picture: no weight, but attention's own products."""


@dataclass(frozen=True)
class Count:
    """A forward pass of ``module``."""

    operations: tuple[tuple[Operation, Part], ...]
    """In order, each with the part of the network that it belongs to."""
    peak_bytes: int
    """Most float32 bytes of activations alive at once, as PyTorch runs it without fused attention: an upper bound for a
    runtime that frees what it no longer needs."""

    def macs(self, part: Part) -> int:
        return sum(operation.macs for operation, of in self.operations if of == part)


def count(module: torch.nn.Module, pixel_values: torch.Tensor) -> Count:
    """Run ``module`` once; both on the meta device. Raises what the module raises."""
    recorder = _Recorder(module, pixel_values)
    with torch.no_grad(), recorder.listening(), recorder:
        module(pixel_values)
    modules = dict(module.named_modules())
    issuers = {operation.path[-1] for operation in recorder.operations if operation.of_values and operation.path}
    named = tuple((operation, _part(operation, modules, issuers)) for operation in recorder.operations)
    return Count(named, recorder.peak_bytes)


def _part(operation: Operation, modules: dict[str, torch.nn.Module], issuers: set[str]) -> Part:
    """By the innermost module that is one or the other: by its class, its name, or because it multiplies values by
    values itself. The network as a whole is neither, whatever it is called."""
    for name in reversed(operation.path):
        if not name:
            break
        kind, own_name = type(modules[name]).__name__, name.rpartition(".")[2]
        words = (kind, own_name)
        if _MLP_CLASS.search(kind) or any(_MLP.search(word) for word in words):
            return "mlp"
        if name in issuers or any(_ATTENTION.search(word) for word in words):
            return "attention"
    return "attention" if operation.of_values else "rest"


class _Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch ships no types for it
    """Sees every operation below the modules, and hears from hooks which module is running."""

    def __init__(self, module: torch.nn.Module, pixel_values: torch.Tensor) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.peak_bytes = 0
        self._module = module
        self._path: list[str] = []
        self._parameters = {_storage(p): name for name, p in module.named_parameters()}
        self._known = {*self._parameters, *(_storage(b) for b in module.buffers())}
        self._live_bytes = 0
        self._of_picture: set[int] = set()
        self._track(pixel_values, of_picture=True)

    @contextmanager
    def listening(self) -> Iterator[None]:
        hooks: list[Any] = []
        for name, module in self._module.named_modules():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._path.append(name)))
            hooks.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _leave(self, *_: Any) -> None:
        self._path.pop()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.overloadpacket not in _COUNTED:
            with self:  # an operation made of others, such as matmul, is seen as those
                made = function.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        output = function(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        of_picture = any(_storage(t) in self._of_picture for t in tensors)
        for made in tree_leaves(output):
            if isinstance(made, torch.Tensor):
                self._track(made, of_picture)
        if function.overloadpacket in _COUNTED:
            self._record(function.overloadpacket, args, output)
        return output

    def _record(self, packet: Any, args: Sequence[Any], output: Any) -> None:
        kind, operands, macs = _COUNTED[packet]
        result = output[0] if isinstance(output, tuple) else output
        storages = [_storage(args[index]) for index in operands]
        self.operations.append(
            Operation(
                kind=kind,
                path=tuple(self._path),
                macs=macs(args, result),
                shape=tuple(result.shape),
                weights=tuple(self._parameters[s] for s in storages if s in self._parameters),
                of_values=kind == "product" and all(s in self._of_picture for s in storages),
            )
        )

    def _track(self, tensor: torch.Tensor, of_picture: bool) -> None:
        storage = _storage(tensor)
        if of_picture:
            self._of_picture.add(storage)
        if storage in self._known:
            return
        self._known.add(storage)
        size = tensor.untyped_storage().nbytes()
        self._live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        weakref.finalize(tensor.untyped_storage(), self._forget, storage, size)

    def _forget(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._of_picture.discard(storage)
        self._live_bytes -= size


def _storage(tensor: torch.Tensor) -> int:
    """The identity of what a tensor is a view of."""
    return int(tensor.untyped_storage()._cdata)


# ------------------------------------------------------------------------------------------- MACs from shapes, per op


def _product(left: int) -> Callable[[Sequence[Any], torch.Tensor], int]:
    """(..., n, k) by (..., k, m): every output element sums up k products."""
    return lambda args, out: int(out.numel() * args[left].shape[-1])


def _convolution(args: Sequence[Any], out: torch.Tensor) -> int:
    """Weight (out, in / groups, *kernel); transposed: (in, out / groups, *kernel), spread from every input element."""
    pixel_values, weight, transposed = args[0], args[1], args[6]
    return int((pixel_values if transposed else out).numel() * prod(weight.shape[1:]))


def _nothing(args: Sequence[Any], out: torch.Tensor) -> int:
    return 0


_aten = torch.ops.aten

#: Operation -> (kind, which arguments are its operands, its MACs).
_COUNTED: dict[Any, tuple[Any, tuple[int, ...], Callable[[Sequence[Any], torch.Tensor], int]]] = {
    _aten.mm: ("product", (0, 1), _product(0)),
    _aten.addmm: ("product", (1, 2), _product(1)),
    _aten.bmm: ("product", (0, 1), _product(0)),
    _aten.baddbmm: ("product", (1, 2), _product(1)),
    _aten.mv: ("product", (0, 1), _product(0)),
    _aten.convolution: ("convolution", (0, 1), _convolution),
    _aten._softmax: ("softmax", (0,), _nothing),
    _aten._safe_softmax: ("softmax", (0,), _nothing),
}
