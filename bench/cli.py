"""The command line: `python -m bench run | report | …`. Every command is one Python call.

The `data` commands stand in `cli_data.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, NoReturn

from bench.config import ALIASES, GROUPS, RunConfig, is_list, load_experiment, option_of
from bench.errors import WINDOWS, UserError, nearest, typed

RUN_EXAMPLES = """\
examples
  python -m bench run
      the embedded demo: 4 methods, 5 shot counts, 3 seeds; a few minutes on two CPU cores
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

REPORT_EXAMPLES = """\
examples
  python -m bench report
      everything below runs/, into report/: table.md, table.csv, table.tex, records.csv and figures/
  python -m bench report --results runs/rs8 --out rs8-report
      the records of one suite, into a folder of their own
"""

EXPLAIN_EXAMPLES = """\
examples
  python -m bench explain softcpt
  python -m bench explain my_package.my_module:MyMethod
"""

WORDS_EXAMPLES = """\
examples
  python -m bench words --cell 3f9a2c
      the words nearest to each learned vector; you find a cell's key in the name of its record and in records.csv
  python -m bench words --cell runs/demo/demo-clip/coop/16shot-seed1-3f9a2c….json --task scenes --top 5
      the same for one task, with five words for each vector
"""

PREDICT_EXAMPLES = """\
examples
  python -m bench predict leaf1.jpg leaf2.jpg --cell 3f9a2c --task PlantVillage
  python -m bench predict photos --cell 3f9a2c --task PlantVillage --top 1
      all images in a folder and in the folders below it
  python -m bench predict photos/*.jpg --cell 3f9a2c --task PlantVillage --backbone my/clip.json
"""

LIST_EXAMPLES = """\
examples
  python -m bench list methods
  python -m bench list tasks --suite rs8
  python -m bench list classes --suite rs8 --task AID --data ~/data
      each class with its label and the prompts that the template makes
  python -m bench list backbones 'ViT-B*'
"""

CACHE_EXAMPLES = """\
examples
  python -m bench cache
      what is kept, and how large it is
  python -m bench cache --clear
      delete it; whatever is needed again is made again
"""

SHOTS, SEEDS = "1,2,4,8,16", "1,2,3"  # of the data commands

TOP = """\
Compare prompt-tuning methods for CLIP: one harness, one recipe, one report.

  python -m bench run       train and test a grid of methods, shots and seeds
  python -m bench report    tables and figures from what was run
  python -m bench list      suites, tasks, methods, backbones
  python -m bench explain   a method: what is learned, its formula, its parameters
  python -m bench words     the words nearest to what a finished cell has learned
  python -m bench predict   what a finished cell sees in your own images
  python -m bench data      check which data sets are on disk, fetch the rest, write few-shot draws as files
  python -m bench cache     the stored image features

Every command has a --help with examples; start with `python -m bench run --help`.
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """`--tasks, --task TASK [TASK ...]` with the values once, as from Python 3.13 on."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {values}"


class Parser(argparse.ArgumentParser):
    """argparse, with mistakes as one line and the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def add_list(self, *names: str, metavar: str, help: str, group: Any = None, action: str = "store") -> None:
        """An option that takes several values, with commas or blanks between them."""
        (group or self).add_argument(*names, metavar=metavar, nargs="+", action=action, help=help)

    def read(self, argv: list[str]) -> argparse.Namespace:
        lists = {name for action in self._actions if action.nargs == "+" for name in action.option_strings}
        words = []
        for word in argv:  # argparse would end the list after the first of `--shots=1 2 4`
            option, equals, value = word.partition("=")
            words += [option, value] if equals and option in lists else [word]
        known, rest = self.parse_known_args(words)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            hint = f"; {nearest(rest[0].partition('=')[0], options)}" if rest[0].startswith("-") else ""
            raise UserError(f"unknown argument {rest[0]!r}{hint}")
        return known


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 some cells failed, 2 a user's mistake, 130 Ctrl-C."""
    # Before torch is loaded: threads that wait in a spin take a busy machine's time from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that a console or pipe cannot take becomes "?"
            stream.reconfigure(errors="replace")
    code = 0
    try:
        with _warnings_in_a_line():
            code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except UserError as error:
        return _say(f"error: {error}", 2)
    except KeyboardInterrupt as stop:
        detail = f": {stop}, and kept" if str(stop) else ""
        return _say(f"\nstopped{detail}. Type the same command to go on.", 130)
    except OSError as error:
        if _nobody_reads(error):
            return code
        # A folder that cannot be written, a full disk: nothing a traceback would explain.
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"error: {where}{error.strerror or error}", 2)
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == "utf-8":
            raise
        known = f"this system's encoding of file names, {sys.getfilesystemencoding()}, lacks letters of it"
        return _say(f"error: {error.object!a}: {known}; set PYTHONUTF8=1, or a locale with UTF-8", 2)
    finally:
        _let_go()


