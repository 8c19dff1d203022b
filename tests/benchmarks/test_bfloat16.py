"""A text step with bfloat16 towers against float32 ones: RN50's text tower, lite-clip's, and the demo's.

Which is faster depends on the processor: with AVX512-BF16 or AMX a large product is, a small one is not. What is
asserted is that the two say the same up to bfloat16's eight bits; what it does to accuracy stands in results/README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from bench.clip.text import Prompts, TextTower
from bench.system import kept_heap

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))
import reference
import sizes
from floor import seconds
from store import store

TOWERS: dict[str, tuple[int, dict[str, Any], int]] = {  # width of the joint embedding, text tower, classes of a step
    "RN50": (1024, open_clip.get_model_config("RN50")["text_cfg"], 100),
    "lite-clip's size": (256, {"width": 192, "heads": 3, "layers": 4}, 100),
    "demo-clip's size": (128, {"width": 128, "heads": 4, "layers": 3}, 30),
}
ROUNDS, LENGTH = 5, 16
MOST_APART = 0.1


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.usefixtures("one_thread")
def test_a_bfloat16_step(benchmark: Any, name: str) -> None:
    if benchmark.disabled:
        pytest.skip("timed by make benchmark only")
    embed, config, n_classes = TOWERS[name]
    names = sizes.names(n_classes)
    steps, gradients, times = {}, {}, {}
    for dtype in (torch.float32, torch.bfloat16):
        tower = TextTower(reference.random_clip(embed, config).to(dtype), reference.clip_tokenizer())
        rng = torch.Generator().manual_seed(0)
        context = (0.02 * torch.randn(1, LENGTH, tower.width, generator=rng)).requires_grad_(True)
        target = torch.randn(n_classes, embed, generator=rng)

        def step(tower: TextTower = tower, context: torch.Tensor = context, target: torch.Tensor = target) -> Any:
            features = tower.encode([Prompts(context, names)])[0][0]
            return torch.autograd.grad((features * target).sum(), context)[0]

        steps[dtype], times[dtype] = step, []
        with kept_heap():
            gradients[dtype] = step()
    with kept_heap():
        for _ in range(ROUNDS):  # in turns
            for dtype, run in steps.items():
                times[dtype].append(seconds(run))
        benchmark.pedantic(steps[torch.bfloat16], rounds=ROUNDS)
    single, half = (min(times[dtype]) for dtype in steps)
    apart = float((gradients[torch.bfloat16] - gradients[torch.float32]).norm() / gradients[torch.float32].norm())
    figures = {
        "tower": name,
        "classes": n_classes,
        "float32_seconds": single,
        "bfloat16_seconds": half,
        "ratio": single / half,
        "relative_distance_of_gradients": apart,
    }
    benchmark.extra_info.update(figures)
    print(
        f"\n{name}, {n_classes} classes: float32 {single:.4f} s, bfloat16 {half:.4f} s, {single / half:.2f} times as "
        f"fast; gradients {apart:.3f} apart"
    )
    store(f"bfloat16-{name.split(chr(39))[0].lower()}", figures)
    assert 0 < apart < MOST_APART
