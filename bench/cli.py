"""The command line: `python -m bench run | report | …`. Every command is one Python call.

The `data` commands stand in `cli_data.py`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from bench.errors import UserError, nearest

RUN_EXAMPLES = """\
examples
  python -m bench run
      the embedded demo: 4 methods, 5 shot counts, 3 seeds, a few minutes on two CPU cores
  python -m bench run --suite plant6 --data ~/data --methods coop,softcpt --shots 1,2,4,8,16
      the paper's setting on your own copy of the data (OpenAI's RN50 is downloaded once)
  python -m bench run --suite rs8 --data ~/data --backbone ViT-B-16 --views 10
      another backbone; 10 stored views an image instead of a fresh one each epoch: faster, and what it changes
      stands in results/README.md
  python -m bench run --suite rs8 --data ~/data --backbone my/clip.json --pretrained my/clip.safetensors
      any model in open_clip's form
  python -m bench run -o softcpt.task_context=1,2,4,8 --methods softcpt
      a sweep: one cell for each value
  python -m bench run --methods softcpt --shots 16 --perturb 5
      how much of a difference between two accuracies is rounding: compare it with range
  python -m bench run --dry-run
      what would run, and what is there already

A cell (suite, backbone, method, shots, seed, settings) that has finished is never run again: stop with Ctrl-C
when you like and type the same command to go on.
"""

REPORT_EXAMPLES = """\
examples
  python -m bench report
      everything below runs/, into report/: records.csv, table.md, table.csv, table.tex, figures/
  python -m bench report --results runs/rs8 --out rs8-report
      one suite's records, into a folder of their own
"""

EXPLAIN_EXAMPLES = """\
examples
  python -m bench explain softcpt
  python -m bench explain my_package.my_module:MyMethod
"""

WORDS_EXAMPLES = """\
examples
  python -m bench words --cell 3f9a2c
      the words nearest to each learned vector; a cell's key stands in its record's name and in records.csv
  python -m bench words --cell runs/demo/demo-clip/coop/16shot-seed1-3f9a2c….json --task scenes --top 5
