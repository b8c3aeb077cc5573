"""``--layout ane``: a plain ViT in the layout that Apple's Neural Engine prefers, computing the same numbers.

Apple's advice (https://machinelearning.apple.com/research/neural-engine-transformers): tensors (B, C, 1, S) with the
sequence last, 1x1 convolutions for linear layers, attention head by head with softmax over the first axis after the
batch, keys transposed once before they are split. Here it is a module made of the loaded one, weight by weight;
LayerScale and attention's scale go into the convolutions. What it brings is counted (:mod:`.indicators`) and never
promised: whether a device is faster with it only a device can tell.
"""

from __future__ import annotations

from typing import Any

from vitexport.errors import LoweringFailed


def in_ane_layout(vit: Any, name: str) -> Any:
    """A module with the answers of timm's ``VisionTransformer``; float32 (N, 3, H, W) in.

    Raises ``LoweringFailed`` where ``vit`` is anything else, or has a part that this does not know.
    """
    if unknown := _unknown_part(vit):
        raise LoweringFailed(
            f"--layout ane knows timm's plain VisionTransformer, and '{name}' has {unknown}. Leave --layout out."
        )
    return _build(vit)


def _unknown_part(vit: Any) -> str:
    """What is not rewritten here; empty where all is."""
    import torch

    if _kind(vit) != "VisionTransformer":
        return f"a {_kind(vit)}"
    parts = {
        "patch_embed.norm": (vit.patch_embed.norm, ("Identity",)),
        "norm_pre": (vit.norm_pre, ("Identity", "LayerNorm")),
        "norm": (vit.norm, ("Identity", "LayerNorm")),
        "fc_norm": (vit.fc_norm, ("Identity", "LayerNorm")),
        "head": (vit.head, ("Identity", "Linear")),
    }
    for index, block in enumerate(vit.blocks):
        parts |= {f"blocks.{index}.{key}": part for key, part in _parts_of_block(block).items()}
    for where, (part, kinds) in parts.items():
        if _kind(part) not in kinds:
            return f"a {_kind(part)} at {where}"
    if vit.attn_pool is not None or vit.global_pool not in ("token", "avg"):
        return f"pooling by '{vit.global_pool}'"
    if not isinstance(vit.patch_embed.proj, torch.nn.Conv2d) or vit.patch_embed.dynamic_img_pad:
        return "a patch embedding that pads"
    return "" if not vit.dynamic_img_size else "positions that are resampled in the graph"


def _parts_of_block(block: Any) -> dict[str, tuple[Any, tuple[str, ...]]]:
    if _kind(block) != "Block" or _kind(block.attn) != "Attention" or _kind(block.mlp) != "Mlp":
        return {"(attention and MLP)": (block, ("Block of an Attention and an Mlp",))}
    plain = ("Identity",)
    return {
        "norm1": (block.norm1, ("LayerNorm",)),
        "norm2": (block.norm2, ("LayerNorm",)),
        "attn.q_norm": (block.attn.q_norm, plain),
        "attn.k_norm": (block.attn.k_norm, plain),
        "attn.norm": (getattr(block.attn, "norm", None) or _identity(), plain),
        "mlp.norm": (block.mlp.norm, plain),
        "mlp.act": (block.mlp.act, ("GELU",)),
        "ls1": (block.ls1, ("Identity", "LayerScale")),
        "ls2": (block.ls2, ("Identity", "LayerScale")),
    }


def _kind(part: Any) -> str:
    return type(part).__name__


def _identity() -> Any:
    import torch

    return torch.nn.Identity()


