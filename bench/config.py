"""What a run is: `RunConfig`, the one definition of its settings.

The command line's options, `bench.run`'s arguments, the keys of an experiment file and what a record keeps of a run are
all made from these fields. A new setting is one field here, and the code that reads it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from bench.datasets.fewshot import DRAWN, VAL_SHOTS
from bench.devices import check_device
from bench.errors import UserError, nearest
from bench.files import NO_TEXT, is_text, user_path
from bench.options import bytes_of, names, numbers, option_texts
from bench.track import check_tracker

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
Names = str | Sequence[str]
Numbers = int | Sequence[int]
ALIASES = {"tasks": "--task", "methods": "--method", "shots": "--shot", "seeds": "--seed"}  # one of what may be several
# What a record does not keep of its run: places, and what divides its work but changes no number.
NOT_RECORDED = ("data", "results", "quiet", "track", "retry_failed", "jobs", "backend", "address", "cells_per_gpu",
                "shard")  # fmt: skip
ACROSS = "suite-to-suite"  # the protocol that takes a `target`
FILES = (".yaml", ".yml", ".json", ".safetensors", ".pt")


def setting(
    default: Any,
    help: str,
    group: str,
    *,
    metavar: str | None = None,
    option: str | None = None,
    choices: Sequence[str] = (),
    minimum: int | None = None,
    path: str = "",
    named: Sequence[str] = (),
) -> Any:
    """A field of a run or a report.

    Parameters
    ----------
    option : its option, where that is not the field's name: "-o", or "--discard" for a switch that turns it off.
    choices, minimum : what is allowed. path : "always" a file or folder, or "maybe", where it may be a name.
    named : values that are names all the same.
    """
    about = {"help": help, "group": group, "metavar": metavar, "option": option}
    values = {"choices": choices, "minimum": minimum, "path": path, "named": named}
    return field(default=default, metadata={**about, **values})


@dataclass(frozen=True)
class Settings:
    """What a command takes: fields made by `setting`, checked when it is made."""

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _checked(f, getattr(self, f.name)))


@dataclass(frozen=True)
class RunConfig(Settings):
    """The settings of a run. Lists are given as lists, as texts with commas, or as a single value.

    Raises
    ------
    UserError : a value that no run can have. Whether names exist is checked when the run is planned.
    """

    suite: str | None = setting(
        None, "a suite's name, or a suite file's path (default: demo)", "what to run", metavar="NAME|FILE", path="maybe"
    )
    tasks: Names | None = setting(None, "some of the suite's tasks (default: all)", "what to run", metavar="TASK")
    methods: Names = setting(
        ("zero-shot", "coop", "shared-coop", "softcpt"),
        "names, package.module:Class, or all (default: %(default)s)",
        "what to run",
        metavar="METHOD",
    )
    shots: Numbers = setting(
        (1, 2, 4, 8, 16), "training images per class (default: %(default)s)", "what to run", metavar="N", minimum=1
    )
    seeds: Numbers = setting(
        (1, 2, 3), "of the few-shot draws (default: %(default)s)", "what to run", metavar="N", minimum=0
    )
    options: Names = setting(
        (),
        "set a method's parameter (all.PARAMETER: that of every method that has it). Values separated by commas are "
        "run one by one; a value that contains commas goes in double quotes",
        "what to run",
        metavar="METHOD.PARAMETER=VALUE",
        option="-o",
    )
    protocol: str = setting(
        "few-shot",
        "few-shot; base2new: train on half of each task's classes, test on both halves; unseen-task: train on the "
        "other tasks, test each on its names alone (unseen-task:4: in four folds of tasks); source-task:TASK: train on "
        "that task, test all others on their names alone; suite-to-suite: train on this suite, so test those of "
        "--target; or imbalanced: as many images, but of each class by its share of the data (imbalanced:10: of one "
        "class ten times as many as of another) (default: %(default)s)",
        "what to run",
        metavar="NAME",
    )
    target: str | None = setting(
        None,
        "the suite to test what was trained on this one, with --protocol suite-to-suite; of its tasks those that this "
        "suite has, too, are left out",
        "what to run",
        metavar="NAME|FILE",
        path="maybe",
    )
    controls: bool = setting(
        False,
        "add the rows without which a gain by tasks' names says nothing: zero-shot with the tasks' own templates and "
        "with 'a photo of a {}.', shared-coop-matched, and each method that reads tasks' names once more, trained with "
        "these names exchanged among the tasks",
        "what to run",
    )
    train_tasks: Numbers | None = setting(
        None,
        "with unseen-task and the like: train on so many of the tasks, once for each number; all score the same tasks, "
        "so that the report can draw a learning curve (default: on all; -o all.epoch_steps=N gives every number of "
        "tasks the same number of steps)",
        "what to run",
        metavar="N",
        minimum=1,
    )
    score_tasks: int | None = setting(
        None,
        "where tasks are many: score a fixed sample of so many of them (default: all)",
        "what to run",
        metavar="N",
        minimum=1,
    )
    data: str | Path | None = setting(
        None, "the folder that holds the data sets (default: $BENCH_DATA)", "on what", metavar="ROOT", path="always"
    )
    allow_missing: bool = setting(
        False, "leave out tasks whose data is missing, and use what there is of those that are incomplete", "on what"
    )
    task_names: int = setting(
        1,
        "which of a task's names to use, where the suite file gives several (SoftCPT reads them; default: %(default)s, "
        "the first)",
        "on what",
        metavar="K",
        minimum=1,
    )
    draws: str | Path | None = setting(
        None,
        "coop: few-shot images as CoOp's code draws them; or a folder of files that fix them, "
        "DIR/TASK/shot_16-seed_1.json (default: nested, the bench's own: 8 shots are part of 16)",
        "on what",
        metavar="coop|DIR",
        path="always",
        named=DRAWN,
    )
    val_shots: int = setting(
        VAL_SHOTS,
        "few-shot validation images per class at most, and never more than shots; what is chosen with search=val is "
        "chosen on them (default: %(default)s)",
        "on what",
        metavar="N",
        minimum=1,
    )
    backbone: str | None = setting(
        None,
        "an open_clip model's name (`list backbones` marks those not supported) or a model JSON (default: the suite's "
        "own, or RN50)",
        "on what",
        metavar="NAME|JSON",
        path="maybe",
    )
    pretrained: str | None = setting(
        None,
        "an open_clip tag, or a .safetensors file (default: openai for RN50, RN101, ViT-B-32 and ViT-B-16; for a JSON "
        "the .safetensors beside it)",
        "on what",
        metavar="TAG|FILE",
        path="maybe",
    )
    recipe: str | None = setting(
        None,
        "values for the methods' parameters: paper (SoftCPT's shared recipe for learned prompts, a fresh view each "
        "epoch), softcpt-public (the loop of its public code), authors (what methods' authors published), or a YAML "
        "file of your own (default: the suite's recipe if it has one, else each method's defaults)",
        "how",
        metavar="NAME|FILE",
        path="maybe",
    )
    views: int | None = setting(
        None,
        "training views per image (default: one for each epoch, unless the suite, the recipe or the method says "
        "otherwise)",
        "how",
        metavar="N",
        minimum=1,
    )
    device: str = setting(
        "auto",
        "cpu, cuda, cuda:N or mps; auto: cuda where there is one, else cpu. mps, Apple's GPU, is taken only when asked "
        "for: how close its results are to the CPU's was not measured (default: %(default)s)",
        "how",
        metavar="NAME",
    )
    precision: Literal["float32", "bfloat16"] = setting(
        "float32",
        "of the backbone's towers; bfloat16 is faster where the hardware has it (default: %(default)s)",
        "how",
        choices=("float32", "bfloat16"),
    )
    results: str | Path = setting(
        "runs", "where the records go (default: %(default)s)", "how", metavar="DIR", path="always"
    )
    keep: bool = setting(
        True,
        "keep only records: neither what was learned (SoftCPT's takes 34 MB per cell with RN50), which `words` and "
        "`predict` need, nor each test image's predicted class and confidence (about 10 bytes an image), which "
        "`predictions`, calibration and comparisons over images need",
        "how",
        option="--discard",
    )
    seeds_at_once: bool = setting(
        False,
        "train the seeds of a cell side by side: faster on GPUs, where small steps wait for each other. Results are "
        "equal up to the rounding of sums; a kill loses all seeds of the cell in progress",
        "how",
    )
    cell_timeout: int | None = setting(
        None,
        "a cell whose training and test take longer fails, and the run goes on with the next one (default: no limit; "
        "the encoding of images is not counted)",
        "how",
        metavar="SECONDS",
        minimum=1,
    )
    checkpoint_every: int = setting(
        60,
        "how often to save the state of a long training: after a kill the same command goes on from there, with the "
        "same result to the last bit on the same machine. 0: never, a kill loses the cell in progress (default: "
        "%(default)s)",
        "how",
        metavar="SECONDS",
        minimum=0,
    )
    memory_limit: str | None = setting(
        None,
        "such as 4GB: cells that are estimated to take more memory (on a GPU, its memory) fail before they start; "
        "`--dry-run` shows the estimates",
        "how",
        metavar="SIZE",
    )
    fail_fast: bool = setting(
        False, "stop at the first cell that fails; bench.run raises CellFailed instead of warning at the end", "how"
    )
    retry_failed: bool = setting(
        True,
        "leave cells that failed in an earlier run as they are (default: --retry-failed, they run again)",
        "how",
        option="--no-retry-failed",
    )
    jobs: int | None = setting(
        None,
        "compute this many cells at once, each in a process of its own (default: 1; with --backend ray or dask, "
        "as many as there are workers)",
        "many cells at once",
        metavar="N",
        minimum=1,
    )
    backend: Literal["loky", "ray", "dask"] = setting(
        "loky",
        "where these processes run: loky, on this machine; ray or dask, on a cluster (default: %(default)s)",
        "many cells at once",
        choices=("loky", "ray", "dask"),
    )
    address: str | None = setting(
        None,
        "of a running Ray cluster (HOST:6379; auto finds this machine's) or Dask scheduler (tcp://HOST:8786); default: "
        "start one on this machine",
        "many cells at once",
        metavar="ADDRESS",
    )
    cells_per_gpu: int = setting(
        1, "cells that share a GPU at a time (default: %(default)s)", "many cells at once", metavar="N", minimum=1
    )
    shard: str | None = setting(
        None,
        "run only the K-th of N parts of the grid: for job arrays, whose jobs need not know of each other",
        "many cells at once",
        metavar="K/N",
    )
    profile: bool = setting(
        False,
        "write a trace of a few training steps beside each record (.trace.json.gz, for ui.perfetto.dev); with "
        "--seeds-at-once, beside the first seed's",
        "how",
    )
    track: Literal["tensorboard", "mlflow", "wandb"] | None = setting(
        None,
        "also log each cell's curves and accuracies to this tool, in a folder beside the results, DIR-TOOL (pip "
        "install 'prompt-bench[TOOL]'); wandb stays offline unless $WANDB_MODE says otherwise",
        "how",
        choices=("tensorboard", "mlflow", "wandb"),
    )
    quiet: bool = setting(False, "show no progress", "how")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)
        check_tracker(self.track)
        if self.protocol == ACROSS and self.target is None:
            raise UserError(f"--protocol {ACROSS}: name the suite to test with --target")
        if self.protocol != ACROSS and self.target is not None:
            said = f"says nothing to --protocol {self.protocol}; add --protocol {ACROSS}"
            raise UserError(f"--target {self.target}: {said}")
        if self.memory_limit is not None:
            bytes_of(self.memory_limit)
        parts = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.shard or "1/1")
        if not parts or not 1 <= int(parts[1]) <= int(parts[2]):
            raise UserError(f"--shard {self.shard!r}: write K/N, such as 1/4 for the first of four parts")
        if self.address and self.backend == "loky":
            raise UserError(f"--address {self.address}: of a cluster; add --backend ray or --backend dask")

    def recorded(self) -> dict[str, Any]:
        """What a record keeps: the settings that are not defaults, as JSON has them; files by their names alone."""
        kept: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if value != f.default and f.name not in NOT_RECORDED:
                named = Path(value).name if _is_path(f, value) else value
                kept[f.name] = list(named) if isinstance(named, tuple) else named
        return kept


def option_of(f: Field[Any]) -> str:
    """The command line's option for a field."""
    return f.metadata["option"] or "--" + f.name.replace("_", "-")


