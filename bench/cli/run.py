"""`python -m bench run`: its options are the fields of `RunConfig`."""

from __future__ import annotations

import os
import sys
from typing import Any

from bench.cli.console import Parser, command_parser, print_table
from bench.config import RunConfig, load_experiment
from bench.errors import CellFailed, UserError, typed
from bench.files import user_path

RUN_EXAMPLES = """\
examples
  python -m bench run
      the embedded demo: 4 methods, 5 shot counts, 3 seeds; a minute or two on two CPU cores
  python -m bench run --suite plant6 --data ~/data --methods coop softcpt --shots 1 2 4 8 16
      the paper's setting on your own copy of the data (OpenAI's RN50 is downloaded once)
  python -m bench run --suite rs8 --data ~/data --backbone ViT-B-16 --views 10
      another backbone; 10 stored views per image instead of a fresh one each epoch: faster, and results/README.md
      says what it changes
  python -m bench run --suite rs8 --data ~/data --backbone my/clip.json --pretrained my/clip.safetensors
      any model in open_clip's form
  python -m bench run --methods softcpt -o softcpt.task_context=1,2,4,8
      a sweep: every value is trained and tested
  python -m bench run --methods coop -o coop.context=6 -o 'coop.words="a photo of, say,"'
      a text that has commas, in double quotes of its own
  python -m bench run --methods softcpt --shots 16 --perturb 5
      how much of a difference between two accuracies is rounding: compare it with the range shown
  python -m bench run --suite rs8 --data ~/data --task UCMerced --dry-run
      what would run for one task, and what is there already

A cell is one training and its test: a suite, a backbone, a method with its settings, a number of shots and a seed.
A finished cell is never run again: stop with Ctrl-C whenever you like, and type the same command to go on.
"""


def _parser() -> Parser:
    about = "Train methods on a few images per class and test them. Every finished cell leaves one record."
    p = command_parser("run", about, RUN_EXAMPLES)
    p.add_argument(
        "experiment", nargs="?", metavar="EXPERIMENT.yaml",
        help="a file with settings as `bench.run` takes them (methods: [coop, softcpt], shots: 16, "
        "options: [coop.epochs=20], keep: false); options on the command line override it",
    )  # fmt: skip
    p.add_settings(RunConfig, "what to run")
    p.add_argument("--dry-run", action="store_true", help="print the cells and what is there already; run nothing")
    p.add_argument(
        "--perturb", type=int, metavar="N",
        help="measure how much of the accuracies is rounding: train each cell once as it is and N times from numbers "
        "changed by 1e-7 of themselves; records nothing",
    )  # fmt: skip
    return p


def run(argv: list[str]) -> int:
    # Only texts are looked at before torch is loaded: a typing mistake is answered at once.
    typed_in = vars(_parser().read(argv))
    experiment, dry_run, perturb = (typed_in.pop(name) for name in ("experiment", "dry_run", "perturb"))
    if experiment and not experiment.endswith((".yaml", ".yml")):
        raise UserError(f"unknown argument {experiment!r}; an experiment file ends in .yaml")
    config = RunConfig(**{**(load_experiment(experiment) if experiment else {}), **typed_in})
    if perturb is not None:
        if perturb < 1:
            raise UserError(f"--perturb {perturb}: at least 1")
        config.refuse_of_records(f"--perturb {perturb}")
    from bench.datasets.spec import load_suite
    from bench.datasets.splits import select_tasks
    from bench.progress import count, silent

    suite, data = load_suite(config.suite or "demo"), config.data or os.environ.get("BENCH_DATA")
    with silent(config.quiet):
        select_tasks(suite.at(user_path(data)) if data else suite, config.tasks)
    if config.target:
        load_suite(config.target, "--target")
    from bench.plan import prepare
    from bench.runner import OTHER_CODE, execute
    from bench.system import kept_heap

    if config.suite is None and not config.data:
        print("Running the embedded demo. For real data: --suite general10|plant6|rs8|fashion20 --data ROOT")
    run = prepare(config, download=not dry_run)
    if run.absent:
        print(f"Left out, no data: {', '.join(run.absent)}")
    for name, why in run.left_out.items():
        print(f"Left out, {name} {why}")
    if dry_run:
        from bench.estimates import by_setting, estimates, totals

        found = estimates(run)
        plan = run.overview()
        print_table(plan)
        print("\nEstimated per cell:")
        print_table(by_setting(run, found))
        done, left = int((plan["state"] == "done").sum()), len(run.failures_left())
        stay = f", {left} left as they are" * (left > 0)
        print(f"{count(len(plan), 'cell')}, {done} done, {len(plan) - done - left} to run{stay}")
        todo = {cell.key for cell in run.todo()}
        if told := totals([e for cell, e in zip(run.cells, found, strict=True) if cell.key in todo]):
            print(told)
        other = run.of_other_code()
        if other:
            print(OTHER_CODE.format(count(other, "cell")))
        return 0
    if perturb:
        from bench.perturb import SIZE, spread

        with kept_heap():
            table = spread(run, perturb)
        print_table(table, floatfmt=".2f")
        print(f"Accuracy over tasks and seeds, percent; sd and range (max - min) over {perturb + 1} trainings per")
        print(f"cell, all but the first from numbers changed by {SIZE:g} of themselves. Nothing was recorded.")
        return 0
    try:
        failed = execute(run, around=kept_heap)
    except CellFailed as stop:
        beside = run.store.path(stop.failure, stop.failure["key"])
        print(f"stopped at the first cell that failed (--fail-fast); its traceback is in {beside}", file=sys.stderr)
        return 1
    _print_summary(run)
    if failed:
        beside = run.store.path(failed[0].cell, failed[0].key)
        again = "the same command tries them again" if config.retry_failed else "--retry-failed tries them again"
        why = f"the first with: {failed[0].reason}" if config.quiet else "see above"
        print(f"{count(len(failed), 'cell')} failed, {why}; {again}", file=sys.stderr)
        print(f"        traceback in {beside}", file=sys.stderr)
    where = str(config.results)
    print(f"Records are in {where}. Tables and figures: python -m bench report --results {typed([where])}")
    return 1 if failed else 0


