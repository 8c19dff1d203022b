"""`python -m bench relate`: how the tasks of a results folder's cells relate, and what of it goes together."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import RunConfig
from bench.errors import UserError
from bench.files import user_path
from bench.records import KEY_SHOWN, Record
from bench.settings import Settings, as_arguments, setting

if TYPE_CHECKING:
    import pandas as pd

    from bench.plan import Plan
    from bench.relations import Relations

SHOWN = 4  # settings that an error names
DRAWN = ("seed", "draw")  # what differs between the seeds of one setting
CODE = ("code", "numerics")
AS_RUN = ("draws", "val_shots", "task_names", "precision", "allow_missing")  # settings that say what was trained on
TASKS = ("tasks", "complete_suite", "data", "paths")  # what differs with the tasks


@dataclass(frozen=True)
class RelateConfig(Settings):
    """Which cells to look at, and what they were trained on.

    Raises
    ------
    UserError : a value that none can have. Whether there are such cells is checked when the folder is read.
    """

    results: str | Path = setting(
        "runs", "where the cells are, as `run --results` named it (default: %(default)s)", "which cells", metavar="DIR",
        path="always",
    )  # fmt: skip
    method: str = setting(
        "softcpt", "whose contexts to compare: one with a context for each task (default: %(default)s)", "which cells",
        metavar="METHOD",
    )  # fmt: skip
    shots: int | None = setting(
        None, "of cells of this shot count (default: the largest there is)", "which cells", metavar="N", minimum=1
    )
    cell: str | None = setting(
        None,
        "this cell, and those that differ from it in the seed alone: the beginning of its key, or its record; needed "
        "where the folder has several settings of the method",
        "which cells",
        metavar="KEY|FILE",
        path="maybe",
    )
    suite: str | None = setting(
        None, "needed if the cells' suite was a file of your own", "on what", metavar="NAME|FILE", path="maybe"
    )
    data: str | Path | None = setting(
        None, "the folder that holds the data sets (default: $BENCH_DATA)", "on what", metavar="ROOT", path="always"
    )
    backbone: str | None = setting(
        None, "needed if the cells' backbone was a file that has moved", "on what", metavar="NAME|JSON", path="maybe"
    )
    pretrained: str | None = setting(
        None, "its weights, as for `run`", "on what", metavar="TAG|FILE", path="maybe"
    )
    draws: str | Path | None = setting(
        None, "needed if the cells' draws were a folder of your own", "on what", metavar="DIR", path="always"
    )
    out: str | Path | None = setting(
        None, "where tables and the picture go (default: relations; from Python: nowhere)", "how", metavar="OUT",
        path="always",
    )  # fmt: skip
    device: str = setting("auto", "cpu, cuda, or auto (default: %(default)s)", "how", metavar="DEVICE")
    quiet: bool = setting(False, "show no progress", "how")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell is not None and self.shots is not None:
            raise UserError(f"--shots {self.shots}: --cell {self.cell} says which cells; leave one of them out")


def _relate(config: RelateConfig) -> dict[str, pd.DataFrame]:
    """Tell how the tasks of finished cells relate: what each scores in the others' contexts, how alike they are by
    several measures, what they gain by joint training, and which measure goes with which gain. Nothing is trained.

    The parameters are the fields of `bench.relating.RelateConfig`; `python -m bench relate --help` describes each. The
    cells are those of one method and setting with all their seeds; matrices are means over seeds.

    Returns
    -------
    dict : DataFrames by name. Tasks × tasks: "swap" (points; row i, column j is what task j scores in the context of
        task i, less zero-shot with j's own template), the similarities "text", "kernel", "gradients",
        "kernel × gradients", "affinity", "contexts", "contexts change", "functional", "visual" and "class names"
        (docs/task-sharing.md), and, where the folder has the records, "pair gain" and "left-out gain" (`bench.gains`).
        Tables: "spectrum" of K = F Fᵀ, "gains" of joint training, and "association", one row per gain and similarity:
        rho (Spearman, over pairs of tasks), p (Mantel, one-sided), the least p there can be, ceiling (of |rho|, by
        noise between seeds), seeds. What does not exist for the method is left out. `["association"].attrs["notes"]`
        has the sentences that the command prints below it.

    Raises
    ------
    UserError : no such cells, several settings, or data, suite or backbone are not those of the cells.
    """
    return related(config).frames


relate = as_arguments(RelateConfig, _relate)


def related(config: RelateConfig) -> Relations:
    """`relate`, with all there is to say about it; written into `config.out`, where that is given."""
    from bench.packs import records_below
    from bench.relations import measure

    there = [(path, record) for path, record in records_below(user_path(config.results)) if record.done]
    chosen = choose(there, config)
    plan = plan_of([record for _, record in chosen], config)
    found = measure(chosen, [record for _, record in there], plan, _of_the_users_own(config))
    if config.out is not None:
        from bench.reports.relations import write

        write(found, user_path(config.out))
    return found


# ---- which cells ----------------------------------------------------------------------------------------------------


def choose(there: Sequence[tuple[Path, Record]], config: RelateConfig) -> list[tuple[Path, Record]]:
    """The cells of one setting whose learned parameters were kept, by seed, with their records' paths.

    there : finished ones.

    Raises
    ------
    UserError : there are none, or of several settings.
    """
    from bench.methods import find_method
    from bench.methods.prompt import PromptMethod

    where = f"below '{config.results}'"
    if config.cell is not None:
        from bench.saved import find_record

        one = find_record(config.cell, config.results)
        method, protocol, setting = one.cell["method"], one.cell["protocol"], setting_of(one)
        if not one.done:
            raise UserError(f"--cell {config.cell}: it failed ({one.reason})")
        if protocol != "few-shot":
            raise UserError(f"--cell {config.cell}: of protocol {protocol}; relate reads few-shot cells")
        if not one.cell["shots"]:
            raise UserError(f"--cell {config.cell}: {method} learns nothing, so it has no contexts to relate tasks by")
        if config.method not in (RelateConfig.method, method) and not _of_the_users_own(config):
            raise UserError(f"--method {config.method}: --cell {config.cell} is of {method}; leave one of them out")
        of_method = [(path, record) for path, record in there if setting_of(record) == setting]
    else:
        kind = find_method(config.method, "--method")
        if not issubclass(kind, PromptMethod):
            raise UserError(f"--method {config.method}: learns no prompts, so it has no contexts to relate tasks by")
        method = kind.name
        of_method = [(path, r) for path, r in there if r.cell["method"] == method and r.cell["protocol"] == "few-shot"]
        if config.shots is not None:
            of_method = [(path, record) for path, record in of_method if record.cell["shots"] == config.shots]
    if not of_method:
        raise UserError(_none(there, config, where))
    kept = [(path, record) for path, record in of_method if path.with_suffix(".safetensors").is_file()]
    if not kept:
        raise UserError(
            f"no cell of {method} {where} has its learned parameters beside its record (a pack has none, and "
            f"--discard keeps none): run `python -m bench run --methods {method}` again into a folder of its own"
        )
    groups: dict[str, dict[int, tuple[Path, Record]]] = {}
    for path, record in sorted(kept, key=lambda pair: pair[1].finished):  # of two of one seed, the later one
        groups.setdefault(setting_of(record), {})[record.cell["seed"]] = path, record
    settings = [[own[seed] for seed in sorted(own)] for own in groups.values()]
    most = max(own[0][1].cell["shots"] for own in settings)
    settings = [own for own in settings if own[0][1].cell["shots"] == most and not _is_part(own, settings)]
    settings = _latest(settings)
    if len(settings) > 1:
        named = "; ".join(f"{own[0][1].key[:KEY_SHOWN]} ({described(own[0][1])})" for own in settings[:SHOWN])
        more = f"; and {len(settings) - SHOWN} more" if len(settings) > SHOWN else ""
        raise UserError(f"{len(settings)} settings of {method} {where}: name one with --cell, among {named}{more}")
    (found,) = settings
    first = found[0][1]
    trained = first.config["tasks"]
    if (scored := first.config.get("scored", trained)) != trained:
        raise UserError(
            f"cell {first.key[:KEY_SHOWN]}: scored {len(scored)} of the {len(trained)} tasks that it was trained on "
            "(--score-tasks), and relate needs all: run it again without"
        )
    return found


def setting_of(record: Record, tasks: bool = True, joint: bool = True, code: bool = True) -> str:
    """What cells have in common that differ in the seed alone, whichever `tasks` they were trained on, whether all
    together (`joint`), and by which version of the `code`, where these do not count."""
    left_out = {*DRAWN, *(() if tasks else TASKS), *(() if code else CODE)}
    config = {name: value for name, value in record.config.items() if name not in left_out}
    if not joint:
        config["params"] = {name: value for name, value in config.get("params", {}).items() if name != "joint"}
    return json.dumps([config, record.draws], sort_keys=True)


def described(record: Record) -> str:
    """A setting, in words."""
    from bench.progress import count

    cell = record.cell
    name = f"{cell['method']} {cell.get('variant') or ''}".strip()
    tasks = count(len(record.tested), "task")
    return f"{name}, {count(cell['shots'], 'shot')}, {tasks} of {cell['suite']}, {cell['backbone']}"


def _latest(settings: Sequence[list[tuple[Path, Record]]]) -> list[list[tuple[Path, Record]]]:
    """Of settings that differ in the version of the code alone, the one that was finished last."""
    from bench.progress import count

    found = {}
    for own in sorted(settings, key=lambda own: max(record.finished for _, record in own)):
        found[setting_of(own[0][1], code=False)] = own
    if n := sum(map(len, settings)) - sum(map(len, found.values())):
        warnings.warn(f"{count(n, 'cell')} made by other code left out; --cell names one of them", stacklevel=2)
    return list(found.values())


def _is_part(own: list[tuple[Path, Record]], settings: Sequence[list[tuple[Path, Record]]]) -> bool:
    """Whether the same setting is there with more tasks: this one is there for gains."""
    first = own[0][1]
    mine = setting_of(first, tasks=False)
    others = [other[0][1] for other in settings if other is not own]
    return any(setting_of(o, tasks=False) == mine and {*first.tested} < {*o.tested} for o in others)


def _none(there: Sequence[tuple[Path, Record]], config: RelateConfig, where: str) -> str:
    """What is said where no cell is found."""
    from bench.progress import count

    shots = "" if config.shots is None else f" --shots {config.shots}"
    few_shot = [record.cell for _, record in there if record.cell["protocol"] == "few-shot"]
    at = f" at {count(config.shots, 'shot')}" if config.shots else ""
    if held := sorted({cell["shots"] for cell in few_shot if cell["method"] == config.method}):
        at += f" (there: {', '.join(map(str, held))})"
    others = sorted({cell["method"] for cell in few_shot if cell["shots"]} - {config.method})
    hint = f", or name another with --method (there: {', '.join(others)})" if others else ""
    unread = sorted({r.cell["protocol"] for _, r in there if r.cell["method"] == config.method} - {"few-shot"})
    hint += f"; its cells of --protocol {', '.join(unread)} are not read" if unread else ""
    typed = f"python -m bench run --methods {config.method}{shots} --results {config.results}"
    return f"no finished few-shot cell of {config.method}{at} {where}; run `{typed}`{hint}"


def plan_of(records: Sequence[Record], config: RelateConfig) -> Plan:
    """Tasks, images and backbone of cells that differ in the seed alone.

    Raises
    ------
    UserError : with these settings they are not those that the cells were trained on and tested with.
    """
    from bench.datasets import suite_names
    from bench.plan import prepare
    from bench.saved import source_of

    first = records[0]
    name, tag, weights = (str(first.config[k]) for k in ("backbone", "pretrained", "weights"))
    backbone, pretrained = source_of(name, tag, weights, (config.backbone, config.pretrained))
    run = {name: first.run[name] for name in AS_RUN if name in first.run}
    suite = config.suite or first.cell["suite"]
    if config.suite is None and suite.partition(":")[0] not in suite_names():
        raise UserError(f"--suite: that of the cells, {suite!r}, was a file, and records hold no paths; give it again")
    if config.draws is not None:
        run["draws"] = config.draws
    plan = prepare(
        RunConfig(
            **run, suite=suite, data=config.data, tasks=first.config["tasks"],
            methods="zero-shot", shots=first.cell["shots"], seeds=[record.cell["seed"] for record in records],
            backbone=backbone, pretrained=pretrained, results=config.results, device=config.device, quiet=config.quiet,
        )
    )  # fmt: skip
    for record in records:
        if plan.backbone.weights != record.config["weights"] or not fits(record, plan):
            raise UserError(
                f"cell {record.key[:KEY_SHOWN]}: with these settings its backbone, names or images are others; give "
                "--suite, --data, --backbone and --draws as in its run (a record holds no paths)"
            )
    return plan


def _of_the_users_own(config: RelateConfig) -> str | None:
    """The method where it is the user's own class: a cell's file never says what code is run."""
    return config.method if ":" in config.method else None


def fits(record: Record, plan: Plan) -> bool:
    """Whether a cell was trained and tested on the images that the plan has of its tasks, and on their places in a tree
    where it read these."""
    names, draw = record.config["tasks"], plan.images.draws.get((record.cell["shots"], record.cell["seed"]))
    places = {task.name: [*task.path] for task in plan.tasks}
    if draw is None or not {*names} <= {*places}:
        return False
    if any(places[name] != path for name, path in record.config.get("paths", {}).items()):
        return False
    same_tests = record.config.get("data") == plan.images.fingerprint(names)
    return same_tests and record.config.get("draw") == draw.fingerprint(names)
