"""Cross-modal linear probe: class weights trained on images and on the class names' texts as further samples.

Lin et al., "Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models", CVPR 2023, arXiv
2301.06267; code github.com/linzhiqiu/cross_modal_adaptation. Scores are τ · f · wᵀ; w [C, d] starts at the normalised
text features and is not normalised again. A step takes half a batch of images, half a batch of texts (each labelled
with its class), and one mean cross-entropy. Images: the test view and its mirror image. AdamW, 12,800 steps, learning
rate rising from 1e-5 over 50, then cosine by steps.

Unsearched: lr 1e-3, weight decay 0.01, batch 8, the last step. `search=val` is the authors' search: lr 1e-3 or 1e-4,
weight decay 0, 0.01 or 1e-4, batch 8 or 32, the best of 128 checkpoints of each on the few-shot validation images; a
batch is left out where half of it is not below the numbers of texts and images; of ties the first.

`wise=0.5` scores with ½w + ½t instead, their WiSE-FT row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.methods.base import Choice, ProgressCallback, Searching, TaskData, generator, param
from bench.methods.heads import Head, HeadMethod, choose, cosine
from bench.methods.log import Log
from bench.methods.training import Progress

RISE, RISE_FROM = 50, 1e-5  # steps of the learning rate's rise, and where it starts
CHECKPOINT = 100  # steps between two that are compared
GRID = {"lr": (1e-3, 1e-4), "weight_decay": (0.0, 0.01, 1e-4), "batch": (8, 32)}


class Linear(Head):
    """weights : w [C, d], learned. text : t [C, d]. wise : the share of t in what scores outside training."""

    def __init__(self, scale: float, text: Tensor, wise: float) -> None:
        super().__init__()
        self.scale, self.wise = scale, wise
        self.text: Tensor
        self.register_buffer("text", text, persistent=False)
        self.weights = nn.Parameter(text.clone())

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        scores = self.scale * images @ self.weights.T
        if not self.wise or torch.is_grad_enabled():
            return scores
        return (1 - self.wise) * scores + self.wise * self.scale * images @ self.text.T


def endless(n: int, size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Batches of `size` of n rows, shuffled again when fewer are left."""
    size = min(size, n)
    while True:
        yield from torch.randperm(n, generator=rng)[: n // size * size].split(size)


class CrossModalLp(HeadMethod):
    """Class weights trained on images and texts alike."""

    name = "cross-modal-lp"
    needs = frozenset({"test_view", "flip_view"})
    order = 24
    no_new_classes = "it learns a weight vector for each class"
    source = "Cross-Modal Adaptation, arXiv 2301.06267; github.com/linzhiqiu/cross_modal_adaptation"
    searched = frozenset({"lr", "weight_decay", "batch"})

    @dataclass(frozen=True)
    class Params(Searching):
        steps: int = param(12800, "gradient steps", minimum=1)
        batch: int = param(8, "images and texts of a step, half and half", minimum=2)
        lr: float = param(1e-3, "AdamW's learning rate after its rise, before its cosine decay", minimum=0)
        weight_decay: float = param(0.01, "AdamW's", minimum=0)
        wise: float = param(0.0, "share of the text features in the weights that score", minimum=0, maximum=1)

    @classmethod
    def trainings_of(cls, params: Any) -> int:
        return 1 if params.search == "none" else math.prod(map(len, GRID.values()))

    def head(self, task: TaskData, rng: torch.Generator) -> Linear:
        return Linear(self.clip.scale, self.text(task), self.params.wise)

    def settings(self, task: TaskData) -> list[Any]:
        """What is trained for a task: the parameters themselves, or, with search=val, all of the grid that fits."""
        if self.params.search == "none":
            return [self.params]
        least = min(len(task.class_names), 2 * len(task.labels))
        batches = [batch for batch in GRID["batch"] if batch // 2 < least] or [self.params.batch]
        found = product(GRID["lr"], GRID["weight_decay"], batches)
        return [replace(self.params, lr=lr, weight_decay=decay, batch=int(batch)) for lr, decay, batch in found]

    def train(self, seed: int, report: ProgressCallback) -> None:
        settings = [self.settings(task) for task in self.tasks]
        progress = Progress(report, self.params.steps * sum(map(len, settings)))
        for head, task, own in zip(self.heads, self.tasks, settings, strict=True):
            told: list[dict[str, float]] = []
            right: list[int] = []
            best: list[Tensor] = []
            for p in own:
                with torch.no_grad():
                    head.weights.copy_(head.text)
                for step, hits in self._train(head, task, p, seed, progress):
                    told.append({"lr": p.lr, "weight_decay": p.weight_decay, "batch": p.batch, "step": step})
                    right.append(hits)
                    if right.index(max(right)) == len(right) - 1:
                        best = [head.weights.detach().clone()]
            if self.params.search == "val":
                self.choices[task.name] = choose(told, right, len(task.val_labels))
                with torch.no_grad():
                    head.weights.copy_(best[0])

    def rate(self, p: Any, step: int) -> float:
        """Learning rate of step 0, 1, …"""
        if step < RISE:
            return p.lr * step / RISE if step else RISE_FROM
        return p.lr * cosine(step - RISE, p.steps)

    def batches(self, task: TaskData, p: Any, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Features [B, d] and labels [B] of each step: images first, then texts."""
        device = self.clip.device
        images = self.prepared(torch.cat([task.test_view, task.flip_view]).to(device))
        labels, text = task.labels.repeat(2).to(device), self.text(task)
        pairs = zip(endless(len(images), p.batch // 2, rng), endless(len(text), p.batch // 2, rng), strict=False)
        for _, (rows, names) in zip(range(p.steps), pairs, strict=False):
            rows, names = rows.to(device), names.to(device)
            yield torch.cat([images[rows], text[names]]), torch.cat([labels[rows], names])

    def _train(
        self, head: Linear, task: TaskData, p: Any, seed: int, progress: Progress
    ) -> Iterator[tuple[int, int]]:
        """Train once; with search=val, every `CHECKPOINT` steps the step and how many validation images are right."""
        val = self.validation(task) if p.search == "val" else None
        optimiser = torch.optim.AdamW([head.weights], lr=1, weight_decay=p.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.rate(p, step))
        log = self.logs[task.name] = Log(f"{self.name}, {task.name}", -(-p.steps // CHECKPOINT))
        for step, (rows, labels) in enumerate(self.batches(task, p, generator(seed, task.name, "batches"))):
            log.start_step()
            with torch.enable_grad():
                logits = head(rows)
                loss = F.cross_entropy(logits, labels)
            log.note(loss, logits, labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            progress()
            if step % CHECKPOINT == CHECKPOINT - 1 or step == p.steps - 1:
                log.end_epoch()
            if val and step % CHECKPOINT == 0:
                with torch.no_grad():
                    yield step + 1, int((head(val[0]).argmax(dim=1) == val[1]).sum())
        log.close()

    def search(self, head: Any, task: TaskData) -> Choice | None:
        return None  # made on the way
