"""A whole cell, from image files to learned parameters: the harness against what public implementations do.

SoftCPT at 4 shots on the embedded demo, the paper's 50 epochs. The plain side opens, crops and encodes the images
of each batch anew, encodes every class of every task at 77 tokens at each step, and takes one step at a time; ours
encodes each view once and keeps it (the cache is empty at the start), and its text tower leaves out what changes
nothing. Both see the same batches of the same views, so that both learn the same parameters, and score the same test
images. The next cell of the same seed finds its features in the cache: `without_features` is what it costs.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms

from bench.config import RunConfig
from bench.draws import few_shot_set
from bench.features import ImageHashes
from bench.methods.base import generator
from bench.methods.softcpt import SoftCPT
from bench.methods.training import learning_rate
from bench.plan import prepare
from bench.runner import execute

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))
import reference
from floor import seconds
from store import store

SHOTS, SEED, EPOCHS, VIEWS = 4, 1, 50, 10
LEAST_RATIO = 4


def plain_cell(run: Any, digests: dict[Path, str]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], float]:
    """Start values, learned parameters and the score on the test images, by the specification."""
    backbone, recipe = run.backbone, run.cells[0].variant.params
    model, tokenizer = backbone.model, backbone.tower.tokenizer
    images = []  # (task, file, label), task by task
    for t, task in enumerate(run.tasks):
        train, _ = few_shot_set(task, run.protocol, SHOTS, SEED, None)
        images += [(t, task.split.root / item.path, item.label) for part in train for item in part]
    view = transforms.Compose([
        transforms.RandomResizedCrop(
            backbone.image_size, (0.08, 1), interpolation=transforms.InterpolationMode.BICUBIC
        ),
        transforms.RandomHorizontalFlip(),
        *backbone.preprocess.transforms[-2:],
    ])  # fmt: skip
    start = SoftCPT(recipe)
    start.clip = backbone
    begun = start.initialise([], generator(SEED, "all tasks", "start"))
    values = {name: value.clone().requires_grad_(True) for name, value in begun.items()}

    def text_features(task: Any) -> torch.Tensor:
        f = reference.encode(model, tokenizer, values["task_context"], [task.task_name])[0]
        context = (f @ values["projection"]).reshape(1, recipe.context, -1)
        each = context.expand(len(task.class_names), -1, -1)
        return F.normalize(reference.encode(model, tokenizer, each, list(task.class_names)), dim=-1)

    optimiser = torch.optim.SGD(values.values(), lr=1, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    order = generator(SEED, "all tasks", "batches")
    for epoch in range(EPOCHS):
        shuffled = torch.randperm(len(images), generator=order)
        for step in range(len(images) // recipe.batch):
            batch = [images[i] for i in shuffled[step * recipe.batch : (step + 1) * recipe.batch]]
            pixels = []
            for _, file, _ in batch:
                name = f"{digests[file]}/{SEED}/{epoch % VIEWS}"
                number = hashlib.blake2b(name.encode(), digest_size=8).digest()
                torch.manual_seed(int.from_bytes(number, "big") % 2**63)
                pixels.append(view(Image.open(file).convert("RGB")))
            with torch.no_grad():
                features = F.normalize(model.encode_image(torch.stack(pixels)), dim=-1)
            text = [text_features(task) for task in run.tasks]
            losses = [
                F.cross_entropy(backbone.scale * text[t] @ image, torch.tensor(label))
                for image, (t, _, label) in zip(features, batch, strict=True)
            ]
            optimiser.zero_grad()
            torch.stack(losses).mean().backward()
            optimiser.param_groups[0]["lr"] = learning_rate(recipe, epoch + 1)
            optimiser.step()
    accuracies = []
    with torch.no_grad():
        for task in run.tasks:
            text, right = text_features(task), 0
            for part in batched(task.split.test, 100):
                pixels = [backbone.preprocess(Image.open(task.split.root / i.path).convert("RGB")) for i in part]
                found = (model.encode_image(torch.stack(pixels)) @ text.T).argmax(dim=1)
                right += int((found == torch.tensor([i.label for i in part])).sum())
            accuracies.append(100 * right / len(task.split.test))
    return begun, {name: value.detach() for name, value in values.items()}, sum(accuracies) / len(accuracies)


def batched(items: Any, size: int) -> Any:
    return (items[i : i + size] for i in range(0, len(items), size))


@pytest.mark.usefixtures("one_thread")
def test_a_cell_from_files_to_parameters(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if benchmark.disabled:
        pytest.skip("timed by make benchmark only")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    config = RunConfig(
        methods=["softcpt"], shots=[SHOTS], seeds=[SEED], views=VIEWS, results=tmp_path / "runs", quiet=True,
        options=[f"all.epochs={EPOCHS}", "all.lr=0.002"],  # the demo's own rate would enlarge the rounding of sums
    )  # fmt: skip
    run = prepare(config)
    files = [task.split.root / item.path for task in run.tasks for item in task.split.train]
    digests = dict(zip(files, ImageHashes(tmp_path / "hashes").of(files), strict=True))
    found: list[Any] = []
    plain = seconds(lambda: found.extend(plain_cell(run, digests)))
    begun, expected, score = found
    ours = seconds(lambda: benchmark.pedantic(execute, (run,), rounds=1))
    (record,) = run.records()
    learned = load_file(run.store.path(run.cells[0].name, run.cells[0].key).with_suffix(".safetensors"))
    apart = max(
        ((learned[name] - value).norm() / (value - begun[name]).norm()).item() for name, value in expected.items()
    )
    figures = {
        "what": f"SoftCPT, demo, {SHOTS} shots, {EPOCHS} epochs, {VIEWS} views",
        "plain_seconds": plain,
        "seconds": ours,
        "ratio": plain / ours,
        "of_which_features": record.feature_seconds,
        "of_which_training": record.train_seconds,
        "without_features": ours - record.feature_seconds,
        "largest_distance_of_parameters_over_the_way_they_went": apart,
    }
    benchmark.extra_info.update(figures)
    print("\n" + ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else str(v) for k, v in figures.items()))
    store("cell", figures)
    assert apart < 1e-3
    assert abs(record.score - score) < 0.2
    assert plain / ours >= LEAST_RATIO
