"""What the README and docs/architecture.md print works as printed."""

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

import bench
from bench.config import RunConfig, load_experiment
from bench.datasets.spec import load_suite
from bench.datasets.splits import load_tasks
from bench.errors import UserError
from bench.methods import find_method, method_names
from bench.methods.heads import HeadMethod
from bench.numerics import method_code

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)


def test_the_example_method_of_the_architecture_page_runs(tiny, tmp_path, monkeypatch) -> None:
    (example,) = (block for block in python_blocks(ARCHITECTURE) if "class Blend" in block)
    assert len(example.strip().splitlines()) <= 50
    (tmp_path / "half_and_half.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    results = tiny.run(tmp_path / "runs", methods=["half_and_half:Blend"], shots=[4], seeds=[1])
    assert set(results["method"]) == {"blend"}
    assert results["accuracy"].mean() > 100 / 3  # more than chance among three classes
    # What it keeps is all that it needs: the record's scores come out of the kept file again.
    kept = bench.load_cell(results["key"][0], tmp_path / "runs", method="half_and_half:Blend")
    task = kept.tasks[0]
    own = results[results["task"] == task.name].iloc[0]
    (whole,) = load_tasks(load_suite(tiny.suite), tiny.data, [task.name], False)
    found = bench.predict(kept, [whole.split.root / i.path for i in whole.split.test], task.name, top=1)
    right = found["class"].to_numpy() == [task.class_names[i.label] for i in whole.split.test]
    assert 100 * right.mean() == pytest.approx(own["accuracy"]) and own["params"] == 0
    with pytest.raises(UserError, match="blend learns no context vectors"):
        bench.words(kept)
    with pytest.raises(UserError, match="mean-0 is missing"):
        kept.method.restore(kept.backbone, kept.tasks, {k: v for k, v in kept.method.state().items() if k != "mean-0"})
    sys.modules.pop("half_and_half", None)


def test_the_example_methods_weight_is_reached_from_the_command_line(tiny, tmp_path, monkeypatch) -> None:
    (example,) = (block for block in python_blocks(ARCHITECTURE) if "class Blend" in block)
    (tmp_path / "half_and_half.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    arguments = {"methods": ["half_and_half:Blend"], "shots": [4], "seeds": [1], "options": ["blend.alpha=0,1"]}
    results = tiny.run(tmp_path / "runs", **arguments)
    assert set(results["variant"]) == {"alpha=0.0", "alpha=1.0"}
    sys.modules.pop("half_and_half", None)


def test_editing_a_plug_in_makes_other_cells(tmp_path, monkeypatch) -> None:
    (example,) = (block for block in python_blocks(ARCHITECTURE) if "class Blend" in block)
    monkeypatch.syspath_prepend(str(tmp_path))
    codes = []
    for name, text in (("first", example), ("second", example), ("third", example.replace("1 - alpha", "2 - alpha"))):
        (tmp_path / f"{name}_blend.py").write_text(text, encoding="utf-8")
        codes.append(method_code(find_method(f"{name}_blend:Blend")))
    assert len(set(codes)) == 3  # the module counts, too
    first, second, third = (code.rpartition(":")[2] for code in codes)
    assert first == second != third


def test_every_call_of_the_python_section_returns_a_table(tiny, tmp_path) -> None:
    calls = "".join(python_blocks(ARCHITECTURE))
    assert all(f"bench.{name}(" in calls for name in ("run", "report", "listing", "cache"))
    results = tiny.run(tmp_path / "runs", methods=["zero-shot", "coop"], shots=[1], seeds=[1])
    tables = [results, bench.report(tmp_path / "runs", tmp_path / "report"), bench.listing("methods"), bench.cache()]
    assert all(isinstance(table, pd.DataFrame) and len(table) for table in tables)


def test_the_page_on_methods_says_of_every_rival_what_we_do_where_paper_and_code_differ() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    table = page.partition("## Rivals on frozen features")[2].partition("## Which rows")[0]
    rivals = [name for name in method_names() if issubclass(find_method(name), HeadMethod)] + ["mvlpt", "lasp"]
    assert len(rivals) == 15
    assert [name for name in rivals if not re.search(rf"^\| .*\(.*`{re.escape(name)}`.*\) \|", table, re.M)] == []


def test_the_readme_names_and_counts_every_method_and_counts_the_suites_right() -> None:
    assert f": {len(method_names())} methods (" in README
    for name in method_names():
        assert f"`{name}`" in README or name.startswith(("softcpt-ca", "softcpt-cs")), name
    for name in ("general10", "plant6", "rs8", "fashion20", "demo"):
        row = re.search(rf"^\| `{name}` \| (\d+) \| (\d+) \|", README, re.MULTILINE)
        assert row, name
        tasks = load_suite(name).tasks
        assert len(tasks) == int(row[1])
        if all(task.n_classes for task in tasks):
            assert sum(task.n_classes or 0 for task in tasks) == int(row[2])


def test_the_experiment_file_of_the_readme_is_one(tmp_path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "experiment.yaml").write_text(example, encoding="utf-8")
    config = RunConfig(**load_experiment(tmp_path / "experiment.yaml"))
    assert (config.suite, config.methods) == ("plant6", ("coop", "softcpt"))
    assert config.data == str(Path.home() / "data")


def test_the_demo_takes_no_data_folder(tmp_path) -> None:
    with pytest.raises(UserError, match="the demo suite renders its own images"):
        bench.run(suite="demo", data=str(tmp_path), quiet=True)


PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_of_the_docs_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
    assert [t for t in targets if t and not (ROOT / page).parent.joinpath(t).exists()] == []


def put_into(package, name: str, folder: Path, monkeypatch) -> None:
    """Put the page's example of this class into a file that the package is searched for."""
    (example,) = (block for block in python_blocks(ARCHITECTURE) if f"class {name}" in block)
    (folder / f"example_{name.lower()}.py").write_text(example, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    sys.path.append(str(Path(__file__).parent))


def test_the_example_figure_of_the_architecture_page_is_found_and_drawn(tmp_path, monkeypatch) -> None:
    from bench.reports import figures

    put_into(figures, "TaskSpread", tmp_path, monkeypatch)
    from test_figures_data import a_block, draw
    from test_reports import put

    put(tmp_path / "runs", "coop", 4, 1, {"easy": 90.0, "hard": 20.0})
    put(tmp_path / "runs", "softcpt", 4, 1, {"easy": 80.0, "hard": 40.0})
    block = a_block(tmp_path / "runs")
    (axes,) = draw(block, "task-spread").axes
    assert list(axes.lines[0].get_xdata()) == [30, 85]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["hard", "easy"]
    written = figures.draw(block, tmp_path / "figures", ("svg",))
    assert "figures/toy-tiny-task-spread.svg" in written
    sys.modules.pop("bench.reports.figures.example_taskspread", None)


def test_the_example_table_of_the_architecture_page_is_found_and_written(tmp_path, monkeypatch) -> None:
    from bench.reports import tables

    put_into(tables, "Extremes", tmp_path, monkeypatch)
    from test_reports import put

    put(tmp_path / "runs", "coop", 4, 1, {"easy": 90.0, "hard": 20.0})
    put(tmp_path / "runs", "coop", 4, 2, {"easy": 95.0, "hard": 21.0})
    put(tmp_path / "runs", "coop", 1, 1, {"easy": 1.0, "hard": 2.0})
    bench.report(tmp_path / "runs", tmp_path / "out", format=("md", "tex"))
    written = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "# Best and worst task" in written
    assert re.search(r"\| coop +\| +easy 92\.50 \| +hard 20\.50 \|", written)
    assert "easy 92.50" in (tmp_path / "out" / "table.tex").read_text(encoding="utf-8")
    sys.modules.pop("bench.reports.tables.example_extremes", None)


def test_no_line_of_the_changelogs_unreleased_part_is_longer_than_120_characters() -> None:
    unreleased = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    assert unreleased.startswith("[Unreleased]") and "\n- " in unreleased
    assert [line for line in unreleased.splitlines() if len(line) > 120] == []