def is_list(f: Field[Any]) -> bool:
    """Whether a field takes several values."""
    return str(f.type).startswith(("Names", "Numbers"))


def many(value: T | Sequence[T]) -> tuple[T, ...]:
    """A list that may be given as a single value; a text is one value."""
    return (value,) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)


def _checked(f: Field[Any], value: Any) -> Any:
    """A field's value as its command has it: lists as tuples, `~` expanded, and within bounds."""
    option, kind, minimum = option_of(f), str(f.type), f.metadata["minimum"]
    if value is None and f.default is None:
        return None
    if f.name == "options":
        found = option_texts(value)
        _check_text(option, *found)
        return found
    if kind.startswith("Names"):
        return _names(many(value), option, f.metadata["choices"])
    if kind.startswith("Numbers"):
        texts = [str(part) for part in many(value)]
        if not texts:
            raise UserError(f"{option}: none given")
        return tuple(numbers(texts, option, minimum))
    if kind.startswith("bool"):
        if not isinstance(value, bool):
            raise UserError(f"{option} {value!r}: write true or false")
        return value
    if kind.startswith("int"):
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value).strip()):
            raise UserError(f"{option} {value!r}: write a whole number")
        if int(value) < minimum:
            raise UserError(f"{option} {value}: at least {minimum}")
        return int(value)
    if not isinstance(value, (str, Path)):
        raise UserError(f"{option} {value!r}: write a text")
    kept = Path(value).name if f.metadata["path"] == "maybe" else "" if f.metadata["path"] else str(value)
    _check_text(option, kept)
    if f.metadata["choices"] and value not in f.metadata["choices"]:
        raise UserError(f"{option} {value!r}: one of {', '.join(f.metadata['choices'])}")
    return str(user_path(value)) if str(value).startswith("~") and f.metadata["path"] else str(value)


