"""The commands that show something: report, list, explain, words, predict, predictions, records, cache."""

from __future__ import annotations

import argparse
import os
from typing import Any

from bench.cli.console import Parser, command_parser, print_table
from bench.errors import UserError, nearest

REPORT_EXAMPLES = """\
examples
  python -m bench report
      everything below runs/, into report/: index.html, the same as table.md, table.csv and table.tex, and figures/
  python -m bench report --watch
      while a run goes on: open report/index.html, which shows new cells as they come
  python -m bench report --results runs/rs8 --out rs8-report
      the records of one suite, into a folder of their own
  python -m bench report --methods zero-shot coop softcpt --shots 1 16 --format tex pdf --no-title
      for a paper: some methods at two shot counts, as LaTeX and PDF without titles
"""


EXPLAIN_EXAMPLES = """\
examples
  python -m bench explain softcpt
  python -m bench explain my_package.my_module:MyMethod
  python -m bench explain softcpt --suite general10 --backbone RN50
      also how much the suite's tasks share by their names: the spectrum of the method's kernel, before any training
"""


WORDS_EXAMPLES = """\
examples
  python -m bench words --cell 3f9a2c
      the words nearest to each learned vector; a cell's key is in the line that `run` printed when it was
      finished, in the name of its record and in records.csv
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


PREDICTIONS_EXAMPLES = """\
examples
  python -m bench predictions --cell 3f9a2c
      accuracy of each class, how often it was predicted, and how surely; a cell's key is in records.csv
  python -m bench predictions --cell 3f9a2c --task PlantVillage --confusion
      which classes were taken for which
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


def report_command(argv: list[str]) -> int:
    from bench.reports.config import ReportConfig

    p = command_parser("report", "Write tables and figures from the records that `run` left.", REPORT_EXAMPLES)
    p.add_settings(ReportConfig, "records")
    config = ReportConfig(**vars(p.read(argv)))
    from bench.progress import count
    from bench.reports import write
    from bench.reports.watch import follow

    written = follow(config) if config.watch else write(config)
    out, n = str(config.out), len(written.figures)
    figures = f"{count(n, 'figure')} in {os.path.join(out, 'figures')}" if n else "no figure"
    files = f"{', '.join(written.files)} into {out}, and " if written.files else ""
    print(f"Wrote {files}{figures}, from {count(written.records['key'].nunique(), 'cell')}.")
    for reason in written.not_drawn:
        print(f"Not drawn: {reason}.")
    return 0


def listing_command(argv: list[str]) -> int:
    from bench.catalogue import KINDS, listing

    p = command_parser("list", "The names that other commands take, and what they stand for.", LIST_EXAMPLES)
    p.add_argument("what", metavar="|".join(KINDS))
    p.add_argument("pattern", nargs="?", default="*", help="show only such names, for example 'ViT-B*' (default: all)")
    p.add_argument("--suite", metavar="NAME|FILE", help="show the tasks or classes of this suite only")
    p.add_argument("--task", "--tasks", dest="task", metavar="TASK", help="for classes: of this task (default: all)")
    p.add_argument("--data", metavar="ROOT", help="for classes, tasks: the data sets' folders (default: $BENCH_DATA)")
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


def explain_command(argv: list[str]) -> int:
    p = command_parser("explain", "What a method learns, its formula and its parameters.", EXPLAIN_EXAMPLES)
    p.add_argument("method", metavar="METHOD", help="a name, as for --methods (`python -m bench list methods`)")
    p.add_argument("--suite", metavar="NAME|FILE", help="also the spectrum of its kernel between this suite's tasks")
    p.add_argument("--data", metavar="ROOT", help="the data sets' folders, where names are needed that only they hold")
    p.add_argument("--backbone", metavar="NAME|JSON", help="whose text tower reads the names (default: as for `run`)")
    p.add_argument("--pretrained", metavar="TAG|FILE", help="its weights, as for `run`")
    p.add_list("-o", metavar="METHOD.PARAMETER=VALUE", help="parameters, as for `run`", action="extend")
    a = p.read(argv)
    from bench.catalogue import explain

    given = {"--data": a.data, "--backbone": a.backbone, "--pretrained": a.pretrained, "-o": a.o}
    if useless := [name for name, value in given.items() if value and not a.suite]:
        raise UserError(f"explain {a.method}: {', '.join(useless)} says nothing without --suite")
    print(explain(a.method, a.suite, a.data, a.backbone, a.pretrained, tuple(a.o or ())))
    return 0


def _which_cell(p: Parser) -> None:
    p.add_argument(
        "--cell", metavar="KEY|FILE", required=True, help="the cell's key (the beginning is enough), or its record"
    )
    p.add_argument("--results", metavar="DIR", default="runs", help="where its record is (default: %(default)s)")
    p.add_argument("--task", "--tasks", metavar="TASK", help="one of the cell's tasks")


def _cell_arguments(p: Parser) -> None:
    _which_cell(p)
    p.add_argument("--backbone", metavar="NAME|JSON", help="needed if the cell's backbone was a file that has moved")
    p.add_argument("--pretrained", metavar="TAG|FILE", help="its weights, as for `run`")
    p.add_argument("--method", metavar="MODULE:CLASS", help="needed if the cell's method was a class of your own")


def _cell(a: argparse.Namespace) -> Any:
    if a.top < 1:
        raise UserError(f"--top {a.top}: at least 1")
    from bench.saved import load_cell

    return load_cell(a.cell, a.results, a.backbone, a.pretrained, a.method)


