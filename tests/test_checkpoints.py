"""A stopped training goes on where it was, to the last bit; a checkpoint that is of no use is told and ignored."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import bench
from bench.checkpoints import Checkpoint
from bench.methods.coop import CoOp
from bench.methods.mvlpt import MVLPT
from bench.methods.training import Progress

pytestmark = pytest.mark.usefixtures("one_thread")

STATE = {"epoch": 3, "losses": [2.0, 0.1], "none": None, "yes": True, 7: "a number's text",
         "weights": torch.arange(6.0).view(2, 3), "both": [{"a": torch.tensor(True)}, torch.zeros(0)]}  # fmt: skip


class Killed(BaseException):
    """Stands for a kill: nothing that the bench does on errors or Ctrl-C happens."""


@pytest.fixture
def die_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`die_at(n)`: a checkpoint after every step, and the end of everything after the n-th; 0: never."""
    step = Progress.__call__
    monkeypatch.setattr(Checkpoint, "due", property(lambda self: self._path is not None))

    def start(n: int) -> None:
        def counted(self: Progress) -> None:
            if n and self.done == n:
                raise Killed
            step(self)

        monkeypatch.setattr(Progress, "__call__", counted)

    return start


def learned(runs: Path) -> dict[str, dict[str, Any]]:
    """All that the cells of a run learned, to the last bit."""
    return {
        str(file.relative_to(runs)): {name: value.tolist() for name, value in load_file(file).items()}
        for file in sorted(runs.rglob("*.safetensors"))
    }


# ---- trainings -------------------------------------------------------------------------------------------------

# With 2 shots and batches of 4, CoOp's tasks of 3 classes take one step an epoch each, and all tasks together 4.
TRAININGS = {
    "coop": [1, 3, 5],  # alone, side by side
    "shared-coop": [1, 4, 7, 19],  # in an epoch's midst, and at its end
    "softcpt-cata": [5, 12],  # with a random share of the absent classes
    "cocoop": [2, 5],
    "shared-cocoop": [6],
    "prograd": [4],
}
OPTIONS = ["all.epochs=6", "all.batch=4", "softcpt-cata.absent=0.5", "cocoop.words=", "shared-cocoop.words="]


@pytest.mark.parametrize(("method", "steps"), TRAININGS.items())
def test_stopped_after_any_step_a_training_ends_as_if_it_had_not_been(
    method: str, steps: list[int], tiny: Any, tmp_path: Path, die_at: Callable[[int], None]
) -> None:
    own = [option for option in OPTIONS if option.startswith(("all", method))]
    grid = {"methods": [method], "shots": [2], "seeds": [1], "options": own}
    tiny.run(tmp_path / "whole", **grid)
    whole, parameters = tiny.numbers(tmp_path / "whole"), learned(tmp_path / "whole")
    assert len(whole) == len(parameters) == 1
    runs = tmp_path / "stopped"
    for n in steps:
        die_at(n)
        with pytest.raises(Killed):
            tiny.run(runs, **grid)
        assert len(list(runs.rglob("*.checkpoint"))) == 1 and not list(runs.rglob("*.json"))
    die_at(0)
    tiny.run(runs, **grid)
    assert tiny.numbers(runs) == whole
    assert learned(runs) == parameters
    assert not list(runs.rglob("*.checkpoint"))


