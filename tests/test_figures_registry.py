"""Figures and tables are found in their package's files and in entry points, each by a name of its own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from bench.errors import UserError
from bench.reports import elements, figures
from bench.reports.elements import Figure, find

ONE = "from bench.reports.elements import Figure\n\nclass {0}(Figure):\n    name = {1!r}\n    order = {2}\n"
DRAWS = "    def draw(self, block):\n        return None\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "some_figures").mkdir()
    (tmp_path / "some_figures" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("some_figures")]:
        monkeypatch.delitem(sys.modules, name)
    return importlib.import_module("some_figures")


def add(package: ModuleType, file: str, *parts: str) -> None:
    (Path(package.__path__[0]) / f"{file}.py").write_text("".join(parts))
    importlib.invalidate_caches()


def test_a_file_with_a_class_is_enough_and_order_decides_before_the_name(package: ModuleType) -> None:
    add(package, "a", ONE.format("A", "second", 2), DRAWS, ONE.format("B", "zeroth", 1), DRAWS, "ROWS = list[int]\n")
    add(package, "b", "from some_figures.a import A\n", ONE.format("C", "another", 2), DRAWS)
    assert [figure.name for figure in find(package, Figure)] == ["zeroth", "another", "second"]


def test_what_has_no_name_or_cannot_draw_is_not_one(package: ModuleType) -> None:
    add(package, "a", ONE.format("A", "", 1), DRAWS, ONE.format("B", "cannot-draw", 1))
    assert find(package, Figure) == []


def test_two_of_one_name_are_refused(package: ModuleType) -> None:
    add(package, "a", ONE.format("A", "twice", 1), DRAWS)
    add(package, "b", ONE.format("B", "twice", 1), DRAWS)
    with pytest.raises(UserError, match=r"some_figures\.a\.A and some_figures\.b\.B both have the name 'twice'"):
        find(package, Figure)


def test_a_plug_in_s_figure_is_found(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    add(package, "a", ONE.format("A", "own", 1), DRAWS)
    other = type("Other", (Figure,), {"name": "plug-in", "order": 0, "draw": lambda self, block: None})
    groups = {"some_figures": [SimpleNamespace(load=lambda: other)]}
    monkeypatch.setattr(elements, "entry_points", lambda group: groups[group])
    assert [figure.name for figure in find(package, Figure)] == ["plug-in", "own"]


def test_the_report_s_figures_have_names_and_headings() -> None:
    found = find(figures, Figure)
    assert {"accuracy", "tasks", "gain", "time", "params", "new-over-base", "ablation"} <= {f.name for f in found}
    assert all(figure.title or type(figure).heading is not Figure.heading for figure in found)
