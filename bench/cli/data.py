"""The `data` commands: what of a suite is on disk, fetching the rest, and few-shot draws as files."""

from __future__ import annotations

import os
import sys
from typing import Any

from bench.cli.console import Parser, add_draws, add_tasks, command_parser, print_table, settings_of
from bench.datasets.fewshot import DRAWN, NESTED
from bench.errors import UserError, in_a_line, nearest, typed
from bench.settings import many

CHECK_EXAMPLES = """\
examples
  python -m bench data check --suite general10 --data ~/data
  python -m bench data check --suite my-suite.yaml --data ~/data --open
      decode every image, once: finds broken ones, and the same image in two parts
"""

FETCH_EXAMPLES = """\
examples
  python -m bench data fetch --suite general10 --data ~/data --dry-run
      what may be downloaded, how large it is and under which licence, and what must be fetched by hand
  python -m bench data fetch --suite general10 --data ~/data --tasks DTD Food101 --yes
      download and unpack; stop it whenever you like, the same command goes on
"""

SPLITS_EXAMPLES = """\
examples
  python -m bench data splits --suite rs8 --data ~/data --shots 1 16 --seeds 1 2 3 --out draws
      the few-shot draws as files, for others to use, and the division into train, val and test that they are drawn
      from; `run` takes these draws and your own
"""


def dispatch(argv: list[str]) -> int:
    words = {"check": _check_data, "fetch": _fetch_data, "splits": _write_draws}
    if not argv or argv[0] in ("-h", "--help"):
        about = "A suite's data: check what is on disk, fetch the rest, write the few-shot draws as files (splits)."
        examples = CHECK_EXAMPLES + FETCH_EXAMPLES.partition("\n")[2] + SPLITS_EXAMPLES.partition("\n")[2]
        command_parser("data check|fetch|splits", about, examples).print_help()
        return 0
    if argv[0] not in words:
        raise UserError(f"data {argv[0]!r} is unknown; {nearest(argv[0], words)}")
    return words[argv[0]](argv[1:])


def _check_data(argv: list[str]) -> int:
    about = (
        "What of a suite's data is on disk, and what to do about the rest. Exit code: 0 when every task is ready (or "
        "its images are made at first use), 1 when something is missing or broken."
    )
    p = command_parser("data check", about, CHECK_EXAMPLES)
    _data_arguments(p)
    add_tasks(p)
    p.add_argument("--open", action="store_true", help="decode every image: finds broken ones and copies")
    p.add_argument("--json", action="store_true", help="for programs: a list with one object per task")
    a = p.read(argv)
    from bench.catalogue import check
    from bench.datasets.splits import TOLD

    table = check(a.suite, a.data or os.environ.get("BENCH_DATA"), open_images=a.open, tasks=settings_of(a).tasks)
    code = 0 if table["state"].isin(("ready", "at first use")).all() else 1
    if a.json:
        print(table.to_json(orient="records", indent=1))  # in ASCII, which no pipe replaces
        return code
    for kind in ("images", "classes"):
        table[kind] = table[kind].astype(str) + " / " + table[f"{kind}_expected"].astype("string").fillna("?")
    columns = {"images": "images found / expected", "classes": "classes found / expected"}
    hidden = ["images_expected", "classes_expected", "notes", "next"]
    print_table(table.drop(columns=hidden).rename(columns=columns))
    for title, column in (("Worth knowing:", "notes"), ("What to do:", "next")):
        said = table[table[column] != ""]
        if len(said):
            print(f"\n{title}")
        for task, text in zip(said["task"].head(TOLD), said[column].head(TOLD), strict=True):
            print(f"- {task}: {text}")
        if len(said) > TOLD:
            print(f"- … and of {len(said) - TOLD} more tasks; --json has all")
    return code


