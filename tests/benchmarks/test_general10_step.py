"""A SoftCPT step at General-10's composition with RN50's text tower: ours, the plain way, and what arithmetic allows.

1191 classes of ten tasks, 32 images over all of them, forward and backward to u and P, float32. The plain side is what
public implementations do: 77 tokens for every class at each step. At this size its activations do not fit into memory,
so it runs on a part of the classes of each task and is multiplied up; its cost is proportional to them. The floor is
the time of the matrix products alone, of the tokens that are needed: one prefix per task, and each name's own tokens,
those once that names of a task begin with alike. What they would be without that last saving is written down beside it.
Both sides, and the floor, allocate as the harness lets a cell allocate (bench/system.py).
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F

from bench.clip.text import TextTower
from bench.methods.softcpt import SoftCPT
from bench.methods.training import Batch
from bench.records import PeakMemory
from bench.system import kept_heap

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))
import reference
import sizes
from floor import own_tokens, seconds, text_floor
from store import store

EMBED, PLAIN_SHARE = 1024, 20  # the plain side runs on every 20th class
LEAST_RATIO, MOST_OVER_FLOOR, MOST_GB = 15, 1.3, 6
ROUNDS = 3


@pytest.fixture(scope="module")
def step() -> tuple[SoftCPT, Batch, Any]:
    model = reference.random_clip(EMBED, open_clip.get_model_config("RN50")["text_cfg"])
    tower = TextTower(model, reference.clip_tokenizer())
    clip: Any = SimpleNamespace(tower=tower, scale=50.0, embed_dim=EMBED, device=torch.device("cpu"))
    classes = sizes.general10()
    assert sum(classes) == 1191
    method = SoftCPT()
    method.setup(clip, sizes.tasks(classes, EMBED, 1), seed=1)
    rng = torch.Generator().manual_seed(0)
    owner = torch.arange(32) % len(classes)
    labels = torch.tensor([int(torch.randint(classes[t], (), generator=rng)) for t in owner])
    features = F.normalize(torch.randn(32, EMBED, generator=rng), dim=-1)
    return method, Batch.of(features, labels, owner), model


def plain_step(method: SoftCPT, model: Any, share: int) -> int:
    """Forward and backward over every share-th class at 77 tokens; returns how many classes those are."""
    tokenizer = method.clip.tower.tokenizer
    u, p = (method.learned[name].detach().clone().requires_grad_(True) for name in ("task_context", "projection"))
    task_names = [task.task_name for task in method.tasks]
    f = reference.encode(model, tokenizer, u.expand(len(task_names), -1, -1), task_names)
    contexts = (f @ p).view(len(task_names), 16, -1)
    chosen = [list(task.class_names[::share]) for task in method.tasks]
    each = torch.cat([c.expand(len(own), -1, -1) for c, own in zip(contexts.split(1), chosen, strict=True)])
    names = [name for own in chosen for name in own]
    reference.encode(model, tokenizer, each, names).square().sum().backward()
    return len(names)


def own_step(method: SoftCPT, batch: Batch) -> None:
    for value in method.learned.values():
        value.grad = None
    method.gradients([(method, batch)])


def needed_tokens(method: SoftCPT) -> tuple[int, int, int]:
    """Tokens of a step: prefixes, names and task names; how many they are where names share nothing; and rows of which
    the last block's MLP is needed."""
    tower, tasks = method.clip.tower, method.tasks
    behind_each = [own_tokens(tower, task.class_names) for task in tasks]
    behind_each.append(own_tokens(tower, [task.task_name for task in tasks]))
    unshared, shared = (sum(n) for n in zip(*behind_each, strict=True))
    prefixes = len(tasks) * 17 + 1 + 4
    return prefixes + shared, prefixes + unshared, sum(len(task.class_names) for task in tasks) + len(tasks)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_general10_step(benchmark: Any, step: tuple[SoftCPT, Batch, Any], threads: int) -> None:
    if benchmark.disabled:
        pytest.skip("timed by make benchmark only")
    method, batch, model = step
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        memory = PeakMemory(torch.device("cpu"))
        with kept_heap():
            own_step(method, batch)  # plans and warms up
            used = memory.megabytes() / 1000
            ours, theirs, floors, unshared = [], [], [], []
            n_tokens, n_unshared, n_rows = needed_tokens(method)
            for _ in range(ROUNDS):
                theirs.append(seconds(lambda: plain_step(method, model, PLAIN_SHARE)))
                ours.append(seconds(lambda: own_step(method, batch)))
                floors.append(text_floor(n_tokens, n_rows, 512, 12))
                unshared.append(text_floor(n_unshared, n_rows, 512, 12))
            benchmark.pedantic(own_step, (method, batch), rounds=1)
        n_plain = sum(len(task.class_names[::PLAIN_SHARE]) for task in method.tasks)
    finally:
        torch.set_num_threads(before)
    n_tasks = len(method.tasks)  # their names are sentences, too, and are encoded whole
    plain = statistics.median(theirs) * (1191 + n_tasks) / (n_plain + n_tasks)
    own, least = statistics.median(ours), statistics.median(floors)
    figures = {
        "threads": threads,
        "plain_seconds": plain,
        "plain_measured_on": f"{n_plain} of 1191 classes",
        "seconds": own,
        "ratio": plain / own,
        "floor_seconds": least,
        "over_floor": own / least,
        "tokens": n_tokens,
        "unshared_tokens": n_unshared,
        "unshared_floor_seconds": statistics.median(unshared),
        "plain_tokens": 77 * (1191 + 10),
        "peak_memory_gb": used,
    }
    benchmark.extra_info.update(figures)
    print(
        f"\n{threads} threads: plain {plain:.1f} s ({n_plain} classes), ours {own:.2f} s, {plain / own:.1f} times; "
        f"floor {least:.2f} s, ours is {own / least:.2f} of it (where names share nothing: "
        f"{figures['unshared_floor_seconds']:.2f} s); peak memory {figures['peak_memory_gb']:.2f} GB"
    )
    store(f"general10-step-{threads}-threads", figures)
    assert plain / own >= LEAST_RATIO
    assert own / least <= MOST_OVER_FLOOR
    assert figures["peak_memory_gb"] < MOST_GB