@pytest.mark.parametrize("stage", [1, 2])
def test_mvlpt_stopped_in_either_stage_ends_as_if_it_had_not_been(
    stage: int, tiny: Any, tmp_path: Path, die_at: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 1 is trained again, to the same bits; stage 2 goes on."""
    grid = {"methods": ["mvlpt"], "shots": [2], "seeds": [1], "options": OPTIONS[:2]}
    tiny.run(tmp_path / "whole", **grid)
    die_at(0)
    kind, made = (MVLPT.Shared, MVLPT)[stage - 1], [0]
    losses = kind.losses

    def dying(together: Any) -> Any:
        made[0] += 1
        if made[0] == 5:
            raise Killed
        return losses(together)

    monkeypatch.setattr(kind, "losses", dying)
    with pytest.raises(Killed):
        tiny.run(tmp_path / "stopped", **grid)
    assert len(list(tmp_path.rglob("*.checkpoint"))) == stage - 1
    tiny.run(tmp_path / "stopped", **grid)
    assert made[0] == {1: 5 + 6 * 4, 2: 4 + 6 - 4 + 1}[stage]  # of 6 epochs; the fifth step is made twice at most
    assert tiny.numbers(tmp_path / "stopped") == tiny.numbers(tmp_path / "whole")
    assert learned(tmp_path / "stopped") == learned(tmp_path / "whole")


def test_seeds_side_by_side_go_on_together(tiny: Any, tmp_path: Path, die_at: Callable[[int], None]) -> None:
    grid = {"methods": ["coop"], "shots": [2], "options": OPTIONS[:2], "seeds_at_once": True}
    tiny.run(tmp_path / "whole", **grid)
    die_at(4)
    with pytest.raises(Killed):
        tiny.run(tmp_path / "stopped", **grid)
    die_at(0)
    tiny.run(tmp_path / "stopped", **grid)
    assert len(learned(tmp_path / "stopped")) == 2
    assert learned(tmp_path / "stopped") == learned(tmp_path / "whole")
    assert tiny.numbers(tmp_path / "stopped") == tiny.numbers(tmp_path / "whole")


def test_a_training_that_goes_on_makes_the_missing_steps_alone_and_counts_the_seconds_before(
    tiny: Any, tmp_path: Path, die_at: Callable[[int], None], count_calls: Callable[[Any, str], list[Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    grid = {"methods": ["coop"], "shots": [2], "seeds": [1], "options": OPTIONS[:2]}
    die_at(5)
    with pytest.raises(Killed):
        tiny.run(tmp_path, **grid)
    (file,) = tmp_path.rglob("*.checkpoint")
    die_at(0)
    kept = Checkpoint(file, about(file), every=1)
    step, state = kept.resume() or (0, None)
    kept.seconds = 1000
    kept.save(step, state)
    gradients = count_calls(CoOp, "losses")
    bench.run(results=tmp_path, **{**tiny.arguments, **grid})
    assert (step, len(gradients)) == (5, 6 - 5)
    (record,) = tiny.records(tmp_path).values()
    assert f"{file.name}: the training goes on from step 5" in capsys.readouterr().err
    assert 1000 < record["train_seconds"] < 1100


def test_short_trainings_and_those_without_the_option_leave_nothing(tiny: Any, tmp_path: Path) -> None:
    assert not Checkpoint(tmp_path / "x", {}, every=60).due
    assert not Checkpoint(tmp_path / "x", {}, every=0).due and not Checkpoint().due
    never = Checkpoint(tmp_path / "x", {}, every=0)
    never.save(1, {})
    assert never.resume() is None and not (tmp_path / "x").exists()


# ---- files -----------------------------------------------------------------------------------------------------


def about(file: Path) -> dict[str, Any]:
    with safe_open(str(file), framework="pt") as opened:
        return json.loads(opened.metadata()["checkpoint"])["about"]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def test_a_state_comes_back_as_it_was_and_so_do_the_random_numbers(tmp_path: Path) -> None:
    def drawn() -> list[Any]:
        return [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)]  # noqa: S311 - the state is what is tested

    Checkpoint(tmp_path / "x", {"cells": ["k"]}, every=1).save(3, STATE)
    expected = drawn()
    assert drawn() != expected
    step, state = Checkpoint(tmp_path / "x", {"cells": ["k"]}, every=1).resume() or (0, None)
    assert step == 3 and same(state, STATE)
    assert drawn() == expected


def test_no_flipped_bit_in_a_checkpoint_is_gone_on_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x"
    Checkpoint(file, {"cells": ["k"]}, every=1).save(3, STATE)
    whole = file.read_bytes()
    told = 0
    for bit in range(0, 8 * len(whole), 401):  # a prime: each place in a byte has its turn
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        found = Checkpoint(file, {"cells": ["k"]}, every=1).resume()
        if found is None:
            told += 1
        else:
            assert found[0] == 3 and same(found[1], STATE), bit
    assert told > 100
    assert capsys.readouterr().err.count("x: damaged; the training starts anew\n") == told


@pytest.mark.parametrize("content", [b"", b"text", bytes(100)])
def test_what_is_no_checkpoint_is_told_and_ignored(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_bytes(content)
    assert Checkpoint(tmp_path / "x", {}, every=1).resume() is None
    assert capsys.readouterr().err == "x: damaged; the training starts anew\n"


def test_a_checkpoint_of_another_machine_or_other_versions_is_told_and_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Checkpoint(tmp_path / "x", {"cells": ["k"], "processor": "a", "torch": "2.4"}, every=1).save(3, STATE)
    assert Checkpoint(tmp_path / "x", {"cells": ["k"], "processor": "b", "torch": "2.5"}, every=1).resume() is None
    assert capsys.readouterr().err == "x: made with other processor, torch; the training starts anew\n"


def test_on_a_full_disk_the_training_goes_on_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.checkpoints.save_file", full)
    Checkpoint(tmp_path / "x", {}, every=1).save(3, STATE)
    assert "x: cannot be written ([Errno 28] No space left on device); a kill loses" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
