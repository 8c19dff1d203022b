"""What `--controls` adds to a run: the rows without which a gain by tasks' names says nothing.

Beside rows of their own (`METHODS`), every method that reads tasks' names is trained once more with these names
exchanged among the tasks that are trained on. What a method gains by names it loses by wrong ones; a prompt that is
merely good does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from bench.errors import UserError
from bench.methods.base import generator
from bench.methods.shared_coop import SharedCoOp
from bench.options import Variant
from bench.progress import count
from bench.records import SHUFFLED

METHODS = ("zero-shot", "zero-shot-generic", "shared-coop-matched")
TRIES = 1000  # of n names that differ, one in e orders leaves none in its place


@dataclass(frozen=True)
class _Named:
    """A task without images, to ask a method what it would read of it."""

    task_name: str
    name: str = "task"
    class_names: tuple[str, ...] = ("class",)
    template: str | tuple[str, ...] = "{}"
    descriptions: dict[str, Sequence[str]] = field(default_factory=dict)
    path: tuple[str, ...] = ()


def reads_task_names(variant: Variant) -> bool:
    """Whether it matters to what is learned which task has which name: not where all tasks share one context."""
    kind, params = variant.method, variant.params
    texts = [kind.texts(params, _Named(name)) for name in ("one", "other")]
    return kind.trains and texts[0] != texts[1] and not issubclass(kind, SharedCoOp)


def is_control(variant: Variant) -> bool:
    """Whether a setting is itself a control, as its method says (`Method.controls`)."""
    plain = variant.method.Params()
    return any(getattr(variant.params, name) != getattr(plain, name) for name in variant.method.controls)


def with_shuffled(settings: Sequence[Variant]) -> list[Variant]:
    """The settings, each that reads tasks' names, and is no control, followed by its control."""
    found = []
    for variant in settings:
        found.append(variant)
        if reads_task_names(variant) and not is_control(variant):
            label = ",".join(filter(None, (variant.label, SHUFFLED)))
            found.append(replace(variant, label=label, shuffled=True))
    return found


def shuffled(names: Sequence[str], seed: int) -> list[str]:
    """The names in another order, drawn by the seed, in which no place has the name that it had.

    Where names that stand more than once let hardly any order fit, one is made: equal names side by side, groups and
    places drawn, and every name as many places on as the largest group has.

    Raises
    ------
    UserError : there is none.
    """
    if why := unshuffled(names):
        raise UserError(f"names cannot be shuffled so that no task keeps its own: {why}")
    rng = generator(seed, "shuffled names", *names)
    for _ in range(TRIES):
        order = [names[i] for i in torch.randperm(len(names), generator=rng)]
        if all(new != old for new, old in zip(order, names, strict=True)):
            return order
    drawn = torch.randperm(len(names), generator=rng).tolist()
    first = [names[i] for i in drawn]  # whose group comes first, and so on
    places = sorted(drawn, key=lambda i: first.index(names[i]))
    step, order = max(map(names.count, names)), list(names)
    for k, place in enumerate(places):
        order[place] = names[places[k - step]]
    return order


def unshuffled(names: Sequence[str]) -> str:
    """Why names of tasks cannot be shuffled so that no task keeps its own: one of more than half of them; else ""."""
    if not names:
        return "there are none"
    name, most = Counter(names).most_common(1)[0]
    return f"{name!r} is the name of {most} of {count(len(names), 'task')}" if 2 * most > len(names) else ""
