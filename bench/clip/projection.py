"""Image features before the projection into the joint embedding, and that projection.

An attention-pooled ResNet's is its pooling's output before `c_proj`, a vision transformer's the pooled token behind the
last norm, a timm network's what its linear layer reads. The pooled feature is `Projection.of` it, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from bench.clip.patches import attention_states, feature_map
from bench.errors import UserError


@dataclass(frozen=True)
class Projection:
    """weight : [c, d]. bias : [d], zeros where the tower has none. Both float32."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, model: Any) -> Projection:
        """An image tower's own.

        Raises
        ------
        UserError : the tower does not end in a linear projection.
        """
        visual = model.visual
        if isinstance(visual, VisionTransformer) and visual.proj is not None:
            weight, bias = visual.proj, None
        else:
            layer = visual.attnpool.c_proj if isinstance(visual, ModifiedResNet) else _last_layer(visual)
            weight, bias = layer.weight.T, layer.bias
        weight = weight.detach().float()
        return cls(weight, torch.zeros_like(weight[0]) if bias is None else bias.detach().float())

    def __call__(self, features: Tensor) -> Tensor:
        """Pooled features [..., d] of those before the projection [..., c]."""
        return features @ self.weight + self.bias


def encode_before(model: Any, images: Tensor) -> Tensor:
    """[B, c + d] of images [B, 3, h, w]: features before the projection, and behind each the pooled one, which is the
    tower's own to the last bit."""
    visual = model.visual
    if isinstance(visual, ModifiedResNet):
        x = feature_map(visual, images)
        before = attention_states(visual.attnpool, x, slice(0, 1))[:, 0]
        return torch.cat([before, visual.attnpool(x)], dim=1)
    if isinstance(visual, VisionTransformer) and visual.proj is not None:
        before, _ = visual._pool(visual.transformer(visual._embeds(images)))
        return torch.cat([before, before @ visual.proj], dim=1)
    layer = _last_layer(visual)
    if len(visual.head):
        before = visual.head[:-1](visual.trunk(images))
    else:
        before = visual.trunk.forward_head(visual.trunk.forward_features(images), pre_logits=True)
    return torch.cat([before, layer(before)], dim=1)


def _last_layer(visual: Any) -> nn.Linear:
    """A timm network's projection."""
    if isinstance(visual, TimmModel):
        layer = visual.head[-1] if len(visual.head) else visual.trunk.get_classifier()
        if isinstance(layer, nn.Linear):
            return layer
    raise UserError(
        f"the image tower {type(visual).__name__} ends in no linear projection; methods that learn it (prolip) run on "
        "attention-pooled ResNets, vision transformers and timm networks with a linear head"
    )
