"""The command line: every option does what it says, every mistake is one line and exit code 2."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

import bench
import bench.runner
from bench.cli import main
from bench.cli.console import print_table, settings_of
from bench.cli.run import _parser, _print_summary
from bench.clip.backbone import PAPER_BACKBONES
from bench.methods.coop import CoOp
from bench.options import names

pytestmark = pytest.mark.usefixtures("one_thread")

Capture = pytest.CaptureFixture[str]


def mistake(command: list[str], capsys: Capture) -> str:
    """The one line that a mistaken command answers with."""
    capsys.readouterr()
    assert main(command) == 2
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("error: ")
    assert "Traceback" not in shown.out + shown.err
    return lines[0]


COMMANDS = ["run", "report", "list", "explain", "words", "predict", "relate", "cache"]

# ---- help ----------------------------------------------------------------------------------------------------


def test_bench_alone_says_what_there_is(capsys: Capture) -> None:
    assert main([]) == 0
    alone = capsys.readouterr().out
    for command in COMMANDS:
        assert f"python -m bench {command}" in alone
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == alone


@pytest.mark.parametrize("command", [*COMMANDS, "data check", "data fetch", "data splits"])
def test_help_teaches_by_example(command: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    examples = shown.partition("examples\n")[2]
    assert f"python -m bench {command}" in examples
    for option in re.findall(r"(?<!\S)--[a-z-]+", examples):  # no example shows what is not there
        assert f"{option}" in shown.partition("examples\n")[0]


def test_help_of_run_names_every_option_of_the_python_call(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = capsys.readouterr().out
    for option in ("suite", "tasks", "methods", "shots", "seeds", "data", "allow-missing", "backbone", "pretrained",
                   "views", "device", "results", "dry-run"):  # fmt: skip
        assert f"--{option}" in shown
    assert "-o METHOD.PARAMETER=VALUE" in shown


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == bench.__version__


# ---- a process of its own ------------------------------------------------------------------------------------

TYPOS = [
    ["rum"],
    ["run", "--suite", "general"],
    ["run", "--suite", "no/such.yaml"],
    ["run", "--tasks", "Color"],
    ["run", "--shots", "a"],
    ["run", "--seeds", "-1"],
    ["run", "--device", "tpu"],
    ["run", "--views", "0"],
    ["run", "--metods", "coop"],
    ["data", "fech"],
    ["data", "fetch", "--suite", "general"],
    ["list", "metods"],
    ["list", "suites", "generel10"],
    ["report", "--results"],
]


def test_typos_are_answered_before_torch_is_loaded() -> None:
    code = "import sys; from bench.cli import main\n"
    code += f"for command in {TYPOS!r}: print(main(command), 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)  # noqa: S603 - a list of our own words, and no shell
    assert ended.stdout.splitlines() == ["2 False"] * len(TYPOS), ended.stderr
    lines = ended.stderr.splitlines()
    assert len(lines) == len(TYPOS)
    assert all(line.startswith("error: ") for line in lines)


def test_python_m_bench_gives_the_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "run", "--shots", "0"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)  # noqa: S603 - a list of our own words, and no shell
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: --shots '0': 0 is less than 1\n"


def test_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m bench list suites | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)  # noqa: S603, S607 - the system's bash, and our own words
    assert (ended.returncode, ended.stderr) == (0, "")


# ---- options -------------------------------------------------------------------------------------------------


def test_run_prints_a_table_of_methods_and_shots_and_where_to_go_on(tiny: Any, tmp_path: Path, capsys: Capture) -> None:
    assert main(tiny.command(tmp_path / "runs")) == 0
    shown = capsys.readouterr().out
    assert "Mean accuracy over 3 tasks of Tiny, tiny-clip, percent:" in shown
    header, _, zero_shot, coop = shown.splitlines()[1:5]
    assert re.split(r"  +", header.strip()) == ["no training", "1 shot", "2 shots"]
    records = tiny.records(tmp_path / "runs").values()
    assert float(zero_shot.split()[1]) == pytest.approx(
        next(r["score"] for r in records if r["cell"]["shots"] == 0), abs=0.05
    )
    two = [r["score"] for r in records if r["cell"]["shots"] == 2]
    assert float(coop.split()[2]) == pytest.approx(sum(two) / 2, abs=0.05)
    assert f"python -m bench report --results {tmp_path / 'runs'}" in shown


def test_a_seed_without_all_its_folds_counts_in_no_mean_of_the_run(capsys: Capture) -> None:
    told = [("softcpt", 1, task, accuracy) for task, accuracy in [("a", 50.0), ("b", 60.0)]]
    told += [("softcpt", 2, "b", 99.0), ("coop-tree", 2, "a", 98.0)]  # their other folds failed
    rows = [{"part": "all", "method": m, "seed": s, "task": t, "accuracy": a} for m, s, t, a in told]
    table = pd.DataFrame(rows).assign(variant="", setting="", shots=4)
    named = {"suite": SimpleNamespace(title="Two"), "target": None, "backbone": SimpleNamespace(name="clip")}
    _print_summary(SimpleNamespace(table=lambda: table, demo=False, protocol=SimpleNamespace(score="Mean"), **named))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "Mean over 2 tasks of Two, clip, percent:"
    assert [line.split() for line in shown[3:5]] == [["softcpt", "55.0"], ["coop-tree"]]
    assert shown[5:] == [
        "Left out, softcpt, 4 shots, seed 2: 1 of 2 tasks scored",
        "Left out, coop-tree, 4 shots, seed 2: 1 of 2 tasks scored",
    ]


def test_every_option_reaches_the_cells(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tiny.data))
    command = ["run", "--suite", tiny.suite, "--tasks", "shade,Colour", "--methods", "coop", "--shots", "2,1,2"]
    command += ["--seeds", "0, 5", "--backbone", tiny.backbone, "--views", "1", "--device", "cpu", "-o", "coop.lr=0.25"]
    command += ["--pretrained", str(Path(tiny.backbone).with_suffix(".safetensors")), "-o", "all.context=2"]
    assert main([*command, "--results", str(tmp_path / "runs")]) == 0
    records = tiny.records(tmp_path / "runs").values()
    assert sorted((r["cell"]["shots"], r["cell"]["seed"]) for r in records) == [(1, 0), (1, 5), (2, 0), (2, 5)]
    for r in records:
        assert [t["task"] for t in r["tasks"]] == ["Colour", "Shade"]
        assert r["cell"]["variant"] == "lr=0.25,context=2"
        assert (r["config"]["views"], r["config"]["params"]["lr"], r["device"]) == (1, 0.25, "cpu")


def test_lists_take_commas_and_blanks_and_their_option_one_or_many(tiny: Any, tmp_path: Path) -> None:
    where = ["--suite", tiny.suite, "--data", str(tiny.data), "--backbone", tiny.backbone, "--dry-run"]
    forms = [
        ["--methods", "coop,softcpt", "--shots", "1,2,4", "--seeds", "1,2", "--tasks", "Colour,Shade"],
        ["--methods", "coop", "softcpt", "--shots", "1", "2", "4", "--seeds", "1", "2", "--tasks", "Colour", "Shade"],
        ["--method", "CoOp,", "SoftCPT", "--shot=1", "2,4", "--seed=1,", "2", "--task", "COLOUR", "shade"],
    ]
    plans = []
    for form in forms:
        a = _parser().read(["run", *where, *form][1:])
        given = settings_of(a)
        plans.append((names(a.methods), given.shots, given.seeds, given.tasks))
        assert main(["run", *where, *form, "--results", str(tmp_path / "runs")]) == 0
    assert plans[0] == plans[1] == (["coop", "softcpt"], (1, 2, 4), (1, 2), ("Colour", "Shade"))
    assert plans[2] == (["CoOp", "SoftCPT"], (1, 2, 4), (1, 2), ("COLOUR", "shade"))


def test_several_options_of_methods_may_follow_one_o(tiny: Any, tmp_path: Path, capsys: Capture) -> None:
    few = ["--methods", "coop", "--shots", "1", "--seeds", "1", "--dry-run"]
    options = ["-o", "coop.context=2", "coop.lr=0.25", "-o=coop.epochs=3"]
    assert main(tiny.command(tmp_path / "runs", *few, *options)) == 0
    assert "1 cell, 0 done" in capsys.readouterr().out
    a = _parser().read(options)
    assert a.options == ["coop.context=2", "coop.lr=0.25", "coop.epochs=3"]


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--tasks"], ["run", "--task"], ["data", "fetch", "--tasks"], ["data", "fetch", "--task"],
        ["data", "splits", "--tasks"], ["data", "splits", "--task"],
    ],
)  # fmt: skip
def test_a_task_of_another_name_is_answered_alike(command: list[str], capsys: Capture, tmp_path: Path) -> None:
    line = mistake([*command, "ucm", "--suite", "rs8", "--data", str(tmp_path)], capsys)
    assert re.search(r"suite rs8 has no task 'ucm'; did you mean 'UCMerced'\?", line)


@pytest.mark.parametrize(("one", "many"), [("suite", "suites"), ("Task", "tasks"), ("method", "methods")])
def test_list_takes_one_or_many_of_a_kind(one: str, many: str, capsys: Capture) -> None:
    assert main(["list", one]) == 0
    alone = capsys.readouterr().out
    assert main(["list", many]) == 0
    assert capsys.readouterr().out == alone


def test_methods_all_means_every_method(tiny: Any, tmp_path: Path, capsys: Capture) -> None:
    command = tiny.command(tmp_path / "runs", "--methods", "all", "--shots", "1", "--seeds", "1", "--dry-run")
    assert main(command) == 0
    shown = capsys.readouterr().out
    for name in bench.listing("methods")["method"]:
        assert re.search(rf"\b{name}\b", shown)


def test_dry_run_touches_no_results(tiny: Any, tmp_path: Path) -> None:
    assert main(tiny.command(tmp_path / "runs", "--dry-run")) == 0
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr("bench.datasets.demo.IMAGES_PER_CLASS", {"train": 1, "val": 1, "test": 1})


@pytest.mark.usefixtures("small_demo")
def test_without_suite_and_data_the_demo_runs_and_says_so_in_one_line(
    tiny: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nowhere"))  # somebody's usual data are no reason to fail
    command = ["run", "--backbone", tiny.backbone, "--methods", "zero-shot", "--results", str(tmp_path / "runs")]
    assert main(command) == 0
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert "demo" in first and "--suite" in first and "--data ROOT" in first
    assert "(demo)" in second
    (record,) = tiny.records(tmp_path / "runs").values()
    assert record["demo"] is True
    assert record["note"]
    assert len(record["tasks"]) == 5


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_time_left_on_a_terminal_and_a_line_a_cell_everywhere(
    tiny: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(tiny.command(tmp_path / "plain")) == 0
    records = {r["cell"]["method"] + str(r["cell"]["shots"]) + str(r["cell"]["seed"]): r
               for r in tiny.records(tmp_path / "plain").values()}  # fmt: skip
    first, *trained = capsys.readouterr().err.splitlines()
    took, key = r"\d+(\.\d)? s", "key [0-9a-f]{8}"
    assert f", key {records['zero-shot00']['key'][:8]} (" in first  # what `words` and `predict` ask for
    assert re.fullmatch(rf"zero-shot: {records['zero-shot00']['score']:.1f} % in {took}, {key} \(1 of 5\)", first)
    cells = [(1, "1 shot"), (2, "2 shots"), (1, "1 shot"), (2, "2 shots")]  # seed by seed
    for line, (n, shots), seed, place in zip(trained, cells, (1, 1, 2, 2), (2, 3, 4, 5), strict=True):
        score = f"{records[f'coop{n}{seed}']['score']:.1f}"
        marks = re.escape("".join(f"; {mark}" for mark in records[f"coop{n}{seed}"]["marks"]))
        assert re.fullmatch(rf"coop, {shots}, seed {seed}: {score} % in {took}, {key}{marks} \({place} of 5\)", line)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(tiny.command(tmp_path / "runs", "--seeds", "1")) == 0
    assert re.search(r"coop, 2 shots, seed 1: .*\d/3 \[\d+:\d+<\d+:\d+", terminal.getvalue())
    assert re.search(rf"\rcoop, 2 shots, seed 1: \d+\.\d % in {took}, {key}.* \(3 of 3\)\n", terminal.getvalue())
    shown = terminal.getvalue()
    bench.run(results=str(tmp_path / "quiet"), quiet=True, **tiny.arguments)
    assert terminal.getvalue() == shown


def test_tables_are_no_wider_than_the_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for what in ("suites", "tasks", "methods", "backbones"):
        assert main(["list", what]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 100, what
        assert len(lines) > 5


def test_a_table_whose_words_do_not_fit_a_narrow_terminal_is_written_row_by_row(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://example.org/a/b/c"  # 25 letters
    table = pd.DataFrame({"suite": ["rs8", "demo"], "tasks": [8, 5], "note": ["remote sensing", None], "from": url})
    monkeypatch.setenv("COLUMNS", "55")
    print_table(table)
    assert capsys.readouterr().out.splitlines()[2:4] == [f"rs8            8  remote   {url}", " " * 18 + "sensing"]
    monkeypatch.setenv("COLUMNS", "40")
    print_table(table)
    rows = ["rs8", "  tasks: 8", "  note: remote sensing", f"  from: {url}", "demo", "  tasks: 5", f"  from: {url}"]
    assert capsys.readouterr().out.splitlines() == rows
    monkeypatch.setenv("COLUMNS", "20")  # no column is narrower than 9
    print_table(pd.DataFrame({"a": ["x"], "b": ["aa bb cc dd ee"], "c": ["aa bb cc dd ee"]}))
    assert capsys.readouterr().out.splitlines()[2:] == ["x    aa bb cc  aa bb cc", "     dd ee     dd ee"]


def test_an_unknown_method_is_said_as_the_command_took_it(capsys: Capture) -> None:
    assert main(["explain", "sofcpt"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: explain 'sofcpt' is unknown; did you mean 'softcpt'?") and "--methods" not in said


# ---- list ----------------------------------------------------------------------------------------------------


def test_list_suites(capsys: Capture) -> None:
    assert main(["list", "suites"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^general10 +General-10 +10 +1191", shown, re.M)
    assert re.search(r"^demo ", shown, re.M)
    assert re.search(r"^fashion20 +Fashion-20 +20 +\D", shown, re.M)  # its classes stand in the user's copy


def test_list_tasks_of_one_suite(tiny: Any, capsys: Capture) -> None:
    assert main(["list", "tasks", "--suite", "rs8"]) == 0
    shown = capsys.readouterr().out
    assert "NWPU-RESISC45" in shown
    assert "Food101" not in shown
    assert main(["list", "tasks", "Str*", "--suite", tiny.suite]) == 0
    shown = capsys.readouterr().out
    assert "Stripes" in shown
    assert "Shade" not in shown


def test_list_classes_shows_labels_names_and_prompts(own_tiny: Any, capsys: Capture) -> None:
    suite = Path(own_tiny.suite)
    suite.write_text(suite.read_text().replace('"{} things."', '["{} things.", "some {} things."]'))
    before = sorted(own_tiny.root.rglob("*"))
    command = ["list", "classes", "--suite", own_tiny.suite, "--data", str(own_tiny.data)]
    assert main([*command, "--task", "colour"]) == 0
    rows = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["task", "label", "class", "prompt"]
    assert [[cell.strip() for cell in row] for row in rows[2:]] == [
        ["Colour", "0", "blue paint", "a photo of blue paint."],
        ["Colour", "1", "green paint", "a photo of green paint."],
        ["Colour", "2", "red paint", "a photo of red paint."],
    ]
    assert main([*command[:2], "grey", *command[2:]]) == 0  # one line a prompt
    shown = capsys.readouterr().out
    assert "grey things." in shown and "some grey things." in shown and "dark" not in shown
    assert sorted(own_tiny.root.rglob("*")) == before  # nothing is divided for good
    assert main(["list", "classes"]) == 2
    assert "name a suite with --suite" in capsys.readouterr().err
    shutil.rmtree(own_tiny.data / "shade")
    assert main(command) == 0
    assert re.search(r"Shade .*no data: ", capsys.readouterr().out)


def test_list_methods_shows_what_they_are_and_their_defaults(capsys: Capture) -> None:
    assert main(["list", "methods", "coop"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "recipe, context=16" in shown and "2109.01134" in shown
    assert shown.count("epochs=50") == 1 and "recipe: epochs=50, batch=32, lr=0.002," in shown  # of all, once
    params = bench.listing("methods").set_index("method")["parameters (defaults)"]
    assert params["protonet"] == "" and params["clap"].startswith("epochs=300")  # another recipe
    assert params["cocoop"].startswith("recipe, context=4, words=a photo of a")


def test_list_backbones_takes_a_pattern_of_any_case(capsys: Capture) -> None:
    assert main(["list", "backbones", "vit-b*"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:] if line[0] != " "]
    assert {"ViT-B-16", "ViT-B-32"} <= set(names)
    assert all(name.lower().startswith("vit-b") for name in names)
    table = bench.listing("backbones").set_index("backbone")
    assert {name: table.loc[name, "default weights"] for name in PAPER_BACKBONES} == dict.fromkeys(
        PAPER_BACKBONES, "openai"
    )


# ---- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rum"], r"unknown command 'rum'; did you mean 'run'\?"),
        (["run", "--metods", "coop"], r"unknown argument '--metods'; did you mean '--methods'\?"),
        (["run", "--viewz=3"], r"unknown argument '--viewz=3'; did you mean '--views'\?"),
        (["run", "coop"], r"unknown argument 'coop'"),
        (["run", "--suite"], r"argument --suite: expected one argument"),
        (["run", "--suite", "general"], r"'general'.*did you mean 'general10'\?"),
        (["run", "--suite", "./mine.yaml"], r"'./mine.yaml'.*no such file"),
        (["run", "--tasks", "Color"], r"no task 'Color'; did you mean 'Colour'\?"),
        (["run", "--tasks", ","], r"--tasks: none given"),
        (["run", "--methods", "coopp"], r"--methods 'coopp' is unknown; did you mean 'coop'\?"),
        (["run", "--methods", ""], r"--methods: none given"),
        (["run", "--methods", "no.module:Class"], r"--methods 'no.module:Class'.*package.module:Class"),
        (["run", "--methods", "json:loads"], r"--methods 'json:loads' is not a method"),
        (["run", "--shots", "0"], r"--shots '0': 0 is less than 1"),
        (["run", "--shots", "a"], r"--shots 'a': write whole numbers"),
        (["run", "--shots", "1,,2"], r"--shots '1,,2': write whole numbers"),
        (["run", "--seeds", "-1"], r"--seeds '-1': -1 is less than 0"),
        (["run", "--seeds", "one"], r"--seeds 'one'"),
        (["run", "--device", "tpu"], r"--device.*'tpu'.*auto.*cpu.*cuda"),
        (["run", "--views", "0"], r"--views 0: at least 1"),
        (["run", "--views", "many"], r"--views.*'many'"),
        (["run", "--data", "somewhere"], r"--data without --suite"),
        (["run", "--suite", "rs8"], r"'rs8' needs images: give --data ROOT"),
        (["run", "--suite", "rs8", "--data", "nowhere"], r"--data nowhere: no such folder"),
        (["run", "-o", "coop.epoch=3"], r"-o coop.epoch=3: coop has no parameter 'epoch'; did you mean 'epochs'\?"),
        (["run", "-o", "coop.epochs=many"], r"-o coop.epochs=many: 'many' is not a value of type int"),
        (["run", "-o", "coop.epochs=0"], r"coop.*epochs=0: at least 1"),
        (["run", "-o", "coop.position=back"], r"'back' is not one of end, middle, front"),
        (["run", "-o", "coop.joint=yes"], r"'yes' is neither true nor false"),
        (["run", "-o", "cop.epochs=3"], r"'cop' is not among the methods of this run; did you mean 'coop'\?"),
        (["run", "-o", "epochs=3"], r"write method.parameter=value"),
        (["run", "-o", "coop.words=a photo, of a"], r"one text with a comma, or several\? "
         r"One: -o 'coop.words=\"a photo, of a\"'. Several: -o 'coop.words=a photo,of a'"),
        (["run", "-o", 'coop.words="a photo'], r"unexpected end of data; a value in double quotes ends with one"),
        (["run", "-o", 'coop.words="a photo" of'], r"a value in double quotes ends with one, then comes a comma"),
        (["run", "--shots", "1", "two"], r"--shots '1 two': write whole numbers"),
        (["run", "--tasks", "Colour", "Shapes"], r"no task 'Shapes'; did you mean 'Shape'\?"),
        (["run", "-o", "all.epoch=3"], r"none of the methods has a parameter 'epoch'"),
        (["list"], r"suites\|tasks\|classes\|methods\|backbones"),
        (["list", "metods"], r"list 'metods' is unknown; did you mean 'methods'\?"),
        (["list", "tasks", "--suite", "rs9"], r"did you mean 'rs8'\?"),
        (["list", "backbones", "RN5"], r"nothing is called 'RN5'; did you mean 'RN50'\?"),
        (["report", "--results", "no/runs"], r"no/runs"),
        (["cache", "--clean"], r"unknown argument '--clean'; did you mean '--clear'\?"),
    ],
)
def test_mistake_is_one_line_with_the_nearest_valid_name(
    arguments: list[str], says: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(says, mistake(arguments, capsys))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_without_a_device_is_a_mistake(tiny: Any, tmp_path: Path, capsys: Capture) -> None:
    assert "no CUDA device" in mistake(tiny.command(tmp_path, "--device", "cuda"), capsys)


def test_missing_data_names_every_task_its_folder_and_where_to_get_it(tmp_path: Path, capsys: Capture) -> None:
    assert main(["run", "--suite", "rs8", "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: suite rs8: data of 8 of 8 tasks is missing")
    for task in bench.listing("tasks", "rs8").itertuples():
        assert re.search(rf"{task.task}: {tmp_path / task.folder}: no such folder; get it from http", error)
    assert "Traceback" not in error
    assert main(["run", "--suite", "rs8", "--data", str(tmp_path), "--allow-missing"]) == 2  # nothing is left


def test_tasks_without_data_are_left_out_when_asked(own_tiny: Any, tmp_path: Path, capsys: Capture) -> None:
    shutil.rmtree(own_tiny.data / "shade")
    command = own_tiny.command(tmp_path / "runs", "--methods", "zero-shot")
    assert main(command) == 2
    assert "Shade: " in capsys.readouterr().err
    assert main([*command, "--allow-missing"]) == 0
    assert "Left out, no data: Shade" in capsys.readouterr().out
    (record,) = own_tiny.records(tmp_path / "runs").values()
    assert record["config"]["complete_suite"] is False
    assert [t["task"] for t in record["tasks"]] == ["Colour", "Stripes"]


def test_disk_that_cannot_be_written_is_one_line(
    tiny: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    line = mistake(tiny.command(in_the_way / "runs"), capsys)
    assert str(in_the_way) in line and "Not a directory" in line
    assert str(in_the_way) in mistake(tiny.command(in_the_way), capsys)
    monkeypatch.setenv("BENCH_CACHE", str(in_the_way))
    assert str(in_the_way) in mistake(tiny.command(tmp_path / "runs"), capsys)


def test_full_disk_is_one_line(tiny: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.files.os.replace", full)
    assert "No space left on device" in mistake(tiny.command(tmp_path / "runs"), capsys)
    assert not list((tmp_path / "runs").rglob("*.*"))


def test_ctrl_c_before_the_first_cell_is_no_traceback(
    tiny: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.plan.load_backbone", stop)
    assert main(tiny.command(tmp_path / "runs")) == 130
    assert capsys.readouterr().err == "\nstopped. Type the same command to go on.\n"


# ---- the same in Python --------------------------------------------------------------------------------------


def test_every_command_is_a_python_call_that_returns_a_dataframe(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("bench.reports.figures.draw", lambda *a, **_: drawn.append(a) or [])  # drawn in test_reports
    table = bench.run(results=tmp_path / "runs", quiet=True, **tiny.arguments)
    records = bench.report(tmp_path / "runs", tmp_path / "report")
    tables = [table, records, bench.cache(), *(bench.listing(w) for w in ("suites", "tasks", "methods", "backbones"))]
    assert all(isinstance(t, pd.DataFrame) and len(t) for t in tables)
    assert drawn
    assert sorted(records["key"]) == sorted(table["key"])
    written = pd.read_csv(tmp_path / "report/records.csv")
    wanted = ["suite", "backbone", "method", "protocol", "shots", "seed", "task", "metric", "accuracy", "n_test",
              "params", "train_seconds"]  # fmt: skip
    assert set(wanted) <= set(written.columns)
    assert len(written) == len(table)


def test_report_of_a_run_says_what_it_wrote(
    tiny: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.reports.figures.draw", lambda *_, **__: [])
    tiny.run(tmp_path / "runs")
    assert main(["report", "--results", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "and no figure, from 5 cells" in shown
    for name in ("table.md", "table.csv", "table.tex", "records.csv"):
        assert name in shown
        assert (tmp_path / "out" / name).is_file()
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    assert str(in_the_way) in mistake(["report", "--results", str(tmp_path / "runs"), "--out", str(in_the_way)], capsys)


def test_python_call_takes_one_method_as_text_and_ignores_a_repeated_one(
    tiny: Any, tmp_path: Path, count_calls: Callable[[Any, str], list[Any]]
) -> None:
    fits = count_calls(CoOp, "fit")
    tiny.run(tmp_path / "runs", methods="coop", shots=[1], seeds=[1])
    tiny.run(tmp_path / "runs", methods=["coop", "coop"], shots=[1, 1], seeds=[1, 1])
    assert len(fits) == 1


def test_environment_is_read_where_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench.datasets.cache_paths import cache_folder

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BENCH_CACHE")
    assert os.environ["HOME"] in str(cache_folder()) or not cache_folder().is_relative_to(tmp_path)
