"""The few-shot draw: pinned by value, and its promises for every input."""

import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.datasets import Item, few_shot
from bench.errors import UserError

# Time says nothing on a shared machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

CATS_AND_DOGS = [Item(f"{name}/{n}.jpg", label) for label, name in enumerate(["cat", "dog"]) for n in range(6)]

paths = st.text(min_size=1, max_size=12)
item_sets = st.lists(st.builds(Item, paths, st.integers(0, 4)), max_size=40, unique_by=lambda item: item.path)
seeds = st.integers(0, 2**40)


def test_draw_is_pinned_by_value() -> None:
    assert [item.path for item in few_shot(CATS_AND_DOGS, 3, seed=1)] == [
        *("cat/2.jpg", "cat/5.jpg", "cat/4.jpg"),
        *("dog/2.jpg", "dog/4.jpg", "dog/3.jpg"),
    ]
    assert [item.path for item in few_shot(CATS_AND_DOGS, 3, seed=2)] == [
        *("cat/5.jpg", "cat/3.jpg", "cat/2.jpg"),
        *("dog/2.jpg", "dog/4.jpg", "dog/1.jpg"),
    ]


def test_draw_is_the_same_in_another_process() -> None:
    code = (
        "from bench.datasets import Item, few_shot\n"
        "items = [Item(f'{name}/{n}.jpg', label) for label, name in enumerate(['cat', 'dog']) for n in range(6)]\n"
        "print([item.path for item in few_shot(items, 4, seed=3)])"
    )
    printed = {
        subprocess.run(  # noqa: S603 - a list of our own words, and no shell
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "7")
    }
    assert printed == {str([item.path for item in few_shot(CATS_AND_DOGS, 4, seed=3)])}


@unhurried
@given(item_sets, st.integers(1, 16), seeds)
def test_draws_of_a_seed_are_nested(items: list[Item], shots: int, seed: int) -> None:
    assert set(few_shot(items, shots, seed)) <= set(few_shot(items, 2 * shots, seed))


@unhurried
@given(item_sets, st.integers(1, 16), seeds)
def test_draw_holds_as_many_of_a_class_as_asked_or_there(items: list[Item], shots: int, seed: int) -> None:
    drawn = few_shot(items, shots, seed)
    assert len(set(drawn)) == len(drawn) and set(drawn) <= set(items)
    for label in range(5):
        available = sum(item.label == label for item in items)
        assert sum(item.label == label for item in drawn) == min(shots, available)


@unhurried
@given(item_sets, st.integers(1, 16), seeds, st.randoms(use_true_random=False))
def test_draw_is_independent_of_the_order_of_items(
    items: list[Item], shots: int, seed: int, shuffler: random.Random
) -> None:
    shuffled = list(items)
    shuffler.shuffle(shuffled)
    assert few_shot(shuffled, shots, seed) == few_shot(items, shots, seed)


def test_a_draw_depends_on_the_seed() -> None:
    many = [Item(f"{n}.jpg", 0) for n in range(100)]
    assert len({tuple(few_shot(many, 4, seed)) for seed in range(10)}) == 10


def test_a_name_that_is_not_utf8_can_be_drawn() -> None:
    assert len(few_shot([Item("caf\udce9/1.jpg", 0), Item("caf\udce9/2.jpg", 0)], 1, seed=1)) == 1


@pytest.mark.parametrize("shots", [0, -1])
def test_shots_that_make_no_sense_are_refused(shots: int) -> None:
    with pytest.raises(UserError, match=r"shots: .* give 1 or more"):
        few_shot(CATS_AND_DOGS, shots, seed=1)
