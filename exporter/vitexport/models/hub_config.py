"""A timm architecture in the words of a transformers ``config.json``: so Optimum and transformers.js load our ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vitexport.contract import Size


def hub_config(module: Any, config: Any, size: Size, labels: tuple[str, ...]) -> dict[str, Any]:
    """Plain data. ViT, DeiT, DINOv2 and Swin by their own ``model_type``, all else as ``timm_wrapper``."""
    architecture = config.architecture or type(module).__name__
    return {
        **_describe(module)(module, architecture),
        "image_size": size.height if size.height == size.width else [size.height, size.width],
        "num_channels": 3,
        **_labels(labels),
        "torch_dtype": "float32",
    }


def _describe(module: Any) -> Callable[[Any, str], dict[str, Any]]:
    kind = type(module).__name__
    if kind == "VisionTransformer" and _is_plain(module):
        return _vision_transformer
    return _swin if kind == "SwinTransformer" else _timm_wrapper


def _is_plain(vit: Any) -> bool:
    """The ViT of Dosovitskiy et al. 2020: a class token and nothing else before the patches, no norm before the blocks,
    ordinary blocks. timm's class covers many relatives that transformers' ViT is not."""
    return (
        vit.cls_token is not None
        and vit.num_prefix_tokens == 1
        and type(vit.norm_pre).__name__ == "Identity"
        and type(vit.blocks[0]).__name__ == "Block"
        and type(vit.blocks[0].mlp).__name__ == "Mlp"
    )


def _vision_transformer(module: Any, architecture: str) -> dict[str, Any]:
    block = module.blocks[0]
    dinov2 = "dinov2" in architecture
    kind = "dinov2" if dinov2 else "deit" if architecture.startswith("deit_") else "vit"
    described = {
        "model_type": kind,
        "architectures": [_architecture({"dinov2": "Dinov2", "deit": "DeiT", "vit": "ViT"}[kind], module)],
        "patch_size": module.patch_embed.patch_size[0],
        "hidden_size": module.embed_dim,
        "num_hidden_layers": len(module.blocks),
        "num_attention_heads": block.attn.num_heads,
        "hidden_act": "gelu",
        "layer_norm_eps": block.norm1.eps,
        "qkv_bias": block.attn.qkv.bias is not None,
    }
    if dinov2:
        return {**described, "mlp_ratio": block.mlp.fc1.out_features // module.embed_dim}
    return {**described, "intermediate_size": block.mlp.fc1.out_features}


def _swin(module: Any, architecture: str) -> dict[str, Any]:
    first = module.layers[0].blocks[0]
    return {
        "model_type": "swin",
        "architectures": [_architecture("Swin", module)],
        "patch_size": module.patch_embed.patch_size[0],
        "embed_dim": module.embed_dim if isinstance(module.embed_dim, int) else module.embed_dim[0],
        "depths": [len(layer.blocks) for layer in module.layers],
        "num_heads": [layer.blocks[0].attn.num_heads for layer in module.layers],
        "window_size": first.window_size[0],
        "mlp_ratio": first.mlp.fc1.out_features / first.dim,
        "hidden_size": module.num_features,
        "hidden_act": "gelu",
        "layer_norm_eps": first.norm1.eps,
    }


def _timm_wrapper(module: Any, architecture: str) -> dict[str, Any]:
    return {
        "model_type": "timm_wrapper",
        "architectures": [_architecture("TimmWrapper", module)],
        "architecture": architecture,
        "num_classes": module.num_classes,
        "num_features": module.num_features,
    }


def _architecture(prefix: str, module: Any) -> str:
    return f"{prefix}ForImageClassification" if module.num_classes else f"{prefix}Model"


def _labels(labels: tuple[str, ...]) -> dict[str, Any]:
    """``label2id`` keeps the first of two classes that share a name (ImageNet has two cranes)."""
    if not labels:
        return {}
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in reversed(list(enumerate(labels)))},
    }
