"""Local image features: each position in the joint embedding, by the tower's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from bench.clip.patches import encode_local
from bench.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = {"width": 16, "heads": 2, "layers": 1, "vocab_size": 100}


def clip(size: int = 64, seed: int = 0, **vision: Any) -> Any:
    """A CLIP of random weights with this image tower."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(24, {"image_size": size, **vision}, TEXT)  # type: ignore[arg-type]
        with torch.no_grad():
            for name, weight in model.visual.named_parameters():
                if weight.dim() == 1 and "bn" not in name:
                    weight += 0.1 * torch.randn_like(weight)
    return model.eval()


def pictures(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_attention_pooling_is_read_at_every_position() -> None:
    model = clip(layers=[1, 1, 1, 1], width=8, patch_size=None)
    maps: list[Tensor] = []
    model.visual.attnpool.register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0]))
    pooled = model.encode_image(pictures())
    everywhere = pool_plainly(model.visual.attnpool, maps[0])  # 1 + P, B, d
    torch.testing.assert_close(everywhere[0], pooled)  # position 0 is the tower's own output
    local = encode_local(model, pictures())
    assert local.shape == (2, 4, 24)
    torch.testing.assert_close(local, everywhere[1:].transpose(0, 1), rtol=1e-4, atol=1e-5)


def pool_plainly(pool: Any, x: Tensor) -> Tensor:
    """CLIP's attention pooling with all its queries, by torch's own multi-head attention."""
    x = x.flatten(2).permute(2, 0, 1)  # P, B, c
    x = torch.cat([x.mean(dim=0, keepdim=True), x]) + pool.positional_embedding[:, None]
    out, _ = F.multi_head_attention_forward(
        x, x, x, x.shape[-1], pool.num_heads,
        in_proj_weight=None, in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight, out_proj_bias=pool.c_proj.bias, training=False, need_weights=False,
        use_separate_proj_weight=True, q_proj_weight=pool.q_proj.weight, k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )  # fmt: skip
    return out


@torch.no_grad()
def test_patch_tokens_go_through_the_final_norm_and_projection() -> None:
    model = clip(layers=2, width=32, head_width=16, patch_size=16)
    local = encode_local(model, pictures())
    model.visual.output_tokens = True
    _, tokens = model.visual(pictures())  # behind the final norm
    assert local.shape == (2, 16, 24)
    torch.testing.assert_close(local, tokens @ model.visual.proj)


@torch.no_grad()
def test_patch_tokens_are_normed_one_by_one_where_the_tower_norms_after_pooling() -> None:
    model = clip(layers=2, width=32, head_width=16, patch_size=16, pool_type="avg", final_ln_after_pool=True)
    local = encode_local(model, pictures())
    model.visual.output_tokens = True
    _, tokens = model.visual(pictures())  # not normed yet
    torch.testing.assert_close(local, model.visual.ln_post(tokens) @ model.visual.proj)


@torch.no_grad()
def test_local_features_of_an_average_pooled_vision_transformer_have_the_pooled_one_as_their_mean() -> None:
    model = clip(layers=2, width=32, head_width=16, patch_size=16, pool_type="avg")
    torch.testing.assert_close(encode_local(model, pictures()).mean(dim=1), model.encode_image(pictures()))


TIMM = {
    "lite-clip's": {"timm_model_name": "tf_efficientnet_lite0", "timm_pool": "avg", "timm_proj": "linear"},
    "the trunk's own projection": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": None},
    "norm behind the pooling": {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear"},
    "a projection that is not linear": {"timm_model_name": "resnet10t", "timm_pool": "avg", "timm_proj": "mlp"},
}


@torch.no_grad()
@pytest.mark.parametrize("tower", ["lite-clip's", "the trunk's own projection"])
def test_local_features_of_a_linear_head_have_the_pooled_one_as_their_mean(tower: str) -> None:
    model = clip(**TIMM[tower])
    local = encode_local(model, pictures())
    assert local.shape == (2, 4, 24)
    torch.testing.assert_close(local.mean(dim=1), model.encode_image(pictures()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("tower", TIMM)
def test_where_there_is_one_position_its_local_feature_is_the_pooled_one(tower: str) -> None:
    """Norms and projections behind the pooling are part of a local feature."""
    model = clip(**TIMM[tower])
    local = encode_local(model, pictures(32))
    assert local.shape == (2, 1, 24)
    torch.testing.assert_close(local[:, 0], model.encode_image(pictures(32)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_class_tokens_of_a_timm_transformer_are_no_positions() -> None:
    model = clip(size=224, timm_model_name="vit_tiny_patch16_224", timm_pool="avg", timm_proj="linear")
    local = encode_local(model, pictures(224))
    assert local.shape == (2, 196, 24)
    torch.testing.assert_close(local.mean(dim=1), model.encode_image(pictures(224)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "vision",
    [
        {"timm_model_name": "resnet10t", "timm_pool": "abs_attn", "timm_proj": ""},
        {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "attentional_pool": True},
    ],
)
def test_a_tower_without_local_features_is_an_error_that_says_who_has_them(vision: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"offers no local features; methods that need them \(plot\) run on"):
        encode_local(clip(**vision), pictures())
