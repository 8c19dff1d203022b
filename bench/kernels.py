"""How much tasks share before any training: the kernel by which a method mixes their gradients, and its spectrum.

With the task features held, many methods are contexts V = A·Z (T tasks × L·w) with learned Z. A step of gradient
descent then changes them by K = A Aᵀ times their gradients: K_st says how much task s moves when task t learns.
docs/task-sharing.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench import association
from bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from bench.methods import TaskData
    from bench.methods.prompt import PromptMethod

HELD = ("task_context", "scales", "reduction", "keys")  # what changes A itself


def mixing(method: PromptMethod) -> Tensor:
    """A [T, r] of a method after its `setup` or its training, float64; K = A Aᵀ.

    It is read off the contexts' gradients: that of entry (t, j) of V by Z is A_t, in column j of Z. All columns are
    alike, so one entry of each task is enough.
    """
    import torch

    for name, value in method.learned.items():
        value.requires_grad_(name not in HELD)
    free = [value for value in method.learned.values() if value.requires_grad]
    rows: list[tuple[Tensor, Tensor]] = []  # of each task's gradient: where it is not 0, and what it is there
    for context in method.contexts(range(len(method.tasks)), [task.class_names for task in method.tasks]):
        parts = torch.autograd.grad(context.flatten()[0], free, retain_graph=True, allow_unused=True)
        whole = [torch.zeros_like(p) if g is None else g for g, p in zip(parts, free, strict=True)]
        gradient = torch.cat([g.flatten() for g in whole])
        where = gradient.nonzero().flatten()
        rows.append((where, gradient[where].double()))
    columns = torch.cat([where for where, _ in rows]).unique()
    a = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    for t, (where, values) in enumerate(rows):
        a[t, torch.searchsorted(columns, where)] = values
    return a


def spectrum(a: Tensor) -> pd.DataFrame:
    """The eigenvalues of K = A Aᵀ as shares of its trace, in percent, largest first, and their running sum.

    One that holds everything: the tasks learn as one. T equal ones: each learns alone.
    """
    shares = 100 * association.spectrum(a.numpy())
    numbers = range(1, len(shares) + 1)
    return pd.DataFrame({"eigenvalue": numbers, "% of the trace": shares, "together": shares.cumsum()})


def spectrum_of(
    method: str,
    suite: str,
    data: str | None = None,
    backbone: str | None = None,
    pretrained: str | None = None,
    options: Sequence[str] = (),
) -> pd.DataFrame:
    """The spectrum of a method's kernel between a suite's tasks, as it is before training with seed 1.

    Parameters
    ----------
    method : one that has a kernel. suite, backbone, pretrained, options : as for `bench.run`.
    data : the data sets' folders; needed only where a method reads names that the suite file does not hold.
    """
    from bench.clip.backbone import load_backbone
    from bench.datasets.spec import load_suite
    from bench.methods import find_method
    from bench.options import variants

    kind, loaded = find_method(method, "explain"), load_suite(suite)
    settings = variants([kind], options, [{"all": loaded.recipe}])
    if len(settings) > 1:
        raise UserError(f"explain {kind.name}: one value of each parameter, not a sweep ({' '.join(options)})")
    tasks = _tasks(suite, data)
    unnamed = [replace(task, class_names=()) for task in tasks if not task.task_name]
    if any(kind.texts(settings[0].params, task) for task in unnamed):
        raise UserError(f"suite {suite}: its tasks' names stand in the data: give --data ROOT")
    name = backbone or loaded.backbone or "RN50"
    made: Any = settings[0].make()
    made.setup(load_backbone(name, pretrained), tasks, seed=1)
    return spectrum(mixing(made))


class _InTheData(tuple[str, ...]):
    """The class names of a task whose data is not at hand: whoever reads them is told to give it."""

    def __iter__(self) -> Iterator[str]:
        raise UserError("this kernel depends on the tasks' class names, which stand in the data: give --data ROOT")


def _tasks(suite: str, data: str | None) -> list[TaskData]:
    """A suite's tasks by their names; their classes where the data is there."""
    import torch

    from bench.catalogue import data_root, missing_advice
    from bench.datasets.spec import load_suite
    from bench.datasets.splits import load_tasks
    from bench.methods import TaskData

    loaded, none = load_suite(suite), torch.zeros(0, dtype=torch.long)
    found: list[Any] = [*loaded.tasks]
    if loaded.demo or data or loaded.from_data:
        root = data_root(loaded, data)
        loaded = loaded.at(root)
        found = list(load_tasks(loaded, root, advice=missing_advice(loaded, root)))
    views = torch.zeros(1, 0, 0)
    return [
        TaskData(
            t.name, t.task_name, getattr(t, "class_names", _InTheData()), t.template, views, none,
            descriptions=t.descriptions, path=t.path,
        )
        for t in found
    ]  # fmt: skip
