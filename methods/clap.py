"""CLAP: class weights that start at the text features and are held there.

Silva-Rodríguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", CVPR 2024, arXiv
2312.12730; code github.com/jusiro/CLAP. As `zs-lp`, plus the mean over classes of λ_c · ‖w_c − U_c‖² in raw space. λ_c
is the mean, over the class's training rows, of the zero-shot probability of their own class. The paper derives λ by an
augmented Lagrangian with outer steps; the released configuration never takes them, so λ stays at this first value, and
so it does here. A class without an image gets the mean of the others' λ.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.methods.base import TaskData
from bench.methods.zs_lp import Weights, ZsLp


class Clap(ZsLp):
    """Class weights, trained from the text features on and held near them."""

    name = "clap"
    order = 22

    def head(self, task: TaskData, rng: torch.Generator) -> Weights:
        return Weights(self.clip.scale, self.raw_text(task), self.pull(task))

    def pull(self, task: TaskData) -> Tensor:
        """λ [C]."""
        if not len(task.labels):  # restored: nothing is trained
            return torch.zeros(len(task.class_names), device=self.clip.device)
        text, labels = self.text(task), task.labels.to(self.clip.device)
        own = torch.zeros(len(labels), device=self.clip.device)
        for view in task.views:
            logits = self.clip.scale * self.prepared(view.to(self.clip.device)) @ text.T
            own += logits.softmax(dim=1)[torch.arange(len(labels), device=labels.device), labels] / len(task.views)
        counts = task.counts.to(self.clip.device)
        sums = torch.zeros(len(counts), device=self.clip.device).index_add(0, labels, own)
        means = sums / counts.clamp(min=1)
        return torch.where(counts > 0, means, means[counts > 0].mean())
