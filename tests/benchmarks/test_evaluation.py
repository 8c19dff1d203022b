"""A million test images against a thousand classes: features from a memory-mapped file, the harness's own scoring.

The plain side is a test loop as public implementations write it, batches of 100 images, with one favour: the text
features are computed once (theirs encode all prompts again for every batch). Both sides count the same hits.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from bench.clip.text import TextTower
from bench.methods import TaskData
from bench.methods.coop import CoOp
from bench.protocols import Part
from bench.scoring import scored

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))
import reference
import sizes
from store import store

IMAGES, CLASSES, EMBED = 1_000_000, 1000, 512
MOST_SECONDS = 60


def test_a_million_images_are_scored_in_seconds(benchmark: Any, tmp_path: Path) -> None:
    if benchmark.disabled:
        pytest.skip("timed by make benchmark only")
    rng = torch.Generator().manual_seed(0)
    model = reference.random_clip(EMBED, {"width": 64, "heads": 2, "layers": 2})
    tower = TextTower(model, reference.clip_tokenizer())
    clip: Any = SimpleNamespace(tower=tower, scale=50.0, embed_dim=EMBED, device=torch.device("cpu"))
    method = CoOp()
    task = TaskData("task", "", sizes.names(CLASSES), "{}", *torch.zeros(2, 0))
    method.setup(clip, [task], seed=1)
    labels = torch.randint(CLASSES, (IMAGES,), generator=rng)
    save_file({"features": torch.randn(IMAGES, EMBED, generator=rng)}, str(tmp_path / "features.safetensors"))
    with safe_open(str(tmp_path / "features.safetensors"), framework="pt") as file:
        features = file.get_tensor("features")
    part = Part("all", torch.arange(IMAGES), labels, CLASSES)

    def ours() -> int:
        found = scored(method, task, features.split(2048), part, clip.device)
        return int((found.predicted == labels).sum())

    def plain() -> int:
        hits = 0
        with torch.no_grad():
            (text,) = method.text_features([0], [method.tasks[0].class_names])
            for start in range(0, IMAGES, 100):
                images = features[start : start + 100]
                images = images / images.norm(dim=-1, keepdim=True)
                logits = clip.scale * images @ text.t()
                hits += (logits.max(1)[1] == labels[start : start + 100]).sum().item()
        return int(hits)

    start = time.perf_counter()
    expected = plain()
    middle = time.perf_counter()
    assert ours() == expected
    end = time.perf_counter()
    few = Part("few", part.rows[:8192], labels[:8192], CLASSES)
    benchmark.pedantic(scored, (method, task, features.split(2048), few, clip.device), rounds=3)
    a, b = torch.randn(8192, EMBED), F.normalize(torch.randn(CLASSES, EMBED), dim=-1)
    product = min(_seconds(lambda: a @ b.T) for _ in range(5)) * IMAGES / 8192
    figures = {
        "plain_seconds": middle - start,
        "seconds": end - middle,
        "ratio": (middle - start) / (end - middle),
        "matrix_product_seconds": product,
    }
    benchmark.extra_info.update(figures)
    print("\n" + ", ".join(f"{name} {value:.2f}" for name, value in figures.items()))
    store("evaluation", figures)
    assert end - middle < MOST_SECONDS


def _seconds(what: Any) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start
