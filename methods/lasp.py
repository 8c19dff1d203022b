"""LASP without LayerNorms: CoOp whose text features must also tell hand-written sentences apart.

Bulat and Tzimiropoulos, "LASP: Text-to-Text Optimization for Language-Aware Soft Prompting of Vision & Language
Models", CVPR 2023, arXiv 2210.01115; code 1adrianb/lasp, `prompting/lasp.py`. A class's text feature is
g_c = unit(E("v₁ … v₄ <name>.") + δ), with one correction vector δ [d] for all classes of a task. Loss = cross-entropy
of the images + λ · mean over templates l and classes c of the cross-entropy of τ · h_lc · g with label c: the features
h of hand-written sentences are classified as images are, among the learned g. With probability ½ a step adds noise
N(0, 0.05²) to h, which is not normalised again. Learned: T · (L · w + d) numbers.

`names=all` puts the names of the classes that will be scored but are not trained on (base2new) among c, as the authors'
base-to-new runs do: it learns from names that no other method is given, and its row says so.

The released configuration also trains the image tower's LayerNorms, which frozen features leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.methods.base import Clip, Names, TaskData, generator, param
from bench.methods.coop import CoOp
from bench.methods.training import Batch
from bench.methods.zero_shot import template_features

# Of configs/LASP in 1adrianb/lasp, where "a bad photo of the {}." stands twice.
TEMPLATES = (
    "a photo of a {}, a type of flower.", "a photo of a person doing {}.", "a centered satellite photo of {}.",
    "a photo of a {}, a type of aircraft.", "{} texture.", "itap of a {}.", "a bad photo of the {}.",
    "a origami {}.", "a photo of the large {}.", "a {} in a video game.", "art of the {}.",
    "a photo of the small {}.", "a photo of a {}.", "a photo of many {}.", "a photo of the hard to see {}.",
    "a low resolution photo of the {}.", "a rendering of a {}.", "a cropped photo of the {}.",
    "a pixelated photo of the {}.", "a bright photo of the {}.", "a cropped photo of a {}.", "a photo of the {}.",
    "a good photo of the {}.", "a rendering of the {}.", "a close-up photo of the {}.",
    "a low resolution photo of a {}.", "a rendition of the {}.", "a photo of the clean {}.",
    "a photo of a large {}.", "a blurry photo of a {}.", "a pixelated photo of a {}.", "itap of the {}.",
    "a jpeg corrupted photo of the {}.", "a good photo of a {}.",
)  # fmt: skip

ALL_NAMES = "Its loss also read the names of the new classes, which the other rows' training did not."


class LASP(CoOp):
    """CoOp with a correction vector, and a loss that classifies hand-written sentences by the learned features."""

    name = "lasp"
    order = 85
    source = "LASP, arXiv 2210.01115; code 1adrianb/lasp"
    footnote = (
        "LASP here leaves the image tower as it is; the published rows also train its LayerNorms: the two are not "
        "comparable."
    )

    @dataclass(frozen=True)
    class Params(CoOp.Params):
        context: int = param(4, "class-context length L", minimum=1)
        words: str = param("a photo of a", "start from these words' embeddings; empty: from noise", by_task=True)
        text_weight: float = param(5.0, "λ, weight of the loss of hand-written sentences", minimum=0)
        noise: float = param(0.05, "standard deviation of the noise that half of the steps add to them", minimum=0)
        names: Literal["own", "all"] = param(
            "own", "classes of that loss: those trained on, or also those of base2new that are only scored",
            choices=("own", "all"),
        )  # fmt: skip
        correction: bool = param(True, "learn the vector δ that is added to the text features")

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        sentences = [(template.format(name), 0) for template in TEMPLATES for name in task.class_names]
        return [*super().texts(params, task), *(sentences if params.text_weight else [])]

    @classmethod
    def needs_of(cls, params: Any) -> frozenset[str]:
        return super().needs_of(params) | ({"new_names"} if params.names == "all" else set())

    @property
    def notes(self) -> str:
        return super().notes + (f" {ALL_NAMES}" if any(task.new_names for task in self.tasks) else "")

    def scored(self, batch: Batch) -> tuple[Batch, list[Sequence[str]]]:
        return batch, [(*self.tasks[t].class_names, *self.tasks[t].new_names) for t in batch.present]

    def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
        super().setup(clip, tasks, seed)
        self._written: dict[int, Tensor] = {}
        for t, task in enumerate(tasks):  # attributes, which a checkpoint keeps
            setattr(self, f"_noise_{t}", generator(seed, task.name, "noise"))

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        start = super().initialise(tasks, rng)
        if self.params.correction:
            start["correction"] = torch.zeros(len(tasks), self.clip.embed_dim)
        return start

    def shifted(self, tasks: Sequence[int], encoded: Sequence[Tensor]) -> Sequence[Tensor]:
        if not self.params.correction:
            return encoded
        own = [self.part("correction", t)[0 if self.separate else t] for t in tasks]  # d each
        return [features + vector for features, vector in zip(encoded, own, strict=True)]

    def loss(self, batch: Batch, text: Sequence[Tensor]) -> Tensor:
        own = [features[: len(self.tasks[t].class_names)] for t, features in zip(batch.present, text, strict=True)]
        loss = super().loss(batch, own)
        if not self.params.text_weight:
            return loss
        sentences = [self._sentence_loss(self._sentences(t), g) for t, g in zip(batch.present, text, strict=True)]
        return loss + self.params.text_weight * sum(sentences) / len(sentences)

    def _sentence_loss(self, written: Tensor, learned: Tensor) -> Tensor:
        """Mean cross-entropy of sentences' features [l, C, d], each classified among the learned ones [C, d]."""
        logits = self.clip.scale * written @ learned.T  # l, C, C
        labels = torch.arange(len(learned), device=logits.device).expand(len(written), -1)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def _sentences(self, t: int) -> Tensor:
        """Features [l, C, d] of a task's hand-written sentences; in half of the steps with noise."""
        if t not in self._written:
            task = self.tasks[t]
            names = [*task.class_names, *task.new_names]
            each = [template_features(self.clip, task, names, template) for template in TEMPLATES]
            self._written[t] = torch.stack(each)
        written = self._written[t]
        rng = getattr(self, f"_noise_{t}")
        if not self.params.noise or torch.rand(1, generator=rng) < 0.5:
            return written
        noise = torch.randn(written.shape, generator=rng).to(written.device, non_blocking=True)
        return written + self.params.noise * noise
