"""Zero-shot CLIP: hand-written prompts, nothing learned.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021 (ZS-CLIP in
the SoftCPT paper's tables).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.methods.base import Clip, Method, ProgressCallback, TaskData
from bench.wording import sentences


class ZeroShot(Method):
    """score = τ · cos(image, E("<template with the class name>")), or the mean over several sentences per class."""

    name = "zero-shot"
    trains = False
    needs = frozenset()
    order = 0
    source = "CLIP, arXiv 2103.00020"

    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
        self.clip, self.tasks = clip, tasks

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        self.clip, self.tasks = clip, tasks

    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        text = template_features(self.clip, task, class_names)
        return self.clip.scale * F.normalize(features.to(text.device), dim=-1) @ text.T


def template_features(clip: Clip, task: TaskData, class_names: Sequence[str] | None = None) -> Tensor:
    """[C, d], L2-normalised: the features of the task's hand-written sentences, of its classes or of others.

    Where a class has several, their normalised features are averaged and normalised again, as CLIP's own notebook does.
    """
    written = [sentences(task, name) for name in (task.class_names if class_names is None else class_names)]
    features = F.normalize(clip.tower.encode_texts(list(chain(*written))), dim=-1)
    if all(len(own) == 1 for own in written):
        return features
    means = [own.mean(dim=0) for own in features.split([len(own) for own in written])]
    return F.normalize(torch.stack(means), dim=-1)
