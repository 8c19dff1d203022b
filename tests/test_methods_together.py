"""Trainings side by side: seeds learn what they learn alone; and no step waits for the device.

Tensors of torch's device "meta" have shapes but no values. Whatever would make the host wait for a GPU (reading a
number, a mask as an index, copying to the CPU) is an error there, so that a machine without a GPU can tell.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.clip.text import TextTower
from bench.errors import UserError
from bench.methods import TaskData, find_method, method_names
from bench.methods.coop import CoOp
from bench.methods.prompt import PromptMethod

sys.path.append(str(Path(__file__).parent))
import reference

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINED = [name for name in method_names() if issubclass(find_method(name), PromptMethod)]
NAMES = (("cat", "golden retriever", "crocodile head"), ("oak tree", "fern"))
EMBED, PLACES = 24, 5
RECIPE = {"epochs": 3, "batch": 4, "lr": 0.004, "warmup_lr": 0.001}


def make_clip(device: str = "cpu") -> Any:
    model = reference.random_clip(EMBED, {"width": 32, "heads": 2, "layers": 2})
    tower = TextTower(model, reference.clip_tokenizer())  # looks at the mask's values: before they are gone
    model.to(device)
    return SimpleNamespace(tower=tower, scale=50.0, embed_dim=EMBED, device=torch.device(device))


def make_tasks(method: Any, seed: int) -> list[TaskData]:
    rng = torch.Generator().manual_seed(seed)
    made = []
    for t, names in enumerate(NAMES):
        labels = torch.arange(len(names)).repeat(4)
        shape = (2, len(labels), *((PLACES,) if method.image == "local" else ()), EMBED)
        views, named = torch.randn(shape, generator=rng), (f"task {t}", f"recognition {t}", names, "a {}.")
        made.append(TaskData(*named, views, labels, path=("things",)))
    return made


def made_of(name: str, **params: Any) -> Any:
    found = find_method(name)
    return found(found.Params(**{**RECIPE, **params}))


@pytest.mark.parametrize("name", TRAINED)
def test_seeds_side_by_side_learn_what_they_learn_alone(name: str) -> None:
    clip, seeds = make_clip(), [1, 2, 7]
    data = [make_tasks(find_method(name), seed) for seed in seeds]
    alone = []
    for own, seed in zip(data, seeds, strict=True):
        method = made_of(name)
        method.fit(clip, own, seed, lambda done, total: None)
        alone.append(method.learned)
    steps: list[tuple[int, int]] = []
    together = [made_of(name) for _ in seeds]
    fits = list(zip(together, data, seeds, strict=True))
    find_method(name).fit_together(fits, clip, lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    separate = together[0].separate
    each_epoch = 8 if name == "mvlpt" else 3 if separate else 5  # of one training: they take their steps at once
    assert len(steps) == RECIPE["epochs"] * each_epoch
    for method, expected in zip(together, alone, strict=True):
        for parameter, value in method.learned.items():
            assert (value - expected[parameter]).norm() < 1e-4 * expected[parameter].norm()
    first, second = (m.learned for m in together[:2])
    assert not any(torch.equal(first[parameter], second[parameter]) for parameter in first)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *((name, {}) for name in TRAINED if name != "shared-coop-matched"),  # it reads one number before its first step
        *((name, {"joint": True}) for name in ("coop", "coop-cs", "prograd", "kgcoop")),
        *((name, {"absent": 0.5}) for name in ("softcpt-cata", "softcpt-csts")),
        ("softcpt", {"position": "middle"}),
    ],
)
def test_no_step_waits_for_the_device(name: str, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    copies = without_values(monkeypatch)
    if "words" in find_method(name).Params.__dataclass_fields__:
        params = {**params, "words": ""}  # their embeddings are read once, at the start
    methods = [made_of(name, **params) for _ in range(2)]
    fits = [(method, make_tasks(method, seed), seed) for seed, method in enumerate(methods, start=1)]
    steps: list[int] = []
    type(methods[0]).fit_together(fits, make_clip("meta"), lambda done, total: steps.append(done))
    assert steps and all(value.device.type == "meta" for value in methods[0].learned.values())
    trainings = sum(len(method.logs) for method in methods)
    assert len(copies) == trainings * RECIPE["epochs"]  # what is copied to the host: twice as many numbers


def without_values(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let an epoch's two numbers stay where they are; returns them all."""
    copies: list[Any] = []

    def copied(values: torch.Tensor) -> Any:
        assert values.shape == (2,)
        copies.append(values)
        return SimpleNamespace(there=False)

    monkeypatch.setattr("bench.methods.log.Copy", copied)
    monkeypatch.setattr("bench.methods.log.Log.close", lambda self: None)
    return copies


def test_a_step_that_would_wait_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    without_values(monkeypatch)

    class Waiting(CoOp):
        def loss(self, batch: Any, text: Any) -> Any:
            loss = super().loss(batch, text)
            return loss * 2 if loss.item() > 1 else loss

    with pytest.raises(RuntimeError, match="meta"):
        Waiting(CoOp.Params(**RECIPE)).fit(make_clip("meta"), make_tasks(CoOp, 1), 1, lambda done, total: None)


def test_a_subclass_with_a_fit_of_its_own_keeps_it() -> None:
    fitted: list[int] = []

    class Own(CoOp):
        def fit(self, clip: Any, tasks: Any, seed: int, report: Any) -> None:
            fitted.append(seed)

    fits = [(Own(), make_tasks(CoOp, 1), seed) for seed in (1, 2)]
    Own.fit_together(fits, make_clip(), lambda done, total: None)
    assert fitted == [1, 2]


@pytest.mark.parametrize("name", [name for name in TRAINED if name.startswith("softcpt") and name != "softcpt-star"])
def test_softcpt_takes_no_words_to_start_from(name: str) -> None:
    with pytest.raises(UserError, match="makes its context from the task's name"):
        made_of(name, words="a photo of a")
