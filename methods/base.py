"""What a method is, and what it is given: tensors and names, never files or the command line."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Protocol

import torch
from torch import Tensor

from bench.checkpoints import Checkpoint
from bench.errors import UserError, nearest
from bench.wording import sentences

if TYPE_CHECKING:
    from bench.clip.projection import Projection
    from bench.clip.text import TextTower

ProgressCallback = Callable[[int, int], None]
"""Progress: called with (steps done, steps in total)."""


class Clip(Protocol):
    """What methods see of a backbone: `bench.clip.backbone.Backbone` is one, a test's stub another."""

    @property
    def tower(self) -> TextTower: ...  # contexts and names -> text features
    @property
    def scale(self) -> float: ...  # τ = exp(logit_scale), frozen
    @property
    def embed_dim(self) -> int: ...  # d
    @property
    def projection(self) -> Projection: ...  # from "preproj" image features to "pooled" ones
    @property
    def device(self) -> torch.device: ...


@dataclass(frozen=True)
class TaskData:
    """One task's names and few-shot image features (raw: not normalised; float32).

    Attributes
    ----------
    name : the task. task_name : what it recognises, in words ("flower recognition").
    class_names : in label order, underscores already spaces.
    template, descriptions : what the hand-written prompts are made of: `template_features` encodes them.
    views : [V, n, d], training view v of the n few-shot images; epoch e uses view e mod V.
    labels : [n]. Classes may have different numbers of images (`counts`), also none.
    test_view, flip_view : [n, d], the test view of the same images, and its mirror image.
    asked : images of each class that the run asks for; 0: unknown.
    val : [m, d], the test view of the validation few-shot images (min(shots, 4) per class, unless the run says
        otherwise). val_labels : [m].
    path : the nodes above it in the suite's tree of tasks, from the top; () where the suite file gives none.
    new_names : classes that will be scored and are not trained on (base2new).

    `fit` is given what the method's `needs_of` names, the rest is empty. With `image = "local"` every feature is
    a set of P local ones: [..., P, d]; with "preproj" it is what stands before the image tower's projection: [..., c].
    """

    name: str
    task_name: str
    class_names: tuple[str, ...]
    template: str | tuple[str, ...]
    views: Tensor
    labels: Tensor
    test_view: Tensor = field(default_factory=lambda: torch.zeros(0))
    val: Tensor = field(default_factory=lambda: torch.zeros(0))
    val_labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    descriptions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    flip_view: Tensor = field(default_factory=lambda: torch.zeros(0))
    asked: int = 0
    new_names: tuple[str, ...] = ()
    path: tuple[str, ...] = ()

    @property
    def counts(self) -> Tensor:
        """[C], how many few-shot images each class has."""
        return torch.bincount(self.labels, minlength=len(self.class_names))

    @property
    def shots(self) -> int:
        """K: what the run asks for, whatever single classes have; else what the largest class has, at least 1."""
        return self.asked or max(1, int(self.counts.max()))


