"""`run --perturb`: how much of a difference between two accuracies is rounding."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import bench
from bench.cli import main
from bench.clip.backbone import load_backbone
from bench.config import RunConfig
from bench.errors import UserError
from bench.methods import Method, TaskData
from bench.methods.coop import CoOp
from bench.perturb import noisy, perturbed, spread
from bench.plan import prepare

pytestmark = pytest.mark.usefixtures("one_thread")


def ones_task(*, width: int = 16) -> TaskData:
    """Features that are all 1, so that what is left after taking 1 off is the noise."""
    ones, labels = torch.ones(2, 300, width), torch.zeros(300, dtype=torch.long)
    return TaskData("t", "t", ("a", "b"), "{}", ones, labels, test_view=ones[0], val=ones[0])


class Sees(Method):
    """Keeps what it is given."""

    name = "sees"

    def fit(self, clip: Any, tasks: Any, seed: int, report: Any) -> None:
        self.task = tasks[0]

    def predict(self, task: TaskData, features: Tensor, class_names: Any = None) -> Tensor:
        return features


def test_noise_has_the_size_said_and_leaves_zeros() -> None:
    rng = torch.Generator().manual_seed(1)
    changed = noisy(torch.full((100_000,), -4.0), 1e-3, rng)
    assert changed.mean().item() == pytest.approx(-4, abs=1e-4)
    assert changed.std().item() == pytest.approx(4e-3, rel=0.02)
    assert noisy(torch.zeros(5), 1e-3, rng).tolist() == [0.0] * 5
    last_bits = noisy(torch.ones(100_000), 1e-7, rng) - 1
    assert 0 < last_bits.abs().max().item() < 1e-6 and 0.9e-7 < last_bits.std().item() < 1.2e-7


def test_every_image_feature_is_perturbed_each_by_noise_of_its_own() -> None:
    method = perturbed(Sees, 1e-3, 1)()
    method.fit(None, [ones_task()], 7, None)  # type: ignore[arg-type]
    seen = [method.task.views[0], method.task.views[1], method.task.test_view, method.task.val]
    seen.append(method.predict(method.task, torch.ones(300, 16)))
    for k, values in enumerate(seen):
        assert values.std().item() == pytest.approx(1e-3, rel=0.05)
        assert all(not torch.equal(values, other) for other in seen[:k])


@pytest.mark.parametrize(("number", "seed", "same"), [(1, 7, True), (2, 7, False), (1, 8, False)])
def test_noise_follows_from_the_seed_and_the_number(number: int, seed: int, same: bool) -> None:
    first, other = perturbed(Sees, 1e-3, 1)(), perturbed(Sees, 1e-3, number)()
    first.fit(None, [ones_task()], 7, None)  # type: ignore[arg-type]
    other.fit(None, [ones_task()], seed, None)  # type: ignore[arg-type]
    assert torch.equal(first.task.views, other.task.views) is same


def test_start_values_of_prompts_are_perturbed(tiny: Any) -> None:
    """At a rate of 0 what is learned is what it starts from."""
    params = CoOp.Params(epochs=1, lr=0.0, warmup_lr=0.0, context=64)
    clip = load_backbone(tiny.backbone)
    as_it_is, changed = CoOp(params), perturbed(CoOp, 1e-3, 1)(params)
    for method in (as_it_is, changed):
        method.fit(clip, [ones_task()], 7, lambda done, total: None)
    before, after = as_it_is.learned["context-0"], changed.learned["context-0"]
    assert before.shape == (1, 64, 32)
    assert (after / before - 1).std().item() == pytest.approx(1e-3, rel=0.05)


def test_perturbed_by_zero_nothing_differs_and_nothing_is_written(tiny: Any, tmp_path: Path) -> None:
    measured = bench.rounding(2, size=0.0, quiet=True, results=tmp_path / "perturbed", **tiny.arguments)
    assert not (tmp_path / "perturbed").exists()
    assert measured[["method", "shots"]].values.tolist() == [["zero-shot", 0], ["coop", 1], ["coop", 2]]
    assert measured["range"].tolist() == [0.0] * 3
    assert measured["sd"].tolist() == pytest.approx([0.0] * 3, abs=1e-12)  # the mean of equal numbers is rounded
    recorded = tiny.run(tmp_path / "runs").groupby(["method", "shots"], sort=False)["accuracy"].mean()
    pd.testing.assert_series_equal(measured.set_index(["method", "shots"])["accuracy"], recorded)


def test_large_noise_moves_the_scores_of_training_and_of_zero_shot(tiny: Any, tmp_path: Path) -> None:
    run = prepare(RunConfig(quiet=True, results=tmp_path / "runs", **tiny.arguments))
    assert (spread(run, 2, size=10.0)["range"] > 0).all()


def test_sd_and_range_are_of_the_mean_over_seeds(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 1 scores 10, 12, 14 and seed 2 20, 20, 26: means 15, 16, 20; sd √7, range 5."""
    scores = iter([10.0, 12.0, 14.0, 20.0, 20.0, 26.0])
    monkeypatch.setattr("bench.perturb.evaluate", lambda *_: [SimpleNamespace(score=next(scores))])
    run = prepare(RunConfig(quiet=True, results=tmp_path, **{**tiny.arguments, "methods": ["coop"], "shots": [2]}))
    (row,) = spread(run, 2).to_dict("records")
    assert row == {
        "method": "coop", "variant": "", "shots": 2, "accuracy": 15.0, "sd": pytest.approx(7**0.5), "range": 5.0
    }  # fmt: skip


def test_a_cell_that_fails_ends_it_with_its_reason(tiny: Any, tmp_path: Path) -> None:
    arguments = {**tiny.arguments, "methods": ["coop"], "options": ["coop.lr=1e30"]}
    run = prepare(RunConfig(quiet=True, results=tmp_path, **arguments))
    with pytest.raises(UserError, match=r"--perturb: coop, 1 shot, seed 1: .*diverge"):
        spread(run, 1)


def test_the_command_prints_a_row_a_method_and_shots_and_records_nothing(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tiny.command(tmp_path / "runs", "--perturb", "1")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["method", "variant", "shots", "accuracy", "sd", "range"]
    assert [line.split()[0] for line in lines[2:5]] == ["zero-shot", "coop", "coop"]
    assert "Nothing was recorded." in lines[-1] and "over 2 trainings" in lines[-2]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--perturb", "0"], "--perturb 0: at least 1"),
        (["--perturb", "2", "--profile"], "--perturb 2: does not go with --profile"),
        (["--perturb", "2", "--seeds-at-once"], "--perturb 2: does not go with --seeds-at-once"),
        (["--perturb", "2", "--jobs", "2"], "--perturb 2: does not go with --jobs, because it trains cell by cell"),
    ],
)
def test_what_does_not_fit_is_refused(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(tiny.command(tmp_path, *arguments)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["rounding", "stability"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("profile", True), ("seeds_at_once", True), ("track", "tensorboard"), ("jobs", 2), ("backend", "dask")],
)
def test_what_trains_cell_by_cell_says_what_it_does_not_do(
    tiny: Any, tmp_path: Path, asked: str, name: str, value: Any
) -> None:
    option = f"--{name.replace('_', '-')}"
    with pytest.raises(UserError, match=f"^{asked}: does not go with {option}, because it trains cell by cell"):
        getattr(bench, asked)(1, **{**tiny.arguments, "results": tmp_path, name: value})
