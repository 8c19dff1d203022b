"""What there is: suites, tasks, methods, backbones, cached features, each as a DataFrame."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.datasets.fewshot import DRAWN, NESTED
from bench.errors import UserError, nearest, typed
from bench.files import user_path

if TYPE_CHECKING:
    from bench.datasets.fetch import Plan
    from bench.datasets.spec import Suite

KINDS = ("suites", "tasks", "classes", "methods", "backbones")


def listing(what: str, suite: str | None = None, task: str | None = None, data: str | None = None) -> pd.DataFrame:
    """What the command line's names stand for.

    Parameters
    ----------
    what : "suites", "tasks", "classes", "methods" or "backbones".
    suite : for tasks, one suite's (default: all suites'); for classes, the suite, which is needed.
    task : for classes, one of the suite's tasks (default: all).
    data : the folder that holds the tasks' folders; for classes, and for tasks that are made from data (inat2021-…).
    """
    what = next((kind for kind in KINDS if kind in (what.lower(), f"{what.lower()}s", f"{what.lower()}es")), what)
    if what not in KINDS:
        raise UserError(f"list {what!r} is unknown; {nearest(what, KINDS)}")
    kinds = {"tasks": lambda: _tasks(suite, data), "classes": lambda: _classes(suite, task, data)}
    return {**kinds, "suites": _suites, "methods": _methods, "backbones": _backbones}[what]()


def _suites() -> pd.DataFrame:
    from bench.datasets.spec import load_suite, suite_names

    rows = []
    for name in suite_names():
        suite = load_suite(name)
        classes = [t.n_classes for t in suite.tasks]
        known = sum(c for c in classes if c is not None) or None  # Fashion-20's stand in the user's copy
        tasks = None if suite.from_data else len(suite.tasks)
        rows.append({"suite": name, "title": suite.title, "tasks": tasks, "classes": known, "note": suite.note})
    return pd.DataFrame(rows).astype({"tasks": "Int64", "classes": "Int64"})


def _tasks(suite: str | None, data: str | None) -> pd.DataFrame:
    """One row per task; of a suite whose tasks are made from data, with that data or one row for all."""
    from bench.datasets.spec import load_suite, suite_names

    rows = []
    for name in [suite] if suite else suite_names():
        loaded = load_suite(name)
        for t in (loaded.at(_root(data)) if data and suite else loaded).tasks:
            row = {"suite": name, "task": t.name, "classes": t.n_classes, "metric": t.metric}
            template = t.template if isinstance(t.template, str) else " | ".join(t.template)
            rows.append({**row, "template": template, "folder": t.folder, "path": " / ".join(t.path)})
    return pd.DataFrame(rows)


def _classes(suite: str | None, task: str | None, data: str | None) -> pd.DataFrame:
    """One row per class and hand-written prompt; a task without data has one that says so."""
    from bench.datasets.spec import load_suite
    from bench.datasets.splits import load_task, select_tasks
    from bench.datasets.types import MissingData
    from bench.wording import sentences

    if not suite:
        raise UserError("list classes: name a suite with --suite; `python -m bench list suites` shows them")
    loaded = load_suite(suite)
    root = data_root(loaded, data)
    specs = select_tasks(loaded.at(root), [task] if task else None)
    rows: list[dict[str, object]] = []
    for spec in specs:
        try:
            found = load_task(spec, root, allow_missing=True, write=False)
        except MissingData as error:
            rows.append({"task": spec.name, "label": None, "class": "", "prompt": f"no data: {error}"})
            continue
        for label, name in enumerate(found.class_names):
            row = {"task": spec.name, "label": label, "class": name}
            rows += [{**row, "prompt": sentence} for sentence in sentences(found, name)]
    return pd.DataFrame(rows).astype({"label": "Int64"})


def data_root(suite: Suite, data: str | None) -> Path:
    """The folder of a suite's data; the demo's is made."""
    return _demo_root() if suite.demo else _root(data)


def _demo_root() -> Path:
    from bench.datasets.cache_paths import cache_folder
    from bench.datasets.demo import ensure_demo
    from bench.progress import absolute, bar

    with bar("rendering the demo's images", 0, "image", None, position=0) as shown:
        return ensure_demo(cache_folder() / "demo", absolute(shown))


def _methods() -> pd.DataFrame:
    """One row per method; what most prompt methods share is said once, in `.attrs["note"]`."""
    from bench.methods import find_method, method_names
    from bench.methods.training import Recipe

    shared = [f"{f.name}={f.default}" for f in fields(Recipe)]
    rows = []
    for name in method_names():
        method = find_method(name)
        first = (inspect.getdoc(method) or "").splitlines()[0]
        params = [f"{f.name}={f.default}" for f in fields(method.Params)]
        if issubclass(method.Params, Recipe):
            params = ["recipe", *(param for param in params if param not in shared)]
        row = {"method": name, "what": first, "parameters (defaults)": ", ".join(params), "source": method.source}
        rows.append(row)
    table = pd.DataFrame(rows)
    told = "`python -m bench explain METHOD` says what each parameter means."
    table.attrs["note"] = f"recipe: {', '.join(shared)}, but for what a row says. {told}"
    return table


def _backbones() -> pd.DataFrame:
    import open_clip

    from bench.clip.backbone import PAPER_BACKBONES, backbone_names, packaged_names
    from bench.weights import unsupported

    packaged = packaged_names()
    rows = []
    for name in backbone_names():
        tags = [] if name in packaged else open_clip.list_pretrained_tags_by_model(name)
        default = "packaged" if name in packaged else "openai" if name in PAPER_BACKBONES else ""
        why = "" if name in packaged else unsupported(open_clip.get_model_config(name) or {})
        row = {"backbone": name, "default weights": default, "tags": ", ".join(tags)}
        rows.append({**row, "not supported": why.partition(";")[0]})
    return pd.DataFrame(rows)


def explain(
    method: str,
    suite: str | None = None,
    data: str | None = None,
    backbone: str | None = None,
    pretrained: str | None = None,
    options: Sequence[str] = (),
) -> str:
    """What a method computes, from its file's head, and its parameters with defaults and meaning.

    Parameters
    ----------
    method : a name as for `--methods`.
    suite : also how much its tasks share under the method before any training, for methods that have a kernel between
        tasks; data, backbone, pretrained, options : as for `run`.
    """
    import textwrap

    from tabulate import tabulate

    from bench.methods import find_method

    found = find_method(method, "explain")
    head = inspect.getdoc(inspect.getmodule(found)) or ""
    lines = [f"{found.name}: {inspect.getdoc(found) or ''}", "", textwrap.dedent(head)]
    rows = [
        (f"-o {found.name}.{f.name}=", repr(f.default), f.metadata.get("help", "")) for f in fields(found.Params)
    ]
    if rows:
        lines += ["", tabulate(rows, headers=["parameter", "default", "meaning"])]
    if found.task_kernel:
        lines += ["", f"Kernel between tasks: K = {found.task_kernel} (docs/task-sharing.md)."]
    if suite:
        if not found.task_kernel:
            raise UserError(f"explain {found.name} --suite {suite}: it has no kernel between tasks; leave --suite out")
        from bench.kernels import spectrum_of

        table = spectrum_of(method, suite, data, backbone, pretrained, options)
        lines += [f"Its spectrum in {suite}, before training. Equal shares: each task learns alone; one: all as one."]
        lines += ["", tabulate(table.astype(object), headers="keys", floatfmt=".1f", showindex=False)]
    elif found.task_kernel:
        lines += ["With --suite NAME: its spectrum, that is how much the tasks share."]
    if found.source:
        lines += ["", f"Source: {found.source}"]
    if found.footnote:
        lines += ["", f"Note: {found.footnote}"]
    return "\n".join(lines)


def check(
    suite: str,
    data: str | None = None,
    open_images: bool = False,
    quiet: bool | None = None,
    tasks: Sequence[str] | None = None,
) -> pd.DataFrame:
    """What is on disk of a suite: one row per task with its state and what to do next.

    Parameters
    ----------
    suite : name or path of a suite file. data : folder that holds the tasks' folders; the demo has its own.
    open_images : decode every image: finds broken ones, and the same image in two parts.
    quiet : no progress bars (None: where standard error is no terminal). tasks : some of the suite's (default: all).
    """
    from bench.datasets.cache_paths import cache_folder
    from bench.datasets.check import check_suite
    from bench.datasets.spec import load_suite

    loaded = load_suite(suite)
    root = cache_folder() / "demo" if loaded.demo else _root(data)
    return check_suite(loaded, root, open_images, quiet, lambda task: fetch_command(loaded, root, task), tasks)


def fetch(
    suite: str,
    data: str | None,
    tasks: Sequence[str] | None = None,
    confirm: Callable[[Plan], bool] | None = None,
    quiet: bool | None = None,
) -> pd.DataFrame:
    """Download what may be downloaded of a suite, and unpack it; existing files are left alone.

    Parameters
    ----------
    suite : name or path of a suite file. data : folder for the tasks' folders; made when it is not there.
    tasks : some of the suite's (default: all).
    confirm : is given the plan before anything is downloaded; where it returns False nothing is.
    quiet : no progress bars (None: where standard error is no terminal).

    Returns
    -------
    DataFrame : one row per source with its state ("have", "fetched", "failed", "by hand", "to download", "to unpack")
        and the problem where it failed.
    """
    from bench.datasets.fetch import carry_out, plan
    from bench.datasets.spec import load_suite
    from bench.progress import silent

    loaded = load_suite(suite)
    if loaded.demo:
        raise UserError(f"suite {loaded.name}: renders its own images, there is nothing to fetch")
    if not data:
        raise UserError("--data: give the folder the data sets' folders go to, or set BENCH_DATA")
    root = user_path(data)
    if root.exists() and not root.is_dir():
        raise UserError(f"--data {data}: must be a folder, this is a file")
    with silent(quiet):
        what = plan(loaded, root, tasks)
    if confirm is None or confirm(what):
        what = carry_out(what, quiet)
    return what.table()


def write_draws(
    suite: str,
    data: str | None,
    out: str,
    shots: Sequence[int],
    seeds: Sequence[int],
    tasks: Sequence[str] | None = None,
    allow_missing: bool = False,
    like: str = NESTED,
) -> pd.DataFrame:
    """Write few-shot draws as files OUT/<task>/shot_<n>-seed_<s>.json, in CoOp's rows, for others to use.

    Beside them is the division into train, val and test that they are drawn from, OUT/<task>/split_zhou_<name>.json.

    like : "nested", the bench's own; or "coop", as CoOp's code makes them.

    Returns
    -------
    DataFrame : one row per task and shot count with the numbers of files, classes, and images to train and validate on.
    """
    from bench.datasets.draws import write_draw, write_split
    from bench.datasets.spec import load_suite
    from bench.datasets.splits import load_tasks

    if like not in DRAWN:
        raise UserError(f"--like {like!r}: {nearest(like, DRAWN)}")
    rows = []
    loaded, root = load_suite(suite), _root(data)
    for task in load_tasks(loaded, root, tasks, allow_missing, missing_advice(loaded, root)):
        write_split(task, user_path(out))
        for n in shots:
            drawn = [write_draw(task, user_path(out), n, seed, like) for seed in seeds]
            _, train, val = drawn[0]  # every seed draws as many
            row = {"task": task.name, "shots": n, "files": len(seeds), "classes": len(task.class_names)}
            rows.append({**row, "train images": len(train), "validation images": len(val)})
    return pd.DataFrame(rows)


def fetch_command(suite: Suite, root: Path, task: str | None = None) -> str:
    """What to type to fetch the data of a suite, or of one of its tasks."""
    words = ["--suite", suite.argument, "--data", str(root), *(["--tasks", task] if task else [])]
    return f"python -m bench data fetch {typed(words)}"


def missing_advice(suite: Suite, root: Path) -> list[str]:
    """How an error about missing data ends."""
    leave_out = "`--allow-missing` (in Python `allow_missing=True`) leaves such tasks out"
    return [f"{leave_out}; `{fetch_command(suite, root)}` gets what may be downloaded."]


def _root(data: str | None) -> Path:
    if not data:
        raise UserError("--data: give the folder that holds the data sets' folders, or set BENCH_DATA")
    root = user_path(data)
    if not root.is_dir():
        raise UserError(f"--data {data}: no such folder")
    return root


def cache(clear: bool = False) -> pd.DataFrame:
    """What is cached: one row per backbone and kind of view with files and megabytes; `clear` deletes it all."""
    from bench.features.cache import cache_contents, clear_cache

    columns = ["backbone", "what", "files", "MB"]
    blocks = pd.DataFrame(cache_contents(), columns=["backbone", "what", "MB", "file"])
    if clear:
        clear_cache()
    grouped = blocks.groupby(["backbone", "what"], as_index=False).agg(files=("file", "count"), MB=("MB", "sum"))
    return grouped[columns].round(2)