def _fetch_data(argv: list[str]) -> int:
    about = "Download and unpack the data of a suite as far as it may be downloaded, and say how to get the rest."
    p = command_parser("data fetch", about, FETCH_EXAMPLES)
    _data_arguments(p)
    add_tasks(p)
    p.add_argument("--yes", action="store_true", help="download without asking")
    p.add_argument("--dry-run", action="store_true", help="show what there is to download; download nothing")
    a = p.read(argv)
    from bench.catalogue import fetch

    agreed = False

    def confirm(plan: Any) -> bool:
        nonlocal agreed
        _print_plan(plan)
        if not plan.open or a.dry_run:
            return False
        plan.check_space()
        agreed = a.yes or _asked()
        return agreed

    table = fetch(a.suite, a.data or os.environ.get("BENCH_DATA"), settings_of(a).tasks, confirm)
    if not agreed:
        return 0
    counts = table["state"].value_counts()
    for row in table[table["state"] == "failed"].itertuples():
        print(f"failed: {row.task}, {row.what}: {row.problem}", file=sys.stderr)
    print(", ".join(f"{state}: {counts.get(state, 0)}" for state in ("fetched", "failed", "by hand")))
    words = ["--suite", a.suite, *(["--data", a.data] if a.data else [])]
    print(f"What is there now: python -m bench data check {in_a_line(typed(words))}")
    return 1 if "failed" in counts else 0


def _print_plan(plan: Any) -> None:
    from bench.datasets.transfer import human

    table = plan.table()
    print_table(table[["task", "what", "size", "licence", "checksum", "state"]])
    for folder, steps in table[table["state"] == "by hand"].groupby("to", sort=False):
        print(f"\nBy hand, into {folder}:")
        for row in steps.itertuples():
            details = ", ".join(text for text in (row.size, row.licence and f"licence: {row.licence}") if text)
            link = row[table.columns.get_loc("from") + 1]
            print(f"- {row.what}{f' ({details})' if details else ''}: {row.problem or link}")
    if (table["state"] == "by hand").any():
        print("\nUnpack archives fetched by hand into the folder named.")
    if (table["what"].str.startswith("split_") & (table["state"] == "by hand")).any():
        print("split_*.json are CoOp's divisions. Without one the images are divided by the task's own rule.")
    print()
    for note in plan.notes:
        print(f"Note: {in_a_line(note)}.")
    if not plan.open:
        print(f"Nothing is left to download; {(table['state'] == 'have').sum()} of {len(table)} are there.")
        return
    unknown = sum(not step.source.n_bytes for step in plan.open)
    more = f" and {unknown} of unknown size" if unknown else ""
    from bench.progress import count

    files = count(len(plan.open), "file")
    print(f"To download: {files}, {human(plan.to_download)}{more}, into {in_a_line(str(plan.root))}.")
    enough = "" if plan.needed <= plan.free else ": not enough"
    print(f"On disk, while unpacking: {human(plan.needed)} are needed, {human(plan.free)} are free{enough}.")


def _asked() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        print("Nothing is downloaded yet: add --yes.")
        return False
    try:
        return input("Download? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False


def _write_draws(argv: list[str]) -> int:
    about = "Write the divisions and few-shot draws of a suite's tasks as files."
    p = command_parser("data splits", about, SPLITS_EXAMPLES)
    _data_arguments(p)
    add_tasks(p)
    add_draws(p)
    p.add_argument("--out", metavar="DIR", default="draws", help="where they go (default: %(default)s)")
    p.add_argument(
        "--like", metavar="|".join(DRAWN), default=NESTED,
        help="the bench's own draws, or as CoOp's code makes them from a split file's order (default: %(default)s)",
    )  # fmt: skip
    p.add_argument("--allow-missing", action="store_true", help="leave out tasks whose data is missing")
    a = p.read(argv)
    from bench.catalogue import write_draws

    settings = settings_of(a)
    tasks, shots, seeds = settings.tasks, many(settings.shots), many(settings.seeds)
    data = a.data or os.environ.get("BENCH_DATA")
    print_table(write_draws(a.suite, data, a.out, shots, seeds, tasks, a.allow_missing, a.like))
    lists = {"--tasks": tasks, "--shots": shots, "--seeds": seeds}
    given = [word for option, values in lists.items() if values for word in (option, *map(str, values))]
    words = ["--suite", a.suite, *(["--data", a.data] if a.data else []), *given, "--draws", a.out]
    print(f"`python -m bench run {typed(words)}` uses them.")
    return 0


def _data_arguments(p: Parser) -> None:
    p.add_argument("--suite", metavar="NAME|FILE", required=True, help="a suite's name, or the path of a suite file")
    p.add_argument("--data", metavar="ROOT", help="the folder that holds the data sets (default: $BENCH_DATA)")