def _check_text(option: str, *texts: str) -> None:
    """Refuse what no record could hold."""
    for text in texts:
        if not is_text(text):
            raise UserError(f"{option} {text!r}: holds {NO_TEXT}")


def _names(texts: tuple[str, ...], option: str, choices: Sequence[str]) -> tuple[str, ...]:
    found = names([str(text) for text in texts])
    if not found:
        raise UserError(f"{option}: none given; name some, or leave {option} out")
    _check_text(option, *found)
    for text in found:
        if choices and text not in choices:
            raise UserError(f"{option} {text!r}: one of {', '.join(choices)}")
    return ("all",) if option == "--methods" and "all" in found else tuple(found)


def load_experiment(file: str | Path) -> dict[str, Any]:
    """The settings in an experiment file: a YAML map from `RunConfig`'s names to values.

    Paths in it are relative to the file.

    Raises
    ------
    UserError : no such file, no map, or a key that no run has.
    """
    from bench.datasets.yamlfiles import read_yaml

    path = user_path(file)
    if not path.is_file():
        raise UserError(
            f"{file}: no such file; an experiment file is a YAML map such as {{suite: rs8, shots: [1, 16]}}"
        )
    content = read_yaml(path)
    known = {f.name: f for f in fields(RunConfig)}
    for key in content:
        if key not in known:
            raise UserError(f"{path}: no run has a setting {key!r}; {nearest(str(key), known)}")
    return {
        key: str(path.parent / user_path(value)) if _is_path(known[key], value) else value
        for key, value in content.items()
    }


def _is_path(f: Field[Any], value: Any) -> bool:
    """Whether a field's value is a file or folder, not a name."""
    kind = f.metadata["path"]
    if not isinstance(value, str) or value in f.metadata["named"]:
        return False
    return kind == "always" or (kind == "maybe" and _looks_like_path(value))


def _looks_like_path(text: str) -> bool:
    return text.startswith((".", "~", "/")) or text.endswith(FILES)


def as_arguments(config: Callable[P, C], work: Callable[[C], T]) -> Callable[P, T]:
    """A function of `Settings` as one of their fields: their names, types and defaults are its signature."""
    signature = inspect.signature(config)
    name = work.__name__.lstrip("_")

    @wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for key in kwargs:
            if key not in signature.parameters:
                raise TypeError(f"bench.{name}() has no argument {key!r}; {nearest(key, signature.parameters)}")
        return work(config(*args, **kwargs))

    call.__name__ = call.__qualname__ = name
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=inspect.signature(work).return_annotation
    )
    return call
