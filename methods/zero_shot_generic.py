"""Zero-shot CLIP with one sentence for all tasks: the control that tells what the tasks' own templates bring.

A task's template ("a satellite photo of {}.") was written by someone who knew the task. A method that is given nothing
but a task's name and its classes' should be compared with zero-shot that knows no more: "a photo of a {}.".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from bench.methods.base import Names, TaskData
from bench.methods.zero_shot import ZeroShot, template_features

TEMPLATE = "a photo of a {}."


class ZeroShotGeneric(ZeroShot):
    """score = τ · cos(image, E("a photo of a <class name>.")), whatever the task's own template."""

    name = "zero-shot-generic"
    order = 1
    source = "ours: a control; the template is that of CLIP, arXiv 2103.00020"
    footnote = f"zero-shot-generic is a control of ours: zero-shot with “{TEMPLATE}” for every task."

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        return [(TEMPLATE.format(name), 0) for name in task.class_names]

    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        text = template_features(self.clip, task, class_names, TEMPLATE)
        return self.clip.scale * F.normalize(features.to(text.device), dim=-1) @ text.T
