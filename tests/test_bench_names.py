"""Names that the text tower cannot read are told at preparation: all of them, before an image is encoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.clip.backbone import load_backbone
from bench.clip.text import TextTower
from bench.errors import UserError
from bench.features import ImageFeatures
from bench.methods import TaskData, find_method
from bench.names import check_names
from bench.options import variants


@pytest.fixture(scope="module")
def tower(one_thread: None) -> TextTower:
    """The demo's: CLIP's tokenizer with its first 2000 merges; reads 77 tokens."""
    return load_backbone("demo-clip").tower


def a_task(*names: str, template: str = "a {}", task_name: str = "things", name: str = "T") -> Any:
    import torch

    return TaskData(name, task_name, names, template, torch.zeros(1, 0, 0), torch.zeros(0, dtype=torch.long))


def settings(*methods: str, options: tuple[str, ...] = ()) -> Any:
    return variants([find_method(name) for name in methods], options, [])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("T-Shirt", "t-shirt"),
        ("salt &amp; pepper", "salt & pepper"),
        ("caf\u00e9", "cafe\u0301"),
        ("T-shirt", "T - shirt"),
        ("king\u2019s crown", "king's crown"),
    ],
)
def test_class_names_with_the_same_tokens_are_refused_with_both(tower: TextTower, first: str, second: str) -> None:
    with pytest.raises(UserError) as caught:
        check_names(tower, [a_task("other", first, second)], settings("zero-shot"))
    assert f"task T: the same tokens stand for {first!r} and {second!r}:" in str(caught.value)


def test_names_that_differ_in_a_token_pass(tower: TextTower) -> None:
    check_names(tower, [a_task("cat", "cats", "cat.", "c at"), a_task("cat", name="U")], settings("zero-shot", "coop"))


def test_all_tasks_are_in_one_error_and_three_pairs_of_each(tower: TextTower) -> None:
    tasks = [a_task("a", "A", "b", "B", "c", "C", "d", "D"), a_task("x", "X", name="U")]
    with pytest.raises(UserError) as caught:
        check_names(tower, tasks, settings("coop"))
    assert "'a' and 'A', 'b' and 'B', 'c' and 'C' and 1 more" in str(caught.value)
    assert "task U: the same tokens stand for 'x' and 'X'" in str(caught.value)


def test_methods_that_know_classes_by_their_images_may_have_any_names(tower: TextTower) -> None:
    long = "a " * 100
    check_names(tower, [a_task("a", "A", long, task_name=long)], settings("protonet", "linear-probe"))
    with pytest.raises(UserError, match="'a' and 'A'"):
        check_names(tower, [a_task("a", "A")], settings("protonet", "coop"))


# What the tower reads: SOT, EOT, the tokens of the text (one for each "a" and ".") and the context vectors.
@pytest.mark.parametrize(
    ("method", "option", "task", "tokens"),
    [
        ("zero-shot", "", {"template": "{}" + " a" * 75}, 78),  # the name, 75, SOT and EOT
        ("coop", "coop.context=74", {}, 78),  # the name and its full stop
        ("coop", "coop.position=front", {"names": ["a " * 59]}, 78),  # 59, a full stop, 16 vectors
        ("kgcoop", "kgcoop.words=", {"template": "{}" + " a" * 75}, 78),
        ("prograd", "prograd.words=", {"template": "{}" + " a" * 75}, 78),
        ("softcpt", "softcpt.task_context=74", {"task_name": "a"}, 78),
        ("softcpt-nats", "", {"task_name": "a " * 71}, 78),  # 71, a full stop, 4 vectors
        ("softcpt-star", "", {"task_name": "a " * 75}, 78),  # 75, a full stop
        ("softcpt-csta", "softcpt-csta.class_context=74", {}, 78),
        ("plot", "plot.context=74", {}, 78),
        ("cocoop", "cocoop.context=74", {}, 78),
    ],
)
def test_a_text_one_token_too_long_is_told_for_every_method(
    tower: TextTower, method: str, option: str, task: dict[str, Any], tokens: int
) -> None:
    names = task.pop("names", ["a"])
    with pytest.raises(UserError, match=rf"takes {tokens} tokens.*\({method}\); the tower reads 77"):
        check_names(tower, [a_task(*names, **task)], settings(method, options=(option,) if option else ()))


def test_the_longest_texts_that_fit_pass_as_they_do_in_training(tower: TextTower) -> None:
    task = a_task("a", "b", template="{}" + " a" * 74, task_name="a " * 70)
    check_names(tower, [task], settings("zero-shot", "coop", "softcpt", options=("coop.context=73",)))


def test_a_run_refuses_such_names_before_an_image_is_encoded(own_tiny: Any, tmp_path: Path, count_calls: Any) -> None:
    calls = count_calls(ImageFeatures, "blocks")
    (own_tiny.data / "colour" / "red_paint").rename(own_tiny.data / "colour" / "Blue Paint")
    suite = Path(own_tiny.suite)
    suite.write_text(suite.read_text().replace("{} things.", "{} things" + " a" * 80))
    with pytest.raises(UserError) as caught:
        own_tiny.run(tmp_path / "runs")
    assert "task Colour: the same tokens stand for 'Blue Paint' and 'blue paint'" in str(caught.value)
    assert "task Shade: 'dark things" in str(caught.value) and "(zero-shot)" in str(caught.value)
    assert calls == [] and not (tmp_path / "runs").exists()