def words_command(argv: list[str]) -> int:
    about = "The words of CLIP's vocabulary that lie nearest to each context vector that a finished cell has learned."
    p = command_parser("words", about, WORDS_EXAMPLES)
    _cell_arguments(p)
    p.add_argument("--top", type=int, metavar="N", default=3, help="words per vector (default: %(default)s)")
    a = p.read(argv)
    kept = _cell(a)
    from bench.saved import words

    print_table(words(kept, a.task, a.top), floatfmt=".2f")
    print("In brackets: the distance. A word that is farther away than the vector is long (norm) says little about it.")
    return 0


def predict_command(argv: list[str]) -> int:
    about = "The likeliest classes of your own images, according to a finished cell."
    p = command_parser("predict", about, PREDICT_EXAMPLES)
    p.add_argument("images", metavar="IMAGE", nargs="+", help="image files, or folders of images")
    _cell_arguments(p)
    p.add_argument("--top", type=int, metavar="N", default=3, help="classes per image (default: %(default)s)")
    a = p.read(argv)
    kept = _cell(a)
    from bench.saved import predict

    table = predict(kept, a.images, a.task, a.top)
    names = table["image"].map(lambda path: os.path.basename(path))
    if names.nunique() == table["image"].nunique():  # a table of long paths is hard to read
        table = table.assign(image=names)
    print_table(table, floatfmt=".1f")
    return 1 if table.attrs["broken"] else 0


def predictions_command(argv: list[str]) -> int:
    about = "What a finished cell predicted for its test images: accuracy per class, confusion, calibration."
    p = command_parser("predictions", about, PREDICTIONS_EXAMPLES)
    _which_cell(p)
    p.add_argument("--confusion", action="store_true", help="show which classes were taken for which, most often first")
    a = p.read(argv)
    from bench.predictions import BINS, chosen, confused, ece, load_predictions, per_class

    frame = chosen(load_predictions(a.cell, a.results), a.task)
    print_table(confused(frame) if a.confusion else per_class(frame), floatfmt=".1f")
    for (task, part), own in frame.groupby(["task", "part"], sort=False, observed=True):
        name = task if part == "all" else f"{task}, {part} classes"
        print(f"{name}: expected calibration error {ece(own):.1f} points ({BINS} bins), of {len(own)} test images")
    return 0


def cache_command(argv: list[str]) -> int:
    about = "The image features that are kept so that nothing is encoded twice ($BENCH_CACHE says where)."
    p = command_parser("cache", about, CACHE_EXAMPLES)
    p.add_argument("--clear", action="store_true", help="delete them")
    a = p.read(argv)
    from bench.catalogue import cache
    from bench.datasets.cache_paths import cache_folder

    table = cache(clear=a.clear)
    print_table(table)
    print(f"{'Deleted' if a.clear else 'Kept'}: {table['MB'].sum():.1f} MB below {cache_folder()}")
    return 0


RECORDS_EXAMPLES = """\
examples
  python -m bench records pack runs --out runs.parquet
      every record below runs/ in one file; `report` reads it like the records themselves
  python -m bench records unpack runs.parquet --out runs-again
      the same files again, byte for byte
"""


def records_command(argv: list[str]) -> int:
    about = "Many records as one file, to keep or hand on, and back."
    p = command_parser("records", about, RECORDS_EXAMPLES)
    p.add_argument("what", choices=["pack", "unpack"], help="into one file, or out of it")
    p.add_argument("source", metavar="DIR|FILE", help="pack: the folder of the records; unpack: the file")
    p.add_argument("--out", metavar="FILE|DIR", required=True, help="pack: the file (.parquet); unpack: the folder")
    a = p.read(argv)
    from bench.packs import left_behind, pack, unpack
    from bench.progress import count

    n = (pack if a.what == "pack" else unpack)(a.source, a.out)
    print(f"{count(n, 'record')} {a.what}ed into {a.out}")
    left = left_behind(a.source) if a.what == "pack" else {}
    if left:
        told = ", ".join(f"{number} {kind}" for kind, number in left.items())
        print(f"Not in the pack, still below {a.source}: {told}. Keep them beside it, in the same folders.")
    return 0


MERGE_EXAMPLES = """\
examples
  python -m bench merge node1/runs node2/runs --into runs
      what two machines computed, in one folder; of a cell that failed on one and was finished on the other, the
      finished record is taken
  python -m bench merge runs-a runs-b --into runs --prefer runs-a
      where both finished a cell with different numbers, take those of runs-a; without --prefer these cells are
      named, and nothing is merged
"""


def merge_command(argv: list[str]) -> int:
    about = "Put the records of several folders, with what their cells learned and predicted, into one."
    p = command_parser("merge", about, MERGE_EXAMPLES)
    p.add_argument("folders", nargs="+", metavar="DIR", help="folders of records, packed ones too")
    p.add_argument("--into", metavar="DIR", required=True, help="the folder that gets them; it may hold some already")
    p.add_argument("--prefer", metavar="DIR", help="one of the folders: its numbers are taken where they differ")
    a = p.read(argv)
    from bench.merging import merge
    from bench.progress import count

    n = merge(a.folders, a.into, a.prefer)
    told = f"{n['new']} new, {n['replaced']} replaced, {n['there']} there already"
    print(f"{count(sum(n.values()), 'cell')} of {count(len(a.folders), 'folder')} in {a.into}: {told}")
    return 0
