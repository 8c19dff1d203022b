"""ProtoNet on CLIP's features: the nearest class mean.

Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017, arXiv 1703.05175, without its training:
a class is the mean of its few-shot images' L2-normalised features, the score the cosine. A class without images is
never said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.methods.base import Clip, Method, ProgressCallback, TaskData, check_shapes


class ProtoNet(Method):
    """score = τ · cos(image, class mean)."""

    name = "protonet"
    needs = frozenset({"test_view"})
    order = 10
    reads_names = False
    no_new_classes = "it knows a class by its images"
    source = "Prototypical Networks, arXiv 1703.05175"
    footnote = (
        "ProtoNet here uses CLIP's frozen features; the paper's figures show that its ProtoNet did not: the two "
        "are not comparable."
    )

    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
        self.clip, self.tasks = clip, tasks
        self.means = []
        for task in tasks:
            of_class = F.one_hot(task.labels, len(task.class_names)).to(task.test_view.dtype)  # n, C
            means = of_class.T @ F.normalize(task.test_view, dim=-1)  # C, d
            self.means.append(F.normalize(means, dim=-1).to(clip.device))

    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        t = self.place(task)
        if tuple(task.class_names if class_names is None else class_names) != self.tasks[t].class_names:
            self.refuse_new_classes()
        means = self.means[t]
        scores = self.clip.scale * F.normalize(features.to(means.device), dim=-1) @ means.T
        return scores.masked_fill(~means.any(dim=1), -torch.inf)

    def state(self) -> dict[str, Tensor]:
        return {f"means-{t}": means.cpu() for t, means in enumerate(self.means)}

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        self.clip, self.tasks = clip, tasks
        wanted = {f"means-{t}": (len(task.class_names), clip.embed_dim) for t, task in enumerate(tasks)}
        check_shapes(self.name, wanted, state)
        self.means = [state[name].to(clip.device) for name in wanted]
