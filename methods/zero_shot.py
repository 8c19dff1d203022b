"""Zero-shot CLIP: hand-written prompts, nothing learned.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021 (ZS-CLIP in
the SoftCPT paper's tables).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, Method, Names, Parameters, ProgressCallback, TaskData, param
from bench.wording import sentences


class ZeroShot(Method):
    """score = τ · cos(image, E("<template with the class name>")), or the mean over several sentences per class."""

    name = "zero-shot"
    trains = False
    needs = frozenset()
    order = 0
    unseen = ""
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


@dataclass(frozen=True)
class Teacher(Parameters):
    """What methods have whose prompts are held near hand-written ones."""

    template: str = param(
        "",
        "the hand-written sentence that it learns from, with {} for the class name; empty: the task's own",
        by_task=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template and (self.template.count("{}") != 1 or len(re.findall("[{}]", self.template)) != 2):
            raise UserError(f"template={self.template!r}: write one with one {{}}, where the class name goes")

    def texts(self, task: Names) -> list[tuple[str, int]]:
        """As `Method.texts`: what the tower reads of a task's hand-written sentences."""
        if self.template:
            return [(self.template.format(name), 0) for name in task.class_names]
        return ZeroShot.texts(self, task)


def template_features(
    clip: Clip, task: TaskData, class_names: Sequence[str] | None = None, template: str = ""
) -> Tensor:
    """[C, d], L2-normalised: the features of the task's hand-written sentences, of its classes or of others.

    Where a class has several, their normalised features are averaged and normalised again, as CLIP's own notebook does.

    template : one with "{}" for the class name, instead of the task's own sentences.
    """
    names = task.class_names if class_names is None else class_names
    written = [[template.format(name)] if template else sentences(task, name) for name in names]
    features = F.normalize(clip.tower.encode_texts(list(chain(*written))), dim=-1)
    if all(len(own) == 1 for own in written):
        return features
    means = [own.mean(dim=0) for own in features.split([len(own) for own in written])]
    return F.normalize(torch.stack(means), dim=-1)
