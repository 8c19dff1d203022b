"""What a run is: `RunConfig`, the one definition of its settings.

The command line's options, `bench.run`'s arguments, the keys of an experiment file and what a record keeps of a run are
all made from these fields. A new setting is one field here, and the code that reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from bench.datasets.fewshot import DRAWN, VAL_SHOTS
from bench.devices import check_device
from bench.errors import UserError, nearest
from bench.files import user_path
from bench.options import bytes_of
from bench.settings import Names, Numbers, Settings, is_path, option_of, setting
from bench.track import check_tracker

# What a record does not keep of its run: places, and what divides its work but changes no number.
NOT_RECORDED = ("data", "results", "quiet", "track", "retry_failed", "jobs", "backend", "address", "cells_per_gpu",
                "shard")  # fmt: skip
# What says nothing where cells are trained one by one and none is recorded.
OF_RECORDS = ("profile", "seeds_at_once", "jobs", "backend", "track")
METHODS = ("zero-shot", "coop", "shared-coop", "softcpt")  # of a run that names none
ACROSS = "suite-to-suite"  # the protocol that takes a `target`


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
    methods: Names | None = setting(
        None,
        f"names, package.module:Class, or all (default: {', '.join(METHODS)}; of these and of all, those that the "
        "protocol can test)",
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
            said = f"has no effect with --protocol {self.protocol}; add --protocol {ACROSS}"
            raise UserError(f"--target {self.target}: {said}")
        if self.memory_limit is not None:
            bytes_of(self.memory_limit)
        parts = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", self.shard or "1/1")
        if not parts or not 1 <= int(parts[1]) <= int(parts[2]):
            raise UserError(f"--shard {self.shard!r}: write K/N, such as 1/4 for the first of four parts")
        if self.address and self.backend == "loky":
            raise UserError(f"--address {self.address}: of a cluster; add --backend ray or --backend dask")
        if self.cells_per_gpu > 1 and self.backend == "loky" and self.jobs in (None, 1):
            raise UserError(f"--cells-per-gpu {self.cells_per_gpu}: one cell runs at a time; add --jobs N")
        if self.cells_per_gpu > 1 and self.backend == "dask" and self.address:
            said = "Dask does not divide a cluster's GPUs; leave it out"
            raise UserError(f"--cells-per-gpu {self.cells_per_gpu}: {said}")

    def refuse_of_records(self, asked: str) -> None:
        """Refuse settings that say nothing to what was asked for: it trains cells one by one and records none.

        Raises
        ------
        UserError : one of `OF_RECORDS` is not at its default.
        """
        for f in fields(self):
            if f.name in OF_RECORDS and getattr(self, f.name) != f.default:
                raise UserError(
                    f"{asked}: does not go with {option_of(f)}, because it trains cell by cell and records none"
                )

    def recorded(self) -> dict[str, Any]:
        """What a record keeps: the settings that are not defaults, as JSON has them; files by their names alone."""
        kept: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if value != f.default and f.name not in NOT_RECORDED:
                named = Path(value).name if is_path(f, value) else value
                kept[f.name] = list(named) if isinstance(named, tuple) else named
        return kept


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
        key: str(path.parent / user_path(value)) if is_path(known[key], value) else value
        for key, value in content.items()
    }
