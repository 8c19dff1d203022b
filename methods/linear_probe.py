"""Linear probe: L2-regularised logistic regression on frozen image features (LP-CLIP in the paper's tables).

Radford et al., arXiv 2103.00020, as CoOp (arXiv 2109.01134) runs it in the few-shot setting: scikit-learn's lbfgs
on raw features; C is chosen only on the few-shot validation images, over seven powers of ten, then by eight
steps of binary search in log10 C around the best. A class without images is never said.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import (
    Choice,
    Clip,
    Method,
    Parameters,
    ProgressCallback,
    TaskData,
    check_labels,
    check_shapes,
    param,
)

LEARNED = ("coef_", "intercept_", "classes_")  # what scikit-learn calls it
SWEEP = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)


class LinearProbe(Method):
    """One logistic regression per task; C is chosen on few-shot validation images."""

    name = "linear-probe"
    needs = frozenset({"test_view", "val"})
    reads_names = False
    no_new_classes = "it learns one weight vector for each class"
    order = 20
    source = "CLIP, arXiv 2103.00020; CoOp, arXiv 2109.01134"

    @dataclass(frozen=True)
    class Params(Parameters):
        steps: int = param(8, "steps of binary search in log10 C", minimum=0)
        iterations: int = param(1000, "lbfgs iterations at most", minimum=1)

    @classmethod
    def trainings_of(cls, params: Any) -> int:
        return len(SWEEP) + (params.steps and params.steps + 1)  # the first step tries both neighbours, the others one

    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
        self.device, self.tasks = clip.device, tasks
        self.probes: list[Any] = []
        self.choices: dict[str, Choice] = {}
        for t, task in enumerate(tasks):
            self.probes.append(self._best_probe(task))
            report(t + 1, len(tasks))

    def _probe(self, task: TaskData, c: float) -> Any:
        # Here, not above: all methods are imported to list them, and scikit-learn takes a second.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits  # few images are too little work for two threads

        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # the recipe stops at 1000 iterations
            warnings.filterwarnings("ignore", "The number of unique classes")  # few-shot: one image may be a class
            probe = LogisticRegression(C=c, max_iter=self.params.iterations, solver="lbfgs")
            return probe.fit(task.test_view.numpy().astype(np.float64), task.labels.numpy())

    def _best_probe(self, task: TaskData) -> Any:
        """The probe at the C that the search ends at."""
        if not len(task.val_labels):
            raise UserError(f"linear-probe chooses its C on validation images; task {task.name} has none")
        if len(task.labels.unique()) < 2:
            raise UserError(f"linear-probe separates classes; task {task.name} has images of one alone")
        images, labels = task.val.numpy().astype(np.float64), task.val_labels.numpy()
        probes: dict[float, Any] = {}

        def accuracy(c: float) -> float:
            if c not in probes:
                probes[c] = self._probe(task, c)
            return float(probes[c].score(images, labels))

        best = max(SWEEP, key=accuracy)  # of equals the first
        left, right = 0.1 * best, 10 * best
        for _ in range(self.params.steps):
            middle = float(np.sqrt(left * right))  # halfway in log10 C
            if accuracy(left) < accuracy(right):
                left, best = middle, right
            else:
                right, best = middle, left
        found = [accuracy(c) for c in probes]
        percent, ties = 100 * accuracy(best), found.count(accuracy(best)) - 1
        self.choices[task.name] = Choice({"C": best}, percent, len(labels), len(found), ties)
        return probes[best]

    def chosen(self) -> dict[str, Choice]:
        return self.choices

    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        t = self.place(task)
        if tuple(task.class_names if class_names is None else class_names) != self.tasks[t].class_names:
            self.refuse_new_classes()
        probe, n_classes = self.probes[t], len(self.tasks[t].class_names)
        known = torch.from_numpy(probe.predict_log_proba(features.cpu().numpy().astype(np.float64)))
        scores = torch.full((len(known), n_classes), -torch.inf, dtype=known.dtype)
        scores[:, torch.from_numpy(probe.classes_)] = known
        return scores.to(self.device)

    @property
    def n_params(self) -> int:
        return sum(probe.coef_.size + probe.intercept_.size for probe in self.probes)

    def state(self) -> dict[str, Tensor]:
        numbered = [(t, probe, part) for t, probe in enumerate(self.probes) for part in LEARNED]
        return {f"{part}{t}": torch.from_numpy(getattr(probe, part)) for t, probe, part in numbered}

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        from sklearn.linear_model import LogisticRegression

        self.device, self.tasks, self.choices = clip.device, tasks, {}
        wanted: dict[str, tuple[int, ...]] = {}
        for t, task in enumerate(tasks):
            known = state.get(f"classes_{t}")  # fewer than the task's where some have no images
            n = len(task.class_names) if known is None or known.ndim != 1 else len(known)
            rows = 1 if n == 2 else n  # of two classes, scikit-learn keeps only the second's weights
            wanted |= {f"coef_{t}": (rows, clip.embed_dim), f"intercept_{t}": (rows,), f"classes_{t}": (n,)}
        check_shapes(self.name, wanted, state)
        self.probes = []
        for t, task in enumerate(tasks):
            check_labels(self.name, task.name, state[f"classes_{t}"], len(task.class_names))
            probe = LogisticRegression()
            for part in LEARNED:
                setattr(probe, part, state[f"{part}{t}"].numpy())
            self.probes.append(probe)
