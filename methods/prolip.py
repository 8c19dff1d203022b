"""ProLIP: the projection of image features into the joint embedding, held near CLIP's own.

Fahes et al., "CLIP's Visual Embedding Projector is a Few-shot Cornucopia", arXiv 2410.05270; code astra-vision/ProLIP,
`methods/ProLIP.py`. Of what stands before the image tower's projection, x [c], the score is τ · cos(x·W + b, text);
the loss adds λ · ‖W − W₀‖² (sum of squares) with λ = 1/shots. W [c, d] starts at CLIP's own W₀, a ResNet's b is frozen.
Recipe and search are those of `rla`. Learned: T · c · d numbers.

The authors store 300 views of each image, one for each step; here it is 50 unless `--views` says otherwise: with RN50 a
view of an image is 8 KB before the projection.
"""

from __future__ import annotations

from torch import Tensor

from bench.methods.rla import RLA


class ProLIP(RLA):
    """score = τ · cos(x · W + b, text), W held near CLIP's own projection."""

    name = "prolip"
    order = 29
    image = "preproj"

    def start(self) -> tuple[Tensor, Tensor]:
        projection = self.clip.projection
        return projection.weight, projection.bias

    def prepared(self, images: Tensor) -> Tensor:
        return images  # a bias is added to what they become: their length matters