"""

PREDICT_EXAMPLES = """\
examples
  python -m bench predict --cell 3f9a2c --task PlantVillage leaf1.jpg leaf2.jpg
  python -m bench predict --cell 3f9a2c --backbone my/clip.json --task PlantVillage photos/*.jpg --top 1
"""

LIST_EXAMPLES = """\
examples
  python -m bench list methods
  python -m bench list tasks --suite rs8
  python -m bench list backbones 'ViT-B*'
"""

CACHE_EXAMPLES = """\
examples
  python -m bench cache
      what is kept, and how large it is
  python -m bench cache --clear
      delete it; what is needed again is made again
"""

TOP = """\
Compare prompt-tuning methods for CLIP: one harness, one recipe, one report.

  python -m bench run       train and test a grid of methods, shots and seeds
  python -m bench report    tables and figures from what was run
  python -m bench list      suites, tasks, methods, backbones
  python -m bench explain   a method: what is learned, its formula, its parameters
  python -m bench words     the vocabulary words nearest to what a cell learned
  python -m bench predict   what a finished cell sees in images of your own
  python -m bench data      what of a suite is on disk; fetch the rest; few-shot draws as files
  python -m bench cache     the stored image features

`python -m bench run --help` shows examples.
"""


class Parser(argparse.ArgumentParser):
    """argparse, with mistakes as one line and the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def read(self, argv: list[str]) -> argparse.Namespace:
        known, rest = self.parse_known_args(argv)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            hint = f"; {nearest(rest[0].partition('=')[0], options)}" if rest[0].startswith("-") else ""
            raise UserError(f"unknown argument {rest[0]!r}{hint}")
        return known


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 some cells failed, 2 a user's mistake, 130 Ctrl-C."""
    # Before torch is loaded: threads that wait in a spin take a busy machine's time from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        detail = f": {stop}, and kept" if str(stop) else ""
        print(f"\nstopped{detail}. Type the same command to go on.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a folder that cannot be written, a full disk: nothing a traceback would explain
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 2


def _dispatch(argv: list[str]) -> int:
    commands = {
        "run": _run,
        "report": _report,
        "list": _list,
        "explain": _explain,
        "words": _words,
        "predict": _predict,
        "data": _data,
        "cache": _cache,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(TOP, end="")
        return 0
    if argv[0] == "--version":
        from bench import __version__

        print(__version__)
        return 0
    if argv[0] not in commands:
        raise UserError(f"unknown command {argv[0]!r}; {nearest(argv[0], commands)}")
    return commands[argv[0]](argv[1:])


def command_parser(command: str, about: str, epilog: str = "") -> Parser:
    return Parser(
        prog=f"python -m bench {command}",
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


# ---- run -----------------------------------------------------------------------------------------------------


def _run_parser() -> Parser:
    p = command_parser("run", "Train and test methods on few-shot draws; one record a cell.", RUN_EXAMPLES)
    what = p.add_argument_group("what to run")
    what.add_argument("--suite", metavar="NAME|FILE", help="a suite's name or the path of a suite file (default: demo)")
    what.add_argument("--tasks", metavar="A,B", help="some of its tasks (default: all)")
    what.add_argument(
        "--methods",
        metavar="A,B",
        default="zero-shot,coop,shared-coop,softcpt",
        help="names, package.module:Class, or all (default: %(default)s)",
    )
    what.add_argument("--shots", metavar="N,N", default="1,2,4,8,16", help="images a class (default: %(default)s)")
    what.add_argument("--seeds", metavar="N,N", default="1,2,3", help="few-shot draws (default: %(default)s)")
    what.add_argument(
        "-o", dest="options", metavar="METHOD.PARAMETER=VALUE", action="append", default=[],
        help="set a parameter (`all.` for every method that has it); several values with commas: one cell each",
    )  # fmt: skip
    where = p.add_argument_group("on what")
    where.add_argument("--data", metavar="ROOT", help="folder that holds the data sets' folders (default: $BENCH_DATA)")
    where.add_argument(
        "--allow-missing", action="store_true",
        help="leave out tasks whose data is missing; those that are there in part are used as they are",
    )  # fmt: skip
    where.add_argument(
        "--draws", metavar="DIR", help="few-shot files to use instead of draws: DIR/TASK/shot_16-seed_1.json"
    )
    where.add_argument(
        "--backbone", metavar="NAME|JSON", help="an open_clip model name or model JSON (default: the suite's, or RN50)"
    )
    where.add_argument(
        "--pretrained", metavar="TAG|FILE", help="open_clip tag or .safetensors file (default: openai for RN50, "
        "RN101, ViT-B-32, ViT-B-16; for a JSON the .safetensors beside it)",
    )  # fmt: skip
    how = p.add_argument_group("how")
    what.add_argument(
        "--protocol", metavar="NAME", default="few-shot",
        help="few-shot, or base2new: train on half of each task's classes, test both halves (default: %(default)s)",
    )  # fmt: skip
    how.add_argument(
        "--recipe", metavar="NAME|FILE",
        help="paper: SoftCPT's shared recipe, a fresh view each epoch; or a YAML file of your own (default: the "
        "suite's own where it has one, else each method's defaults, which are the paper's)",
    )  # fmt: skip
    how.add_argument("--views", type=int, metavar="N", help="training views an image (default: one for each epoch)")
    how.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: %(default)s")
    how.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"),
        help="of the backbone's towers; bfloat16 is faster where the hardware has it (default: %(default)s)",
    )  # fmt: skip
    how.add_argument("--results", metavar="DIR", default="runs", help="where records go (default: %(default)s)")
    how.add_argument(
        "--discard", action="store_true",
        help="do not keep what was learned (kept beside each record; SoftCPT's takes 34 MB a cell with RN50)",
    )  # fmt: skip
    how.add_argument(
        "--seeds-at-once", action="store_true",
        help="train the seeds of a cell side by side: for GPUs, where small steps wait for each other; results are "
        "equal up to the rounding of sums, a kill loses all seeds of the cell in flight",
    )  # fmt: skip
    how.add_argument(
        "--profile", action="store_true",
        help="write a trace of a few training steps beside each record (.trace.json.gz, for ui.perfetto.dev); of seeds "
        "at once, beside the first's",
    )  # fmt: skip
    how.add_argument(
        "--perturb", type=int, metavar="N",
        help="tell how much of the accuracies is rounding: train each cell once as it is and N times from numbers "
        "changed by 1e-7 of themselves; records nothing",
    )  # fmt: skip
    how.add_argument("--dry-run", action="store_true", help="print the cells and what is there already; run nothing")
    return p


def _run(argv: list[str]) -> int:
    a = _run_parser().read(argv)
    # Only texts are looked at before torch is loaded: a typing mistake is answered at once.
    from bench.options import numbers

    shots = numbers(a.shots, "--shots", least=1)
    seeds = numbers(a.seeds, "--seeds", least=0)
    if a.views is not None and a.views < 1:
        raise UserError(f"--views {a.views}: at least 1")
    if a.perturb is not None:
        if a.perturb < 1:
            raise UserError(f"--perturb {a.perturb}: at least 1")
        for given, name in ((a.profile, "--profile"), (a.seeds_at_once, "--seeds-at-once")):
            if given:
                raise UserError(f"--perturb {a.perturb}: does not go with {name}, for it trains cell by cell")
    from bench.datasets.splits import select_tasks
    from bench.datasets.suites import load_suite

    select_tasks(load_suite(a.suite or "demo"), names_in(a.tasks))
    from bench.harness import execute, prepare

    if a.suite is None and not a.data:
        print("Running the embedded demo. For real data: --suite general10|plant6|rs8|fashion20 --data ROOT")
    run = prepare(
        suite=a.suite,
        tasks=names_in(a.tasks),
        methods="all" if a.methods == "all" else names_in(a.methods) or [],
        shots=shots,
        seeds=seeds,
        backbone=a.backbone,
        pretrained=a.pretrained,
        data=a.data,
        results=a.results,
        device=a.device,
        views=a.views,
        options=a.options,
        allow_missing=a.allow_missing,
        protocol=a.protocol,
        recipe=a.recipe,
        draws=a.draws,
        precision=a.precision,
        keep=not a.discard,
        profile=a.profile,
        seeds_at_once=a.seeds_at_once,
    )
    left_out = len(run.suite.tasks) - len(run.tasks)
    if left_out and not a.tasks:
        there = {t.name for t in run.tasks}
        missing = [t.name for t in run.suite.tasks if t.name not in there]
        print(f"Left out, no data: {', '.join(missing)}")
    for name, why in run.left_out.items():
        print(f"Left out, {name} cannot score new classes: {why}")
    if a.dry_run:
        plan = run.plan()
        print_table(plan)
        print(f"{len(plan)} cells, {(plan['state'] == 'done').sum()} done, {(plan['state'] != 'done').sum()} to run")
        return 0
    if a.perturb:
        from bench.perturb import SIZE, spread

        print_table(spread(run, a.perturb), floatfmt=".2f")
        print(f"Accuracy over tasks and seeds, percent; sd and range (max - min) over {a.perturb + 1} trainings a")
        print(f"cell, all but the first from numbers changed by {SIZE:g} of themselves. Nothing was recorded.")
        return 0
    failed = execute(run)
    _print_summary(run)
    for record in failed:
        cell = record["cell"]
        name = f"{cell['method']} {cell['variant']}".strip()
        reason = record["error"].partition("\n")[0]
        print(f"failed: {name}, {cell['shots']} shots, seed {cell['seed']}: {reason}", file=sys.stderr)
    print(f"Records are in {a.results}. Tables and figures: python -m bench report --results {a.results}")
    return 1 if failed else 0


def _print_summary(run: Any) -> None:
    """Mean accuracy over tasks and seeds, methods × shots."""
    table = run.table()
    if table.empty:
        return
    table = table[table["part"].isin(["all", "harmonic"])].copy()  # of base and new, the harmonic mean
    table["row"] = (table["method"] + " " + table["variant"]).str.strip()
    per_seed = table.groupby(["row", "shots", "seed"], sort=False)["accuracy"].mean()
    means = per_seed.groupby(["row", "shots"], sort=False).mean().unstack("shots").sort_index(axis=1)
    means.columns = [f"{n} shots" if n else "no training" for n in means.columns]
    demo = " (demo)" if run.suite.demo else ""
    what = "Mean accuracy" if run.protocol == "few-shot" else "Harmonic mean of base and new classes' accuracy,"
    print(f"{what} over {len(run.tasks)} tasks of {run.suite.title}{demo}, {run.backbone.name}, percent:")
    print_table(means.round(1).reset_index(names=""), floatfmt=".1f")


# ---- the rest ------------------------------------------------------------------------------------------------


def _report(argv: list[str]) -> int:
    p = command_parser("report", "Write tables and figures from the records of `run`.", REPORT_EXAMPLES)
    p.add_argument("--results", metavar="DIR", default="runs", help="where the records are (default: %(default)s)")
    p.add_argument("--out", metavar="OUT", default="report", help="where the report goes (default: %(default)s)")
    a = p.read(argv)
    from bench.reports import report

    records = report(a.results, a.out)
    cells = records["key"].nunique()
    print(f"Wrote {a.out}/table.md, table.csv, table.tex, records.csv and {a.out}/figures from {cells} cells.")
    return 0


def _list(argv: list[str]) -> int:
    from bench.catalogue import KINDS, listing

    p = command_parser("list", "What the names on the command line stand for.", LIST_EXAMPLES)
    p.add_argument("what", metavar="|".join(KINDS))
    p.add_argument("pattern", nargs="?", default="*", help="names to show, for example 'ViT-B*'")
    p.add_argument("--suite", metavar="NAME|FILE", help="tasks of one suite")
    a = p.read(argv)
    from fnmatch import fnmatch

    table = listing(a.what, a.suite)
    names = table[table.columns[1 if a.what == "tasks" else 0]]
    found = table[[fnmatch(name.lower(), a.pattern.lower()) for name in names]]
    if found.empty:
        close = nearest(a.pattern, names).partition(" (valid:")[0]  # without all the others
        hint = close if close.startswith("did you mean") else f"`python -m bench list {a.what}` shows all"
        raise UserError(f"list {a.what}: nothing is called {a.pattern!r}; {hint}")
    print_table(found)
    return 0


def _explain(argv: list[str]) -> int:
    p = command_parser("explain", "What a method learns, its formula, its parameters.", EXPLAIN_EXAMPLES)
    p.add_argument("method", metavar="METHOD", help="a name as for --methods")
    a = p.read(argv)
    from bench.explain import explain

    print(explain(a.method))
    return 0


def _cell_arguments(p: Parser) -> None:
    p.add_argument("--cell", metavar="KEY|FILE", required=True, help="a cell's key (its beginning), or its record")
    p.add_argument("--results", metavar="DIR", default="runs", help="where its record is (default: %(default)s)")
    p.add_argument("--task", metavar="NAME", help="one of the cell's tasks")
    p.add_argument("--backbone", metavar="NAME|JSON", help="needed where the cell's backbone was a model JSON")
    p.add_argument("--pretrained", metavar="TAG|FILE", help="its weights, as for run")
    p.add_argument("--method", metavar="MODULE:CLASS", help="needed where the cell's method was your own class")


def _cell(a: argparse.Namespace) -> Any:
    if a.top < 1:
        raise UserError(f"--top {a.top}: at least 1")
    from bench.learned import load_cell

    return load_cell(a.cell, a.results, a.backbone, a.pretrained, a.method)


def _words(argv: list[str]) -> int:
    about = "The vocabulary words nearest to each learned context vector of a finished cell."
    p = command_parser("words", about, WORDS_EXAMPLES)
    _cell_arguments(p)
    p.add_argument("--top", type=int, metavar="N", default=3, help="words a vector (default: %(default)s)")
    a = p.read(argv)
    kept = _cell(a)
    from bench.learned import words

    print_table(words(kept, a.task, a.top), floatfmt=".2f")
    print("In brackets the distance: a word farther away than the vector is long (norm) says little of it.")
    return 0


def _predict(argv: list[str]) -> int:
    about = "The likeliest classes of image files, by what a finished cell has learned."
    p = command_parser("predict", about, PREDICT_EXAMPLES)
    p.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    _cell_arguments(p)
    p.add_argument("--top", type=int, metavar="N", default=3, help="classes an image (default: %(default)s)")
    a = p.read(argv)
    kept = _cell(a)
    from bench.learned import predict

    table = predict(kept, a.images, a.task, a.top)
    names = table["image"].map(lambda path: os.path.basename(path))
    if names.nunique() == table["image"].nunique():  # a table of long paths is hard to read
        table = table.assign(image=names)
    print_table(table, floatfmt=".1f")
    return 0


def _data(argv: list[str]) -> int:
    from bench.cli_data import dispatch

    return dispatch(argv)


def _cache(argv: list[str]) -> int:
    about = "Image features kept so that no view is encoded twice ($BENCH_CACHE moves them)."
    p = command_parser("cache", about, CACHE_EXAMPLES)
    p.add_argument("--clear", action="store_true", help="delete them")
    a = p.read(argv)
    from bench.catalogue import cache
    from bench.features import cache_folder

    table = cache(clear=a.clear)
    print_table(table)
    print(f"{'Deleted' if a.clear else 'Kept'}: {table['MB'].sum():.1f} MB below {cache_folder()}")
    return 0


def names_in(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def print_table(table: Any, floatfmt: str = "g") -> None:
    """Print a table; long cells are wrapped so that it is no wider than the terminal."""
    from tabulate import tabulate

    rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    texts = [[f"{column}  " for column in table.columns], *([_text(value, floatfmt) for value in row] for row in rows)]
    longest = [max(map(len, column)) for column in zip(*texts, strict=True)]
    widths = _fit(longest, shutil.get_terminal_size((120, 24)).columns)
    print(tabulate(rows, headers=list(table.columns), floatfmt=floatfmt, missingval="", maxcolwidths=widths))


def _fit(widths: list[int], total: int) -> list[int]:
    """Column widths that fit: the widest are narrowed, none below 12, and never the first, which holds the names."""
    name, *others = widths
    while others and name + sum(others) + 2 * len(others) > total and max(others) > 12:
        others[others.index(max(others))] -= 1
    return [name, *others]


def _text(value: Any, floatfmt: str) -> str:
    return "" if value is None else format(value, floatfmt) if isinstance(value, float) else str(value)