STABILITY_EXAMPLES = """\
examples
  python -m bench stability --methods coop softcpt --shots 16
      cells of the demo; the options of `run` say which
  python -m bench stability --cell 3f9a2c --data ~/data --perturb 5
      a finished cell, with the settings of its run; its record holds no paths, so give those of its data (and of a
      suite, a backbone or draws of your own) again

A cell is trained once as it is, and --perturb times from numbers changed by 1e-7 of themselves. What is measured goes
into stability.csv beside the records, and a report says it below its tables.
"""


def stability(argv: list[str]) -> int:
    about = (
        "Measure how steady trainings are: the largest eigenvalue of the loss's Hessian before and after training, "
        "beside the bound beyond which the recipe amplifies every difference; and how far rounding moves accuracies."
    )
    p = command_parser("stability", about, STABILITY_EXAMPLES)
    p.add_settings(RunConfig, "what to run")
    p.add_argument("--cell", metavar="KEY|FILE", help="a finished cell: the beginning of its key, or its record")
    p.add_argument(
        "--perturb", type=int, metavar="N", default=3, help="perturbed trainings per cell; 0: none (default: 3)"
    )
    typed_in = vars(p.read(argv))
    times, cell = typed_in.pop("perturb"), typed_in.pop("cell")
    if times < 0:
        raise UserError(f"--perturb {times}: not negative")
    RunConfig(**typed_in).refuse_of_records("stability")  # typing mistakes are answered before torch is loaded
    from bench.curvature import measure, plan_of
    from bench.records import STABILITY
    from bench.system import kept_heap

    plan = plan_of(cell, typed_in)
    with kept_heap():
        table = measure(plan, times)
    shown = ["method", "variant", "shots", "seed", "task", "start", "end", "limit", "steady", "accuracy", "range"]
    print_table(table[shown], floatfmt=".4g")
    print("start, end: the largest eigenvalue of the loss's Hessian before and after training; limit: the one up to")
    print("which the recipe is stable at its largest rate. range: of the accuracy, percent, over")
    print(f"{times + 1} trainings, all but the first perturbed. Kept in {plan.store.folder / STABILITY}.")
    return 0


def _print_summary(run: Any) -> None:
    """Mean accuracy over tasks and seeds, rows × shots; a mean is over all tasks, or is left out."""
    from bench.progress import count

    table = run.table()
    if table.empty:
        return
    table = table[table["part"].isin(["all", "harmonic"])].copy()  # of base and new, the harmonic mean
    table["row"] = [" ".join(filter(None, told)) for told in table[["method", "variant", "setting"]].values]
    cells = table.groupby(["row", "shots", "seed"], sort=False)
    per_seed, scored, tasks = cells["accuracy"].mean(), cells["task"].nunique(), table["task"].nunique()
    torn = scored[scored < tasks]  # other folds of theirs failed
    per_seed[torn.index] = float("nan")
    means = per_seed.groupby(["row", "shots"], sort=False).mean().unstack("shots").sort_index(axis=1)
    means.columns = [count(n, "shot") if n else "no training" for n in means.columns]
    title = f"{(run.target or run.suite).title}{' (demo)' * run.demo}"
    print(f"{run.protocol.score} over {count(tasks, 'task')} of {title}, {run.backbone.name}, percent:")
    print_table(means.round(1).reset_index(names=""), floatfmt=".1f")
    for (row, shots, seed), n in torn.items():
        print(f"Left out, {row}, {count(shots, 'shot')}, seed {seed}: {n} of {count(tasks, 'task')} scored")