class Names(Protocol):
    """A task's names: a `TaskData` has them, and a suite's task whose images were not opened yet."""

    @property
    def name(self) -> str: ...
    @property
    def task_name(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def template(self) -> str | tuple[str, ...]: ...
    @property
    def descriptions(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def path(self) -> tuple[str, ...]: ...


Fit = tuple[Any, Sequence[TaskData], int]
"""A method, the few-shot sets it is to learn from, and its seed."""


def param(
    default: Any,
    help: str,
    minimum: float | None = None,
    choices: Sequence[Any] = (),
    by_task: bool = False,
    maximum: float | None = None,
    later: bool = False,
) -> Any:
    """A field of a method's `Params`.

    Parameters
    ----------
    help : what `python -m bench explain` says of it. minimum, maximum, choices : the values `Parameters` lets through;
        infinity only as the maximum.
    by_task : a recipe may give tasks values of their own; the method reads it through `params_of`.
    later : the parameter is younger than finished cells: at its default it is no part of a cell's key.
    """
    bounds = {"minimum": minimum, "choices": tuple(choices), "maximum": maximum}
    return field(default=default, metadata={"help": help, "by_task": by_task, "later": later, **bounds})


@dataclass(frozen=True)
class Parameters:
    """Base of methods' parameters; alone, of a method without any.

    Raises
    ------
    UserError : a value below its `minimum` or above its `maximum`, not finite, or not among its `choices`.
    """

    def __post_init__(self) -> None:
        for f in fields(self):
            value, minimum, choices = getattr(self, f.name), f.metadata.get("minimum"), f.metadata.get("choices")
            maximum = f.metadata.get("maximum")
            if minimum is not None and not (minimum <= value < math.inf or value == maximum):
                bound = "not negative and finite" if minimum == 0 else f"at least {minimum:g}"
                raise UserError(f"{f.name}={value}: {bound}")
            if maximum is not None and value > maximum:
                raise UserError(f"{f.name}={value}: at most {maximum:g}")
            if choices and value not in choices:
                raise UserError(f"{f.name}={value!r}: one of {', '.join(map(str, choices))}")


@dataclass(frozen=True)
class Choice:
    """What a method's search on the few-shot validation images chose for one task.

    values : by parameter. accuracy : percent of the `images` validation images that are right with them.
    tried : settings that were compared. ties : how many of the others are as accurate.
    """

    values: Mapping[str, float]
    accuracy: float
    images: int
    tried: int
    ties: int


@dataclass(frozen=True)
class Searching(Parameters):
    """What methods have that may choose some of their values on the few-shot validation images."""

    search: Literal["none", "val"] = param(
        "none", "val: choose on the few-shot validation images (--val-shots)", choices=("none", "val")
    )


def check_labels(name: str, task: str, labels: Tensor, n_classes: int) -> None:
    """Refuse a `state`'s labels that are not those of a task with so many classes."""
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise UserError(f"not {name}'s parameters for these tasks: its labels of {task} are not of {n_classes} classes")


class Method(ABC):
    """A method: parameters in a dataclass, `fit` on the few-shot features of all tasks, `predict` for one.

    `fit` and `restore` keep the tasks in `tasks`, so that `place` finds what was learned for one.

    Class attributes
    ----------------
    name : what the command line calls it.
    Params : dataclass of its parameters with their defaults, made with `param`.
    trains : False when nothing depends on shots and seed (one cell instead of a grid).
    needs : which few-shot features `fit` reads: "views", "test_view", "flip_view", "val"; or
        "new_names"; see `needs_of`.
    own_views : training views of each image where the run does not say; None: one an epoch.
    common_recipe : whether what recipes say of "all" methods is for this one, too; `-o all.…` always is.
    image : "pooled" features, "local" ones, or "preproj": before the projection that is `clip.projection`.
    order : place in the paper's table. source : where the method comes from.
    footnote : what a reader of a table must know of this row, or "".
    no_new_classes : why it cannot score classes that it was not trained on, or "" where it can.
    unseen : why it cannot score a task that it was not trained on, or "" where the task's names are enough.
    reads_names : False where a class is known by its images alone, whatever it is called.
    reads_path : True where a task's place in the suite's tree counts; it is then part of a cell's key.
    controls : parameters of which every value but the default makes a control of the method; `--controls` leaves these.
    searched : parameters that `search=val` replaces before they count.
    task_kernel : K in words, where a step mixes the gradients of tasks' contexts by it (`bench/kernels.py`), or "".
    """

    name: ClassVar[str] = ""
    trains: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"views"})
    own_views: ClassVar[int | None] = None
    common_recipe: ClassVar[bool] = True
    image: ClassVar[str] = "pooled"
    order: ClassVar[int] = 100
    source: ClassVar[str] = ""
    footnote: ClassVar[str] = ""
    no_new_classes: ClassVar[str] = ""
    unseen: ClassVar[str] = "what it learns belongs to the tasks that it is trained on"
    reads_names: ClassVar[bool] = True
    reads_path: ClassVar[bool] = False
    controls: ClassVar[tuple[str, ...]] = ()
    searched: ClassVar[frozenset[str]] = frozenset()
    task_kernel: ClassVar[str] = ""

    Params: ClassVar[Any] = Parameters
    tasks: Sequence[TaskData]  # set by `fit` and `restore`
    checkpoint = Checkpoint()  # set before `fit` where a long training is to go on after a kill
    by_task: Mapping[str, Any] = MappingProxyType({})  # parameters of tasks whose own differ, by the task's name

    def __init__(self, params: Any = None) -> None:
        self.params: Any = self.Params() if params is None else params

    def params_of(self, task: Names) -> Any:
        """A task's parameters: the method's, or what a recipe gives this task."""
        return self.by_task.get(task.name, self.params)

    @classmethod
    def needs_of(cls, params: Any) -> frozenset[str]:
        """`needs` with these parameters: one that searches (`Searching`) reads the validation images, too."""
        return cls.needs | ({"val"} if getattr(params, "search", "none") == "val" else set())

    @classmethod
    def unseen_of(cls, params: Any) -> str:
        """`unseen` with these parameters: a parameter may open what is closed by default, or close it."""
        return cls.unseen

    @classmethod
    def refuses_unseen(cls, params: Any) -> str:
        """Why `predict_new` refuses, or "": by `unseen_of`, unless what trained tasks have learned serves instead."""
        return cls.unseen_of(params)

    @abstractmethod
    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
        """Learn from all tasks' few-shot features; everything random follows from `seed`."""

    @classmethod
    def fit_together(cls, fits: Sequence[Fit], clip: Clip, report: ProgressCallback) -> None:
        """Fit several methods of this class, of the same parameters.

        Each learns what it would learn alone, up to the rounding of sums. Here they go one after the other.
        """
        for k, (method, tasks, seed) in enumerate(fits):
            method.fit(clip, tasks, seed, lambda done, total, k=k: report(k * total + done, len(fits) * total))

    @abstractmethod
    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        """Scores [n, C] of raw image features [n, d] for a task, of which the names alone count.

        class_names : score these instead of the task's own classes (unseen classes; base-to-new).
        """

    def predict_new(self, task: TaskData, features: Tensor) -> Tensor:
        """Scores [n, C] for a task that the method was not trained on: its names are all that is known of it.

        Raises
        ------
        UserError : the method refuses it with its parameters.
        """
        if why := self.refuses_unseen(self.params):
            raise UserError(f"{self.name} cannot score task {task.name!r}, which it was not trained on: {why}")
        return self.predict(task, features)

    def place(self, task: TaskData) -> int:
        """A task's place among those in `self.tasks`, which `fit` was given; a task is known by its name.

        Raises
        ------
        UserError : the method was not trained on it.
        """
        names = [known.name for known in self.tasks]
        if task.name not in names:
            raise UserError(f"{self.name} was not trained on task {task.name!r}; {nearest(task.name, names)}")
        return names.index(task.name)

    @classmethod
    def refuse_new_classes(cls) -> NoReturn:
        """For `predict` of a method with `no_new_classes`."""
        raise UserError(f"{cls.name} cannot score classes that it was not trained on: {cls.no_new_classes}")

    @property
    def notes(self) -> str:
        """`footnote`, and what depends on the parameters."""
        return self.footnote

    @property
    def n_params(self) -> int:
        """How many numbers were learned."""
        return 0

    @classmethod
    def trainings_of(cls, params: Any) -> int:
        """How often `fit` trains for a task at most: more than once where a search trains each of its settings."""
        return 1

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        """What the text tower will read of a task: each text, and how many context vectors stand with it.

        Read before anything is encoded, so that a text that is too long is reported first; [] where nothing is read.
        """
        if not cls.reads_names:
            return []
        return [(sentence, 0) for name in task.class_names for sentence in sentences(task, name)]

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        """Of each training, by its task's name (or "all"): mean loss and accuracy (percent) of each epoch; see `Log`.

        {} where nothing is trained in epochs.
        """
        return {}

    def chosen(self) -> dict[str, Choice]:
        """What `fit` chose on validation images, by the task's name; {} where it chose nothing."""
        return {}

    def facts(self) -> dict[str, float]:
        """Numbers that say what was learned, by what they are; a record keeps them. {} of most methods."""
        return {}

    def state(self) -> dict[str, Tensor] | None:
        """What was learned, by name, as `restore` takes it; None: this method keeps nothing."""
        return None

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        """Be as after `fit`, from a `state` and the tasks' names alone (their features may be empty).

        Raises
        ------
        UserError : the state is not one of this method for these tasks.
        """
        raise UserError(f"{self.name} does not keep what it has learned")


