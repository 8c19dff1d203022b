"""Methods that learn prompts by gradient descent through the frozen text tower: what they share.

A subclass says which tensors it starts from (`initialise`) and how they become text features
(`text_features`). One that scores images otherwise overrides `logits`; one with another loss, `loss`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, Method, Report, TaskData, generator, param
from bench.methods.training import Batch, Progress, Recipe, joint_cross_entropy, steps_an_epoch, train
from bench.text import POSITIONS, Position


@dataclass(frozen=True)
class PromptParams(Recipe):
    """The recipe, and what every learned prompt has."""

    context: int = param(16, "class-context length L", least=1)
    words: str = param("", "start from these words' embeddings (as many tokens as `context`) instead of noise")
    position: Position = param("end", "where the class name stands: end, middle or front", choices=POSITIONS)


class PromptMethod(Method):
    """Learned prompts: trained on all tasks together, or (`separate`) on each task alone.

    Attributes
    ----------
    learned : the parameters, by name. Trained separately, each task has its own, named "<name>-<index>".
    """

    separate = False
    Params = PromptParams

    @abstractmethod
    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        """Start values for tasks that are trained together."""

    def text_features(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        """[C, d] for each task's class names, not normalised, differentiable.

        A method whose prompts depend on the image has none: it overrides `logits` and `predict`.
        """
        raise NotImplementedError

    def start_context(self, n: int, rng: torch.Generator) -> Tensor:
        """n contexts [n, L, w]: the embeddings of `words`, or noise."""
        p, tower = self.params, self.clip.tower
        if not p.words:
            return torch.randn(n, p.context, tower.width, generator=rng) * p.init_std
        vectors = tower.word_vectors(p.words).cpu()  # L, w
        if len(vectors) != p.context:
            raise UserError(f"words={p.words!r} are {len(vectors)} tokens, context={p.context}: make them equal")
        return vectors.expand(n, -1, -1).clone()

    def part(self, name: str, task: int) -> Tensor:
        """The parameter that serves a task."""
        return self.learned[f"{name}-{task}" if self.separate else name]

    def logits(self, features: Tensor, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> Tensor:
        """[B, C of all `tasks` side by side] = τ · cosine; `features` [B, d] are normalised."""
        text = F.normalize(torch.cat(self.text_features(tasks, names)), dim=-1)
        return self.clip.scale * features @ text.T

    def loss(self, batch: Batch) -> Tensor:
        """Joint cross-entropy; tasks with no image in the batch are not encoded."""
        names = [self.tasks[t].class_names for t in batch.present]
        return joint_cross_entropy(
            self.logits(batch.features, batch.present, names), batch, [len(n) for n in names]
        )

    def gradients(self, batch: Batch) -> None:
        """Put the step's gradients into the parameters' `.grad`."""
        self.loss(batch).backward()

    def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
        """Make the parameters at their start values; alone, a task gets the values it would get among others."""
        self.clip, self.tasks, self.learned = clip, list(tasks), {}
        self._text: dict[int, Tensor] = {}
        for which, label in self._trainings():
            start = self.initialise([tasks[t] for t in which], generator(seed, label, "start"))
            for name, value in start.items():
                key = f"{name}-{which[0]}" if self.separate else name
                self.learned[key] = value.to(clip.device).requires_grad_(True)

    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: Report) -> None:
        self.setup(clip, tasks, seed)
        steps = [
            self.params.epochs * steps_an_epoch(sum(len(tasks[t].labels) for t in which), self.params.batch)
            for which, _ in self._trainings()
        ]
        progress = Progress(report, sum(steps))
        for which, label in self._trainings():
            own = [p for name, p in self.learned.items() if not self.separate or name.endswith(f"-{which[0]}")]
            train(own, self.gradients, self.tasks, which, self.params, generator(seed, label, "batches"), progress)

    def _trainings(self) -> list[tuple[list[int], str]]:
        """Tasks of each training, and the label its random numbers come from."""
        if self.separate:
            return [([t], task.name) for t, task in enumerate(self.tasks)]
        return [(list(range(len(self.tasks))), "all tasks")]

    @torch.no_grad()
    def predict(self, task: int, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        if class_names is None and task in self._text:
            text = self._text[task]
        else:
            names = self.tasks[task].class_names if class_names is None else class_names
            text = F.normalize(self.text_features([task], [names])[0], dim=-1)
            if class_names is None:
                self._text[task] = text
        return self.clip.scale * F.normalize(features.to(text.device), dim=-1) @ text.T

    @property
    def n_params(self) -> int:
        return sum(p.numel() for p in self.learned.values())