def _say(text: str, code: int) -> int:
    with contextlib.suppress(OSError):  # nobody reads it
        print(text, file=sys.stderr)
    return code


def _nobody_reads(error: OSError) -> bool:
    """Whether the reader of our output (head, less) has seen enough; Windows has another error for it."""
    windows = WINDOWS and error.errno == errno.EINVAL and error.filename is None
    return isinstance(error, BrokenPipeError) or windows


def _let_go() -> None:
    """Turn streams that nobody reads to nowhere: Python flushes them once more at its end, and would complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # ValueError: closed; AttributeError: a process without a console
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Warnings as errors are shown: without the place in the code that a user can do nothing about."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


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
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


# ---- run -----------------------------------------------------------------------------------------------------


def _run_parser() -> Parser:
    about = "Train methods on a few images per class and test them. Every finished cell leaves one record."
    p = command_parser("run", about, RUN_EXAMPLES)
    p.add_argument(
        "experiment", nargs="?", metavar="EXPERIMENT.yaml",
        help="a file with settings by their names below (methods: [coop, softcpt], shots: 16); options stand above it",
    )  # fmt: skip
    add_settings(p)
    p.add_argument("--dry-run", action="store_true", help="print the cells and what is there already; run nothing")
    p.add_argument(
        "--perturb", type=int, metavar="N",
        help="tell how much of the accuracies is rounding: train each cell once as it is and N times from numbers "
        "changed by 1e-7 of themselves; records nothing",
    )  # fmt: skip
    return p


def add_settings(p: Parser) -> None:
    """The fields of `RunConfig` as options. What the parser returns holds only those that are typed."""
    lists = " (lists take commas or blanks between values)"
    groups = {name: p.add_argument_group(name + lists * (name == GROUPS[0])) for name in GROUPS}
    for f in fields(RunConfig):
        about, default, group = f.metadata, f.default, groups[f.metadata["group"]]
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        how: dict[str, Any] = {"dest": f.name, "default": argparse.SUPPRESS}
        how["help"] = about["help"].replace("%(default)s", shown)
        if isinstance(default, bool):
            how |= {"action": "store_const", "const": not default}
        else:
            how["metavar"] = about["metavar"] or "|".join(about["choices"])
        if is_list(f):
            how |= {"nargs": "+", "action": "extend" if option_of(f) == "-o" else "store"}
        group.add_argument(option_of(f), *([ALIASES[f.name]] if f.name in ALIASES else []), **how)


def add_tasks(p: Parser, group: Any = None) -> None:
    p.add_list("--tasks", "--task", metavar="TASK", group=group, help="some of the suite's tasks (default: all)")


def add_draws(p: Parser, group: Any = None) -> None:
    p.add_list("--shots", "--shot", metavar="N", group=group, help=f"training images per class (default: {SHOTS})")
    p.add_list("--seeds", "--seed", metavar="N", group=group, help=f"of the few-shot draws (default: {SEEDS})")


def draws_of(a: argparse.Namespace) -> tuple[list[int], list[int]]:
    """The shots and seeds that were given, or the defaults."""
    from bench.options import numbers

    shots = numbers(a.shots or [SHOTS], "--shots", least=1)
    return shots, numbers(a.seeds or [SEEDS], "--seeds", least=0)


def tasks_of(a: argparse.Namespace) -> list[str] | None:
    """The names of tasks that were given; None: all."""
    from bench.options import names

    if a.tasks is None:
        return None
    found = names(a.tasks)
    if not found:
        raise UserError(f"--tasks {' '.join(a.tasks)!r}: names no task; give some, or leave --tasks out for all")
    return found


def _run(argv: list[str]) -> int:
    # Only texts are looked at before torch is loaded: a typing mistake is answered at once.
    typed_in = vars(_run_parser().read(argv))
    experiment, dry_run, perturb = (typed_in.pop(name) for name in ("experiment", "dry_run", "perturb"))
    if experiment and not experiment.endswith((".yaml", ".yml")):
        raise UserError(f"unknown argument {experiment!r}; an experiment file ends in .yaml")
    config = RunConfig(**{**(load_experiment(experiment) if experiment else {}), **typed_in})
    if perturb is not None:
        if perturb < 1:
            raise UserError(f"--perturb {perturb}: at least 1")
        for given, name in ((config.profile, "--profile"), (config.seeds_at_once, "--seeds-at-once")):
            if given:
                raise UserError(f"--perturb {perturb}: does not go with {name}, for it trains cell by cell")
    from bench.datasets.splits import select_tasks
    from bench.datasets.suites import load_suite

    select_tasks(load_suite(config.suite or "demo"), config.tasks)
    from bench.plan import prepare
    from bench.progress import count
    from bench.runner import OTHER_CODE, execute

    if config.suite is None and not config.data:
        print("Running the embedded demo. For real data: --suite general10|plant6|rs8|fashion20 --data ROOT")
    run = prepare(config)
    left_out = len(run.suite.tasks) - len(run.tasks)
    if left_out and not config.tasks:
        there = {t.name for t in run.tasks}
        missing = [t.name for t in run.suite.tasks if t.name not in there]
        print(f"Left out, no data: {', '.join(missing)}")
    for name, why in run.left_out.items():
        print(f"Left out, {name} cannot score new classes: {why}")
    if dry_run:
        plan = run.overview()
        print_table(plan)
        print(f"{len(plan)} cells, {(plan['state'] == 'done').sum()} done, {(plan['state'] != 'done').sum()} to run")
        other = run.of_other_code()
        if other:
            print(OTHER_CODE.format(count(other, "cell")))
        return 0
    if perturb:
        from bench.perturb import SIZE, spread

        print_table(spread(run, perturb), floatfmt=".2f")
        print(f"Accuracy over tasks and seeds, percent; sd and range (max - min) over {perturb + 1} trainings a")
        print(f"cell, all but the first from numbers changed by {SIZE:g} of themselves. Nothing was recorded.")
        return 0
    failed = execute(run)
    _print_summary(run)
    if failed:
        beside = run.store.path(failed[0]["cell"], failed[0]["key"])
        print(f"{count(len(failed), 'cell')} failed, see above; the same command tries them again", file=sys.stderr)
        print(f"        traceback in {beside}", file=sys.stderr)
    where = str(config.results)
    print(f"Records are in {where}. Tables and figures: python -m bench report --results {typed([where])}")
    return 1 if failed else 0


def _print_summary(run: Any) -> None:
    """Mean accuracy over tasks and seeds, methods × shots."""
    from bench.progress import count

    table = run.table()
    if table.empty:
        return
    table = table[table["part"].isin(["all", "harmonic"])].copy()  # of base and new, the harmonic mean
    table["row"] = (table["method"] + " " + table["variant"]).str.strip()
    per_seed = table.groupby(["row", "shots", "seed"], sort=False)["accuracy"].mean()
    means = per_seed.groupby(["row", "shots"], sort=False).mean().unstack("shots").sort_index(axis=1)
    means.columns = [count(n, "shot") if n else "no training" for n in means.columns]
    demo = " (demo)" if run.suite.demo else ""
    what = "Mean accuracy" if run.protocol == "few-shot" else "Harmonic mean of base and new classes' accuracy,"
    tasks = count(len(run.tasks), "task")
    print(f"{what} over {tasks} of {run.suite.title}{demo}, {run.backbone.name}, percent:")
    print_table(means.round(1).reset_index(names=""), floatfmt=".1f")


# ---- the rest ------------------------------------------------------------------------------------------------


def _report(argv: list[str]) -> int:
    p = command_parser("report", "Write tables and figures from the records that `run` left.", REPORT_EXAMPLES)
    p.add_argument("--results", metavar="DIR", default="runs", help="where the records are (default: %(default)s)")
    p.add_argument("--out", metavar="OUT", default="report", help="where the report goes (default: %(default)s)")
    a = p.read(argv)
    from bench.reports import write

    written = write(a.results, a.out)
    n = len(written.figures)
    figures = f"and {n} figure{'s' * (n > 1)} in {os.path.join(a.out, 'figures')}" if n else "and no figure"
    cells = written.records["key"].nunique()
    print(f"Wrote table.md, table.csv, table.tex and records.csv into {a.out}, {figures}, from {cells} cells.")
    for reason in written.not_drawn:
        print(f"Not drawn: {reason}.")
    return 0


def _list(argv: list[str]) -> int:
    from bench.catalogue import KINDS, listing

    p = command_parser("list", "The names that other commands take, and what they stand for.", LIST_EXAMPLES)
    p.add_argument("what", metavar="|".join(KINDS))
    p.add_argument("pattern", nargs="?", default="*", help="show only such names, for example 'ViT-B*' (default: all)")
    p.add_argument("--suite", metavar="NAME|FILE", help="show the tasks or classes of this suite only")
    p.add_argument("--task", "--tasks", dest="task", metavar="TASK", help="for classes: of this task (default: all)")
    p.add_argument("--data", metavar="ROOT", help="for classes: the data sets' folders (default: $BENCH_DATA)")
    a = p.read(argv)
    from fnmatch import fnmatch

    table = listing(a.what, a.suite, a.task, a.data or os.environ.get("BENCH_DATA"))
    names = table[{"tasks": "task", "classes": "class"}.get(a.what, table.columns[0])]
    found = table[[fnmatch(name.lower(), a.pattern.lower()) for name in names]]
    if found.empty:
        close = nearest(a.pattern, names).partition(" (valid:")[0]  # without all the others
        hint = close if close.startswith("did you mean") else f"`python -m bench list {a.what}` shows all"
        raise UserError(f"list {a.what}: nothing is called {a.pattern!r}; {hint}")
    print_table(found)
    return 0


def _explain(argv: list[str]) -> int:
    p = command_parser("explain", "What a method learns, its formula and its parameters.", EXPLAIN_EXAMPLES)
    p.add_argument("method", metavar="METHOD", help="a name, as for --methods (`python -m bench list methods`)")
    a = p.read(argv)
    from bench.explain import explain

    print(explain(a.method))
    return 0


def _cell_arguments(p: Parser) -> None:
    p.add_argument(
        "--cell", metavar="KEY|FILE", required=True, help="the cell's key (the beginning is enough), or its record"
    )
    p.add_argument("--results", metavar="DIR", default="runs", help="where its record is (default: %(default)s)")
    p.add_argument("--task", "--tasks", metavar="TASK", help="one of the cell's tasks")
    p.add_argument("--backbone", metavar="NAME|JSON", help="needed if the cell's backbone was a file that has moved")
    p.add_argument("--pretrained", metavar="TAG|FILE", help="its weights, as for `run`")
    p.add_argument("--method", metavar="MODULE:CLASS", help="needed if the cell's method was a class of your own")


def _cell(a: argparse.Namespace) -> Any:
    if a.top < 1:
        raise UserError(f"--top {a.top}: at least 1")
    from bench.learned import load_cell

    return load_cell(a.cell, a.results, a.backbone, a.pretrained, a.method)


def _words(argv: list[str]) -> int:
    about = "The words of CLIP's vocabulary that lie nearest to each context vector that a finished cell has learned."
    p = command_parser("words", about, WORDS_EXAMPLES)
    _cell_arguments(p)
    p.add_argument("--top", type=int, metavar="N", default=3, help="words per vector (default: %(default)s)")
    a = p.read(argv)
    kept = _cell(a)
    from bench.learned import words

    print_table(words(kept, a.task, a.top), floatfmt=".2f")
    print("In brackets: the distance. A word that is farther away than the vector is long (norm) says little about it.")
    return 0


def _predict(argv: list[str]) -> int:
    about = "The likeliest classes of your own images, by what a finished cell has learned."
    p = command_parser("predict", about, PREDICT_EXAMPLES)
    p.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of images")
    _cell_arguments(p)
    p.add_argument("--top", type=int, metavar="N", default=3, help="classes per image (default: %(default)s)")
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
    about = "The image features that are kept so that nothing is encoded twice ($BENCH_CACHE says where)."
    p = command_parser("cache", about, CACHE_EXAMPLES)
    p.add_argument("--clear", action="store_true", help="delete them")
    a = p.read(argv)
    from bench.catalogue import cache
    from bench.features import cache_folder

    table = cache(clear=a.clear)
    print_table(table)
    print(f"{'Deleted' if a.clear else 'Kept'}: {table['MB'].sum():.1f} MB below {cache_folder()}")
    return 0


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
