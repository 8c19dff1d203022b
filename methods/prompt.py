"""Methods that learn prompts by gradient descent through the frozen text tower: what they share.

A subclass says which tensors it starts from (`initialise`) and which context vectors they make for a task's class
names (`contexts`). One that scores images otherwise overrides `scores`; one with another loss, `loss`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, Method, Report, TaskData, check_shapes, generator, param
from bench.methods.training import (
    Batch,
    Progress,
    Recipe,
    Training,
    batches,
    joint_cross_entropy,
    steps_an_epoch,
    train,
)
from bench.text import POSITIONS, Position, Prompts

SIDE_BY_SIDE = 1500  # class names that separate trainings encode in one step, at most: bounds the memory


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
    separate : each task is a training of its own. paired : each class has its own context.
    at_once : images that `predict` scores at a time.
    learned : the parameters, by name. Trained separately, each task has its own, named "<name>-<index>".
    """

    separate = False
    paired = False
    at_once = 8192
    Params = PromptParams

    @abstractmethod
    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        """Start values for tasks that are trained together."""

    @abstractmethod
    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        """Context vectors that stand before each task's class names, differentiable.

        [P, L, w] each: every context goes with every name; or (`paired`) [C, L, w], one a name.
        """

    def text_features(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        """[C, d] for each task's class names ([P, C, d] with several contexts), normalised, differentiable.

        A method whose prompts depend on the image has none: it overrides `losses` and `predict`.
        """
        pairs = zip(self.contexts(tasks, names), names, strict=True)
        prompts = [Prompts(context, own, self.paired) for context, own in pairs]
        features = self.clip.tower.encode(prompts, self.params.position)
        return [F.normalize(f[0] if len(f) == 1 and not self.paired else f, dim=-1) for f in features]

    def scores(self, features: Tensor, text: Tensor) -> Tensor:
        """[B, C] = τ · cosine of normalised image features [B, d] and a task's (or several tasks') text features."""
        return self.clip.scale * features @ text.T

    def start_context(self, n: int, rng: torch.Generator) -> Tensor:
        """n contexts [n, L, w]: the embeddings of `words`, or noise."""
        p, tower = self.params, self.clip.tower
        if not p.words:
            return torch.randn(n, p.context, tower.width, generator=rng) * p.init_std
        vectors = tower.word_vectors(p.words).cpu()  # L, w
        if len(vectors) != p.context:
            raise UserError(f"words={p.words!r} are {len(vectors)} tokens, context={p.context}: make them equal")
        return vectors.expand(n, -1, -1).clone()

    def rows(self, values: Tensor, which: Sequence[int]) -> Tensor:
        """Some rows of a tensor; unlike `values[list]`, the host does not wait for the device."""
        return values.index_select(0, torch.tensor(which).to(values.device, non_blocking=True))

    def part(self, name: str, task: int) -> Tensor:
        """The parameter that serves a task."""
        return self.learned[f"{name}-{task}" if self.separate else name]

    def loss(self, batch: Batch, text: Sequence[Tensor]) -> Tensor:
        """Joint cross-entropy; `text` are the features of the batch's tasks, in the order of `batch.present`."""
        return joint_cross_entropy(self.scores(batch.features, torch.cat(list(text))), batch, [len(f) for f in text])

    def encoded(self, together: Sequence[Batch]) -> Iterator[tuple[Batch, list[Tensor]]]:
        """Batches with their tasks' text features: one call of the tower; tasks without an image are left out."""
        present = [t for batch in together for t in batch.present]
        text = iter(self.text_features(present, [self.tasks[t].class_names for t in present]))
        return ((batch, list(islice(text, len(batch.present)))) for batch in together)

    def losses(self, together: Sequence[Batch]) -> list[Tensor]:
        """The loss of each batch; each is of another training."""
        return [self.loss(batch, text) for batch, text in self.encoded(together)]

    def gradients(self, together: Sequence[Batch]) -> None:
        """Put the step's gradients into the parameters' `.grad`."""
        torch.stack(self.losses(together)).sum().backward()

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
        groups = self._side_by_side()
        recipe = self.params
        steps = [
            max(steps_an_epoch(sum(len(tasks[t].labels) for t in which), recipe.batch) for which, _ in group)
            for group in groups
        ]
        progress = Progress(report, recipe.epochs * sum(steps))
        for group in groups:
            trainings = [
                Training(
                    [p for name, p in self.learned.items() if not self.separate or name.endswith(f"-{which[0]}")],
                    batches(self.tasks, which, recipe, generator(seed, label, "batches"), clip.device),
                )
                for which, label in group
            ]
            train(trainings, self.gradients, recipe, progress)

    def _trainings(self) -> list[tuple[list[int], str]]:
        """Tasks of each training, and the label its random numbers come from."""
        if self.separate:
            return [([t], task.name) for t, task in enumerate(self.tasks)]
        return [(list(range(len(self.tasks))), "all tasks")]

    def _side_by_side(self) -> list[list[tuple[list[int], str]]]:
        """The trainings, in groups that are trained in the same steps."""
        groups: list[list[tuple[list[int], str]]] = [[]]
        n_names = 0
        for training in self._trainings():
            own = sum(len(self.tasks[t].class_names) for t in training[0])
            if groups[-1] and n_names + own > SIDE_BY_SIDE:
                groups.append([])
                n_names = 0
            groups[-1].append(training)
            n_names += own
        return groups

    @torch.no_grad()
    def predict(self, task: int, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        if class_names is not None:
            (text,) = self.text_features([task], [class_names])
        else:
            if task not in self._text:
                (self._text[task],) = self.text_features([task], [self.tasks[task].class_names])
            text = self._text[task]
        chunks = F.normalize(features.to(text.device), dim=-1).split(self.at_once)
        return torch.cat([self.scores(chunk, text) for chunk in chunks])

    @property
    def n_params(self) -> int:
        return sum(p.numel() for p in self.learned.values())

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu() for name, value in self.learned.items()}

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        self.setup(clip, tasks, seed=0)  # the names and shapes; the values are replaced
        check_shapes(self.name, {name: tuple(value.shape) for name, value in self.learned.items()}, state)
        self.learned = {name: state[name].to(clip.device, torch.float32) for name in self.learned}
