"""Local image features: what an image encoder says of each place, in the joint embedding.

PLOT matches prompts to these. An attention-pooled ResNet gives its pooling's output at every position of the
map; a vision transformer its patch tokens through the final norm and projection; a timm network what its head
makes of each position alone (with average pooling and a linear head their mean is the pooled feature).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor

from bench.errors import UserError


def encode_local(model: Any, images: Tensor) -> Tensor:
    """Local features [B, P, d], not normalised, of images [B, 3, h, w]."""
    visual = model.visual
    if isinstance(visual, ModifiedResNet):
        pool = visual.attnpool
        return pool.c_proj(attention_states(pool, feature_map(visual, images)))[:, 1:]
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None:
        x = visual.transformer(visual._embeds(images))
        tokens = visual.ln_post(x)[:, 1:]
        return tokens if visual.proj is None else tokens @ visual.proj
    if isinstance(visual, TimmModel) and not _pools_by_attention(visual):
        return _timm_positions(visual, images)
    raise UserError(
        f"the image tower {type(visual).__name__} offers no local features; methods that need them (plot) run on "
        "attention-pooled ResNets, vision transformers and timm networks without attention pooling"
    )


def feature_map(visual: ModifiedResNet, images: Tensor) -> Tensor:
    """What a ResNet's attention pooling reads: [B, c, h, w]."""
    x = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    return x


def attention_states(pool: Any, x: Tensor, rows: slice = slice(None)) -> Tensor:
    """CLIP's attention pooling before its projection: [B, 1 + h·w, c], of the mean (the one that its forward projects)
    and of each position. rows : some of them."""
    x = x.flatten(2).mT  # B, h·w, c
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + pool.positional_embedding.to(x.dtype)
    q, k, v = (
        layer(part).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)  # B, heads, 1 + h·w, e
        for layer, part in ((pool.q_proj, x[:, rows]), (pool.k_proj, x), (pool.v_proj, x))
    )
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _pools_by_attention(visual: TimmModel) -> bool:
    return hasattr(visual.head, "pool") or getattr(visual.trunk, "attn_pool", None) is not None


def _timm_positions(visual: TimmModel, images: Tensor) -> Tensor:
    """The network's own head (pooling, norm, projection) on each position, as if it were all there is."""
    trunk = visual.trunk
    x = trunk.forward_features(images)
    if x.dim() == 3:  # B, prefix + P, c; class token and average pooling both read a row of equal tokens as one
        prefix = getattr(trunk, "num_prefix_tokens", 0)
        places = x[:, prefix:]
        alone = places.flatten(0, 1)[:, None].expand(-1, prefix + 1, -1)
    elif getattr(trunk, "output_fmt", "NCHW") == "NHWC":
        places = x.flatten(1, 2)
        alone = places.flatten(0, 1)[:, None, None]
    else:
        places = x.flatten(2).mT
        alone = places.flatten(0, 1)[:, :, None, None]
    return visual.head(trunk.forward_head(alone)).unflatten(0, places.shape[:2])
