"""What LiteRT.js's GPU delegate makes of matrix products and constants: the reason for tflite/biased_products.py and
tflite/learned_queries.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("litert_torch")

from vitexport import parity  # noqa: E402
from vitexport.contract import Placement  # noqa: E402
from vitexport_targets.tflite.biased_products import keep_constants_apart  # noqa: E402
from vitexport_targets.tflite.joined_constants import join_constants  # noqa: E402
from vitexport_targets.tflite.learned_queries import keys_before_learned_queries  # noqa: E402
from vitexport_targets.tflite.litertjs import open_in_litertjs  # noqa: E402
from vitexport_targets.tflite.quiet import quietly  # noqa: E402

TOKENS, WIDTH, HEADS = 12, 16, 2


def constant(*shape: int) -> Any:
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))))


class Attention(torch.nn.Module):
    """With a bias for each pair of tokens, as Swin's."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = constant(1, HEADS, TOKENS, TOKENS)

    def forward(self, x: Any) -> Any:
        heads = x.reshape(x.shape[0], TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)
        return torch.nn.functional.scaled_dot_product_attention(heads, heads, heads, self.bias, scale=0.7)


class Computed(Attention):
    """With a bias that is computed of what is learned, as SwinV2's of coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.towards = torch.nn.Linear(1, HEADS)
        self.apart = constant(TOKENS, TOKENS, 1)

    def forward(self, x: Any) -> Any:
        heads = x.reshape(x.shape[0], TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)
        bias = 16 * self.towards(self.apart).permute(2, 0, 1).contiguous().sigmoid()
        return ((heads * 0.7) @ heads.transpose(-2, -1) + bias.unsqueeze(0)).softmax(-1) @ heads


class Masked(Computed):
    """As SwinV2's shifted windows: what a window must not see is added to the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = constant(1, 1, TOKENS, TOKENS)

    def forward(self, x: Any) -> Any:
        heads = x.reshape(x.shape[0], TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)
        bias = 16 * self.towards(self.apart).permute(2, 0, 1).contiguous().sigmoid()
        scores = (heads @ heads.transpose(-2, -1)) + bias.unsqueeze(0)
        scores = scores.view(-1, HEADS, TOKENS, TOKENS) + self.mask
        return scores.softmax(-1) @ heads


class Pooling(torch.nn.Module):
    """What is asked of all tokens is learned, as in SigLIP's head."""

    def __init__(self) -> None:
        super().__init__()
        self.query = constant(1, 1, WIDTH)

    def forward(self, x: Any) -> Any:
        split = (HEADS, WIDTH // HEADS)
        heads = x.reshape(x.shape[0], TOKENS, *split).transpose(1, 2)
        asked = self.query.expand(x.shape[0], -1, -1).reshape(x.shape[0], 1, *split).transpose(1, 2)
        return torch.nn.functional.scaled_dot_product_attention(asked, heads, heads, scale=0.7)


class Added(torch.nn.Module):
    """A table of positions after a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(WIDTH, WIDTH)
        self.table = constant(1, TOKENS, WIDTH)

    def forward(self, x: Any) -> Any:
        return (self.linear(x) * 0.5 + self.table).softmax(-1)


class Ordinary(torch.nn.Module):
    """Nothing that is constant but weights, and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        return self.linear(x) * 0.5 + x


def captured(make: Callable[[], Any], batch: int = 1) -> tuple[Any, Any, Any]:
    x = torch.randn(batch, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))
    module = make().eval()
    with torch.no_grad():
        return torch.export.export(module, (x,)).module(), x, module(x)


@pytest.mark.parametrize(
    ("make", "batch", "found"),
    [(Attention, 1, 1), (Computed, 1, 1), (Added, 1, 1), (Ordinary, 1, 0), (Pooling, 1, 0), (Attention, 3, 0)],
)
def test_only_what_would_be_fused_is_taken_apart_and_answers_the_same(make: Callable[[], Any], batch: int, found: int):
    module, x, true = captured(make, batch)
    assert keep_constants_apart(module) == found
    with torch.no_grad():
        torch.testing.assert_close(module(x), true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "batch", "found"), [(Pooling, 1, 1), (Pooling, 3, 1), (Attention, 1, 0)])
def test_only_a_learned_query_comes_after_its_keys_and_the_answer_is_the_same(
    make: Callable[[], Any], batch: int, found: int
):
    module, x, true = captured(make, batch)
    assert keys_before_learned_queries(module) == found
    with torch.no_grad():
        torch.testing.assert_close(module(x), true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("make", "found"), [(Masked, 1), (Computed, 0), (Added, 0), (Ordinary, 0)])
def test_only_two_constants_are_joined_and_the_answer_is_the_same(make: Callable[[], Any], found: int):
    module, x, true = captured(make)
    assert join_constants(module) == found
    with torch.no_grad():
        torch.testing.assert_close(module(x), true, rtol=1e-5, atol=1e-6)


def on_the_gpu(module: Any, x: Any, true: Any, path: Path) -> tuple[float, Placement]:
    """How far LiteRT.js's answer is from PyTorch's, and who computed it."""

    class Named(torch.nn.Module):
        def forward(self, tokens: Any) -> dict[str, Any]:
            return {"mixed": module(tokens)}

    with quietly():
        import litert_torch

        converter = litert_torch.signature("mix", Named(), sample_kwargs={"tokens": x})
        converter.convert(runtime_constant_folding=True).export(str(path))
    with open_in_litertjs(path, "mix", "webgpu", lambda value: {"tokens": value}, dict) as session:
        return parity.drift(session.run(x.numpy()).outputs["mixed"], true.numpy()), session.placement


@pytest.mark.browser
@pytest.mark.parametrize("make", [Attention, Computed])
@pytest.mark.parametrize("apart", [False, True], ids=["as it is", "apart"])
def test_litert_js_still_computes_a_product_and_a_constant_wrongly_on_the_gpu(
    make: Callable[[], Any], apart: bool, tmp_path: Path
):
    module, x, true = captured(make)
    if apart:
        keep_constants_apart(module)
    drift, placement = on_the_gpu(module, x, true, tmp_path / "m.tflite")
    assert placement.nodes.keys() == {"webgpu"}
    assert (drift <= 1e-5) is apart, drift


@pytest.mark.browser
@pytest.mark.parametrize("turned", [False, True], ids=["as it is", "keys first"])
def test_litert_js_still_leaves_a_product_with_a_constant_left_side_to_the_cpu(turned: bool, tmp_path: Path):
    module, x, true = captured(Pooling)
    if turned:
        keys_before_learned_queries(module)
    drift, placement = on_the_gpu(module, x, true, tmp_path / "m.tflite")
    assert ("BATCH_MATMUL" not in str(placement.fallback)) is turned
    assert drift <= 1e-5
