"""Zero-shot CLIP: one hand-written template a task, nothing learned.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021 (ZS-CLIP in
the SoftCPT paper's tables).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from bench.methods.base import Clip, Method, Report, TaskData


class ZeroShot(Method):
    """score = τ · cos(image, E("<template with the class name>"))."""

    name = "zero-shot"
    trains = False
    order = 0
    source = "CLIP, arXiv 2103.00020"

    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: Report) -> None:
        self.clip, self.tasks = clip, tasks

    def predict(self, task: int, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        data = self.tasks[task]
        names = data.class_names if class_names is None else class_names
        text = self.clip.tower.encode_texts([data.template.format(name) for name in names])
        return self.clip.scale * F.normalize(features.to(text.device), dim=-1) @ F.normalize(text, dim=-1).T