def check_scores(scores: Any, method: str, task: str, n_images: int, n_classes: int) -> Tensor:
    """What a method's `predict` returned, where it is scores of that many images and classes.

    Raises
    ------
    UserError : not scores [n_images, n_classes], or not finite.
    """
    is_tensor = isinstance(scores, Tensor)
    if not is_tensor or tuple(scores.shape) != (n_images, n_classes) or not scores.is_floating_point():
        kind = f"{scores.dtype} {list(scores.shape)}" if is_tensor else f"a {type(scores).__name__}"
        wanted = f"a floating-point tensor [{n_images}, {n_classes}] (images, classes)"
        raise UserError(f"{method}, task {task}: predict returned {kind}; expected {wanted}")
    if not scores.amax(dim=1).isfinite().all():  # not a number is the largest of all: it would make an accuracy, too
        raise UserError(f"{method}, task {task}: scores are not finite; did the training diverge?")
    return scores


def check_shapes(name: str, wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> None:
    """Refuse a `state` whose tensors are not those wanted."""
    given = {key: tuple(value.shape) for key, value in state.items()}
    for key in sorted({*wanted, *given}):
        if wanted.get(key) != given.get(key):
            raise UserError(
                f"not {name}'s parameters for these tasks: {key} is {given.get(key, 'missing')}, "
                f"expected {wanted.get(key, 'nothing of that name')}"
            )


def generator(*what: Any) -> torch.Generator:
    """A CPU generator that is a function of its arguments, so that tasks, seeds and uses never share a stream."""
    digest = hashlib.blake2b("/".join(map(str, what)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") % 2**63)
