"""Methods that learn prompts by gradient descent through the frozen text tower: what they share.

A subclass says which tensors it starts from (`initialise`) and which context vectors they make for a task's class
names (`contexts`). One that scores images otherwise overrides `scores`; one with another loss, `loss`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from inspect import getattr_static
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip.text import POSITIONS, Position, Prompts
from bench.errors import UserError
from bench.methods.base import Clip, Fit, Method, Names, ProgressCallback, TaskData, check_shapes, generator, param
from bench.methods.log import Log
from bench.methods.training import (
    Batch,
    Progress,
    Recipe,
    Training,
    batches,
    joint_cross_entropy,
    sgd,
    steps_of,
    train,
)
from bench.progress import count

# Prompts (`weight` a class name) that trainings side by side encode in one step, at most: bounds the memory. With
# RN50's text tower, float32, a name after a shared context keeps 1.6 MB for the gradients, one with its own 6.3 MB.
SIDE_BY_SIDE = {"cpu": 1500, "cuda": 6000}

LENT = ("mean", "nearest")  # whose contexts serve an unseen task in place of its own

Step = tuple[Any, Batch]
"""A batch, and the method that trains on it."""


@dataclass(frozen=True)
class PromptParams(Recipe):
    """The recipe, and what every learned prompt has."""

    context: int = param(16, "class-context length L", minimum=1)
    words: str = param("", "start from these words' embeddings (as many tokens as `context`) instead of noise")
    position: Position = param("end", "where the class name goes: end, middle or front", choices=POSITIONS)
    unseen: Literal["own", "mean", "nearest"] = param(
        "own",
        "an unseen task's context: its own, where the method makes one; the mean of the trained tasks'; or that of the "
        "trained task with the most similar name",
        choices=("own", *LENT),
        later=True,
    )


class PromptMethod(Method):
    """Learned prompts: trained on all tasks together, or (`separate`) on each task alone.

    Attributes
    ----------
    separate : each task is a training of its own. paired : each class has its own context.
    weighs_images : `gradients` of its own count images by the batch's weights, as those from `losses` do.
    at_once : images that `predict` scores at a time.
    learned : the parameters, by name. Trained separately, each task has its own, named "<name>-<index>".
    logs : of each training, by its task's name, or "all".
    host : of a guest, which serves one unseen task, the method that was trained; its `learned` is the host's.
    """

    separate = False
    paired = False
    weighs_images = False
    at_once = 8192
    host: PromptMethod | None = None
    Params = PromptParams

    @property
    def weight(self) -> int:
        """What a class name takes of a step's memory, in names that share their context."""
        return 4 if self.paired else 1

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        read = [(f"{task.task_name}.", 0)] if params.unseen == "nearest" else []
        return [*((f"{name}.", params.context) for name in task.class_names), *read]

    @classmethod
    def refuses_unseen(cls, params: Any) -> str:
        """As of `Method`; where trained tasks' contexts are to serve (`unseen`), why they cannot."""
        if params.unseen != "own":
            return cls.not_lent(params.unseen)
        why, lent = super().refuses_unseen(params), [how for how in LENT if not cls.not_lent(how)]
        return f"{why} (unseen={' or '.join(lent)} takes what trained tasks learned)" if why and lent else why

    @classmethod
    def not_lent(cls, how: str) -> str:
        """Why trained tasks' contexts cannot serve an unseen task in one of the ways `LENT`; "" where they can."""
        if how == "mean" and (cls.predict is not PromptMethod.predict or cls.shifted is not PromptMethod.shifted):
            return "unseen=mean: it learns more than contexts for each task; unseen=nearest takes all of it"
        return cls.no_new_classes

    @abstractmethod
    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        """Start values for tasks that are trained together."""

    @abstractmethod
    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        """Context vectors that precede each task's class names, differentiable.

        [P, L, w] each: every context goes with every name; or (`paired`) [C, L, w], one per name.
        """

    def task_prompts(self, tasks: Sequence[int]) -> Prompts | None:
        """What the features that tell tasks apart are read from, one prompt a task; None where there are none."""
        return None

    def contexts_used(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        """`contexts`; with `unseen=mean`, a guest has the mean of those of the trained tasks, vector by vector."""
        if self.host is None or self.params.unseen != "mean":
            return self.contexts(tasks, names)
        every = range(len(self.host.tasks))
        return [torch.stack(self.host.contexts(every, [own] * len(every))).mean(dim=0) for own in names]

    def prompts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Prompts]:
        """What the tower reads for each task's class names.

        A method whose prompts depend on the image has none: it overrides `losses` and `predict`.
        """
        pairs = zip(self.contexts_used(tasks, names), names, strict=True)
        return [Prompts(context, own, self.paired) for context, own in pairs]

    def shifted(self, tasks: Sequence[int], encoded: Sequence[Tensor]) -> Sequence[Tensor]:
        """The text features that are normalised, from `prompts` as encoded: a method may learn what to add to them."""
        return encoded

    def normalised(self, encoded: Sequence[Tensor], names: Sequence[Sequence[str]]) -> list[Tensor]:
        """[C, d] for each task's class names ([P, C, d] with several contexts), from `shifted`."""
        return [F.normalize(f[0] if len(f) == 1 and not self.paired else f, dim=-1) for f in encoded]

    def text_features(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        """Normalised text features of each task's class names, differentiable."""
        encoded = self.clip.tower.encode(self.prompts(tasks, names), self.params.position)
        return self.normalised(self.shifted(tasks, encoded), names)

    def scores(self, features: Tensor, text: Tensor) -> Tensor:
        """[B, C] = τ · cosine of normalised image features [B, d] and a task's (or several tasks') text features."""
        return self.clip.scale * features @ text.T

    def start_context(self, n: int, rng: torch.Generator) -> Tensor:
        """n contexts [n, L, w]: the embeddings of `words`, or noise."""
        p = self.params
        if not p.words:
            return torch.randn(n, p.context, self.clip.tower.width, generator=rng) * p.init_std
        return self.word_context(p.words).expand(n, -1, -1).clone()

    def word_context(self, words: str) -> Tensor:
        """A context [L, w] that starts as these words."""
        vectors, length = self.clip.tower.word_vectors(words).cpu(), self.params.context
        if len(vectors) != length:
            tokens = count(len(vectors), "token")
            raise UserError(f"words={words!r} are {tokens}, context={length}: make them equal")
        return vectors

    def rows(self, values: Tensor, which: Sequence[int]) -> Tensor:
        """Some rows of a tensor; unlike `values[list]`, the host does not wait for the device."""
        return values.index_select(0, torch.tensor(which).to(values.device, non_blocking=True))

    def part(self, name: str, task: int) -> Tensor:
        """The parameter that serves a task."""
        return self.learned[f"{name}-{task}" if self.separate else name]

    def loss(self, batch: Batch, text: Sequence[Tensor]) -> Tensor:
        """Joint cross-entropy; `text` are the features of the batch's tasks, in the order of `batch.present`."""
        return joint_cross_entropy(self.scores(batch.features, torch.cat(list(text))), batch, [len(f) for f in text])

    def scored(self, batch: Batch) -> tuple[Batch, list[Sequence[str]]]:
        """A batch, and the class names that it is scored among, by task; tasks without an image are left out."""
        return batch, [self.tasks[t].class_names for t in batch.present]

    @classmethod
    def encoded(cls, together: Sequence[Step]) -> Iterator[tuple[Any, Batch, list[Tensor]]]:
        """Method, batch and text features of each step: one call of the tower for all of them."""
        first = together[0][0]
        scored = [(method, *method.scored(batch)) for method, batch in together]
        prompts = [method.prompts(batch.present, names) for method, batch, names in scored]
        features = iter(first.clip.tower.encode([p for own in prompts for p in own], first.params.position))
        for (method, batch, names), (_, given), own in zip(scored, together, prompts, strict=True):
            noted = batch if batch is given else replace(batch, log=given.log, weights=given.weights)
            text = method.shifted(batch.present, list(islice(features, len(own))))
            yield method, noted, method.normalised(text, names)

    @classmethod
    def losses(cls, together: Sequence[Step]) -> list[Tensor]:
        """The loss of each step; each is of another training."""
        return [method.loss(batch, text) for method, batch, text in cls.encoded(together)]

    @classmethod
    def gradients(cls, together: Sequence[Step]) -> None:
        """Put the steps' gradients into the parameters' `.grad`."""
        torch.stack(cls.losses(together)).sum().backward()

    def know(self, clip: Clip, tasks: Sequence[TaskData]) -> None:
        """Take these tasks for one's own, by their names alone: whatever is computed from names once starts here."""
        self.clip, self.tasks = clip, list(tasks)
        self._text: dict[tuple[int, tuple[str, ...]], Tensor] = {}  # by task and class names
        self._guests: dict[tuple[object, ...], PromptMethod] = {}  # for unseen tasks, by their names and places
        self._named: Tensor | None = None  # features of the tasks' names, once `nearest` has asked

    def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
        """Make the parameters at their start values; alone, a task gets the values it would get among others."""
        if self.separate and self.params.draws_tasks:
            raise UserError("task_temperature, tasks_a_step: these are of tasks that are trained together, not alone")
        own_gradients = getattr_static(type(self), "gradients") is not vars(PromptMethod)["gradients"]
        if self.params.tasks_a_step and own_gradients and not self.weighs_images:
            raise UserError(f"tasks_a_step: {self.name} makes gradients of its own, in which all images count alike")
        self.know(clip, tasks)
        self.learned: dict[str, Tensor] = {}
        self.logs: dict[str, Log] = {}
        for which in self.trainings():
            start = self.initialise([tasks[t] for t in which], generator(seed, self._label(which), "start"))
            for name, value in start.items():
                key = f"{name}-{which[0]}" if self.separate else name
                self.learned[key] = value.to(clip.device).requires_grad_(True)

    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
        self._fit_side_by_side([(self, tasks, seed)], clip, report)

    @classmethod
    def fit_together(cls, fits: Sequence[Fit], clip: Clip, report: ProgressCallback) -> None:
        alike = cls.fit is PromptMethod.fit  # a subclass with a `fit` of its own keeps it
        (cls._fit_side_by_side if alike else super().fit_together)(fits, clip, report)

    @classmethod
    def _fit_side_by_side(cls, fits: Sequence[Fit], clip: Clip, report: ProgressCallback) -> None:
        for method, tasks, seed in fits:
            method.setup(clip, tasks, seed)
        every = [(method, which, seed) for method, _, seed in fits for which in method.trainings()]
        groups = _side_by_side(every, SIDE_BY_SIDE["cuda" if clip.device.type == "cuda" else "cpu"])
        first = fits[0][0]
        recipe = first.params
        steps = [max(steps_of(m.n_images(which), recipe) for m, which, _ in group) for group in groups]
        progress = Progress(report, recipe.epochs * sum(steps))
        methods = [method for method, _, _ in fits]
        progress.done, state = first.checkpoint.resume() or (0, None)
        for i, group in enumerate(groups):
            done = progress.done - recipe.epochs * sum(steps[:i])  # of this group's steps, before a kill
            trainings = [m.training(which, seed, done) for m, which, seed in group]
            if state and i < state["group"]:
                continue
            optimiser = sgd(trainings, recipe)
            if state:
                optimiser.load_state_dict(state["optimiser"])
                for method, own in zip(methods, state["methods"], strict=True):
                    method._go_on_from(own)
                state = None

            def step(i: int = i, optimiser: torch.optim.SGD = optimiser) -> None:
                progress()
                if first.checkpoint.due:
                    now = {"group": i, "optimiser": optimiser.state_dict()}
                    first.checkpoint.save(progress.done, {**now, "methods": [m._progress() for m in methods]})

            train(trainings, first.gradients, recipe, optimiser, step)
        for method in methods:
            for log in method.logs.values():
                log.close()

    def _progress(self) -> dict[str, Any]:
        """All that the rest of a training follows from besides its seed, its steps so far and the optimiser.

        What training changes is in `learned`, in `logs`, and in random generators that are attributes.
        """
        own = {name: value.get_state() for name, value in vars(self).items() if isinstance(value, torch.Generator)}
        logs = {name: log.state() for name, log in self.logs.items()}
        return {"learned": self.learned, "logs": logs, "generators": own}

    def _go_on_from(self, state: Mapping[str, Any]) -> None:
        """Be as when `_progress` was asked."""
        with torch.no_grad():
            for name, value in state["learned"].items():
                self.learned[name].copy_(value)
        for name, log in state["logs"].items():
            self.logs[name].restore(log, self.clip.device)
        for name, value in state["generators"].items():
            getattr(self, name).set_state(value)

    def trainings(self) -> list[list[int]]:
        """The tasks of each training."""
        everything = list(range(len(self.tasks)))
        return [[t] for t in everything] if self.separate else [everything]

    def training(self, which: Sequence[int], seed: int, start: int = 0) -> Training:
        """The training of some tasks, without its first `start` steps."""
        own = [p for name, p in self.learned.items() if not self.separate or name.endswith(f"-{which[0]}")]
        rng = generator(seed, self._label(which), "batches")
        name, whose = (self.tasks[which[0]].name,) * 2 if self.separate else ("all", "all tasks")
        log = self.logs[name] = Log(f"{self.name}, {whose}", self.params.epochs)
        return Training(self, own, batches(self.tasks, which, self.params, rng, self.clip.device, log, start))

    def n_images(self, which: Sequence[int]) -> int:
        return sum(len(self.tasks[t].labels) for t in which)

    def _label(self, which: Sequence[int]) -> str:
        """What a training's random numbers come from, besides the seed."""
        return self.tasks[which[0]].name if self.separate else "all tasks"

    @torch.no_grad()
    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        t, names = self.place(task), tuple(task.class_names if class_names is None else class_names)
        if (t, names) not in self._text:
            (self._text[t, names],) = self.text_features([t], [names])
        text = self._text[t, names]
        chunks = features.split(self.at_once)
        scores = [self.scores(F.normalize(chunk.to(text.device), dim=-1), text) for chunk in chunks]
        return scores[0] if len(scores) == 1 else torch.cat(scores)

    def predict_new(self, task: TaskData, features: Tensor) -> Tensor:
        """As of `Method`: a guest, which knows the new task alone, makes its contexts with what was learned.

        Contexts that depend on the tasks that were trained on find these in `host`. With `unseen=nearest` the task is
        scored as new classes of a trained one.
        """
        if self.refuses_unseen(self.params):
            return super().predict_new(task, features)
        if self.params.unseen == "nearest":
            return self.predict(self.nearest(task.task_name), features, task.class_names)
        names = (task.name, task.task_name, task.class_names, task.path)
        if names not in self._guests:  # the last one alone is kept: a task's images come one after the other
            guest = copy(self)
            guest.host = self
            guest.know(self.clip, [task])
            self._guests = {names: guest}
        return self._guests[names].predict(task, features)

    def nearest(self, name: str) -> TaskData:
        """The trained task with the most similar name, by the cosine of the frozen text features of "<task name>.".

        Of tasks that have one name, and of names that are equally similar, the first.
        """
        names = list(dict.fromkeys(task.task_name for task in self.tasks))
        if self._named is None:
            self._named = F.normalize(self.clip.tower.encode_texts([f"{known}." for known in names]), dim=-1)
        (own,) = F.normalize(self.clip.tower.encode_texts([f"{name}."]), dim=-1)
        best = names[int((self._named @ own).argmax())]
        return next(task for task in self.tasks if task.task_name == best)

    @property
    def n_params(self) -> int:
        return sum(p.numel() for p in self.learned.values())

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        return {name: (log.loss, log.accuracy) for name, log in self.logs.items() if log.loss}

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu() for name, value in self.learned.items()}

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        self.setup(clip, tasks, seed=0)  # the names and shapes; the values are replaced
        check_shapes(self.name, {name: tuple(value.shape) for name, value in self.learned.items()}, state)
        self.learned = {name: state[name].to(clip.device, torch.float32) for name in self.learned}


def _side_by_side(every: list[tuple[Any, list[int], int]], most: int) -> list[list[tuple[Any, list[int], int]]]:
    """Trainings (method, tasks, seed) in groups that are trained in the same steps, of `most` prompts at most."""
    groups: list[list[tuple[Any, list[int], int]]] = [[]]
    n_prompts = 0
    for method, which, seed in every:
        own = method.weight * sum(len(method.tasks[t].class_names) for t in which)
        if groups[-1] and n_prompts + own > most:
            groups.append([])
            n_prompts = 0
        groups[-1].append((method, which, seed))
        n_prompts += own
    return groups