def _build(vit: Any) -> Any:
    import torch
    from torch import nn

    class Norm(nn.Module):  # type: ignore[misc]  # torch ships no types for it
        """LayerNorm over channels, (B, C, 1, S). Spelled out; coremltools makes one operation of it again."""

        def __init__(self, norm: Any) -> None:
            super().__init__()
            self.epsilon = norm.eps
            self.weight, self.bias = (nn.Parameter(p.detach().view(1, -1, 1, 1)) for p in (norm.weight, norm.bias))

        def forward(self, x: Any) -> Any:
            centred = x - x.mean(1, keepdim=True)
            return (
                centred * torch.rsqrt((centred * centred).mean(1, keepdim=True) + self.epsilon) * self.weight
                + self.bias
            )

    class Attention(nn.Module):  # type: ignore[misc]
        def __init__(self, attention: Any, scale: Any) -> None:
            super().__init__()
            self.heads = attention.num_heads
            weights = attention.qkv.weight.detach().chunk(3)
            biases = attention.qkv.bias.detach().chunk(3) if attention.qkv.bias is not None else (None,) * 3
            self.query = _convolution(weights[0], biases[0], attention.scale)
            self.key, self.value = (_convolution(weights[i], biases[i]) for i in (1, 2))
            self.project = _convolution(attention.proj.weight, attention.proj.bias, scale)

        def forward(self, x: Any) -> Any:
            dim = x.shape[1] // self.heads
            queries, values = self.query(x).split(dim, 1), self.value(x).split(dim, 1)
            keys = self.key(x).transpose(1, 3).split(dim, 3)
            heads = []
            for q, k, v in zip(queries, keys, values, strict=True):
                scores = torch.einsum("bchq,bkhc->bkhq", q, k).softmax(dim=1)
                heads.append(torch.einsum("bkhq,bchk->bchq", scores, v))
            return self.project(torch.cat(heads, dim=1))

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, block: Any) -> None:
            super().__init__()
            self.norm1, self.norm2 = Norm(block.norm1), Norm(block.norm2)
            self.attention = Attention(block.attn, _gamma(block.ls1))
            self.widen = _convolution(block.mlp.fc1.weight, block.mlp.fc1.bias)
            self.activation = block.mlp.act
            self.narrow = _convolution(block.mlp.fc2.weight, block.mlp.fc2.bias, _gamma(block.ls2))

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.norm1(x))
            return x + self.narrow(self.activation(self.widen(self.norm2(x))))

    class AneViT(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.patches = vit.patch_embed.proj
            self.prefix = nn.Parameter(_prefix(vit))
            self.positions = nn.Parameter(_channels_first(vit.pos_embed)) if vit.pos_embed is not None else None
            self.positions_first = vit.no_embed_class
            norms = (vit.norm_pre, vit.norm)
            self.before, self.after = (Norm(n) if _kind(n) == "LayerNorm" else nn.Identity() for n in norms)
            self.blocks = nn.Sequential(*(Block(block) for block in vit.blocks))
            self.pooled_norm, self.head = vit.fc_norm, vit.head
            self.pools_token = vit.global_pool == "token"

        def forward(self, pixel_values: Any) -> Any:
            x = self.patches(pixel_values)
            x = x.reshape(x.shape[0], x.shape[1], 1, -1)
            if self.positions is not None and self.positions_first:
                x = x + self.positions
            if self.prefix.shape[3]:
                x = torch.cat([self.prefix.expand(x.shape[0], -1, -1, -1), x], dim=3)
            if self.positions is not None and not self.positions_first:
                x = x + self.positions
            x = self.after(self.blocks(self.before(x)))
            pooled = x[:, :, 0, 0] if self.pools_token else x[:, :, 0, self.prefix.shape[3] :].mean(2)
            return self.head(self.pooled_norm(pooled))

    return AneViT().eval()


def _convolution(weight: Any, bias: Any, scale: Any = 1.0) -> Any:
    """A linear layer (out, in) as a 1x1 convolution, its outputs multiplied by ``scale``: a number, or one for each."""
    import torch

    factor = torch.as_tensor(scale, dtype=torch.float64)
    layer = torch.nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    layer.weight.data = (weight.detach().double() * factor.view(-1, 1)).float()[:, :, None, None]
    if bias is not None:
        layer.bias.data = (bias.detach().double() * factor).float()
    return layer


def _gamma(scale: Any) -> Any:
    return scale.gamma.detach() if _kind(scale) == "LayerScale" else 1.0


def _channels_first(tokens: Any) -> Any:
    """(1, S, C) -> (1, C, 1, S)."""
    return tokens.detach().transpose(1, 2).unsqueeze(2).contiguous()


def _prefix(vit: Any) -> Any:
    """Class and register tokens, in timm's order; (1, C, 1, how many)."""
    import torch

    tokens = [token for token in (vit.cls_token, getattr(vit, "reg_token", None)) if token is not None]
    if not tokens:
        return torch.zeros(1, vit.embed_dim, 1, 0)
    return _channels_first(torch.cat([token.detach() for token in tokens], dim=1))
