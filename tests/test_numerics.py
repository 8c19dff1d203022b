"""A cell's key knows the code that makes its numbers: the method's own, and the version of what all methods share."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import numerics
from bench.clip.backbone import load_backbone
from bench.errors import UserError
from bench.features import ImageFeatures, View
from bench.features.encode import Block
from bench.methods import find_method, method_names

FORMULA = '''"""What it is."""
# why
def loss(a, b):
    """Of two numbers."""
    return (a -
            b) ** 2  # squared
'''


# ---- what counts of a source ---------------------------------------------------------------------------------


def test_comments_docstrings_and_layout_do_not_count() -> None:
    assert numerics.digest(FORMULA) == numerics.digest("def loss(a, b):\n  return (a - b)**2\n")


@pytest.mark.parametrize(
    "change", [("(a -", "(a +"), ("** 2", "** 3"), ("** 2", "** 2.0"), ("(a, b)", "(b, a)"), ("loss", "less")]
)
def test_any_change_of_the_code_counts(change: tuple[str, str]) -> None:
    assert numerics.digest(FORMULA.replace(*change)) != numerics.digest(FORMULA)


def test_a_text_that_is_no_docstring_counts() -> None:
    assert numerics.digest("x = 'a'") != numerics.digest("x = 'b'")
    assert numerics.digest("def f():\n  x = 1\n  return 'a'") != numerics.digest("def f():\n  x = 1\n  return 'b'")


def test_every_python_gives_the_same_hash() -> None:
    source = "class A(B):\n    x: int = f(None, -0.5, *a, k='é')\n    def g(self): return f'{self.x!r:>3} {2}'\n"
    assert numerics.digest(source) == "e96a59cc8b4a271e7467f2bb"


def test_of_a_module_that_does_other_things_only_the_functions_named_count() -> None:
    source = "N = 3\ndef f():\n    return N\ndef g():\n    return 1\n"
    assert numerics.digest(source, ("N", "f")) == numerics.digest(source.replace("return 1", "return 2"), ("N", "f"))
    assert numerics.digest(source, ("N", "f")) != numerics.digest(source.replace("N = 3", "N = 4"), ("N", "f"))
    with pytest.raises(KeyError):  # renamed: a guard that guards nothing is told
        numerics.digest(source, ("h",))


# ---- what all methods share ----------------------------------------------------------------------------------


def test_the_shared_numerics_are_as_confirmed() -> None:
    edited = sorted(numerics.edited())
    assert not edited, (
        f"{', '.join(edited)}: the code that all methods' numbers follow from is another than confirmed. If every "
        "number stays what it was, run `python -m bench.numerics same`. If not, run `python -m bench.numerics changed` "
        "(all cells will run again), and raise FORMAT in bench/features/cache.py where features changed."
    )
    assert set(json.loads(numerics.CONFIRMED.read_text())["code"]) == set(numerics.SHARED)


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`edit(module, old, new)`: as if a module's source were another."""
    original = numerics._source

    def start(module: str, old: str, new: str) -> None:
        assert original(module).count(old) >= 1
        edited = original(module).replace(old, new)
        monkeypatch.setattr(numerics, "_source", lambda name: edited if name == module else original(name))

    return start


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("bench.methods.zero_shot", "dim=-1", "dim=1"),
        ("bench.metrics", "right[present].double() / total[present]", "right.double() / total"),
        ("bench.methods.training", "(epoch - 1) - 1", "(epoch - 1) - 2"),
        ("bench.methods.prompt", '"start"', '"begin"'),
        ("bench.methods.base", "digest_size=8", "digest_size=4"),
        ("bench.scoring", "sum(last.values()) / len(last)", "max(last.values())"),
        ("bench.datasets.fewshot", "seed", "seeds"),
        ("bench.features.views", "CROP_AREAS = (0.08", "CROP_AREAS = (0.5"),
    ],
)
def test_shared_code_that_nobody_confirmed_is_another_version(edit: Any, module: str, old: str, new: str) -> None:
    version = numerics.numerics()
    assert version == str(json.loads(numerics.CONFIRMED.read_text())["version"])
    edit(module, old, new)
    assert numerics.numerics().startswith(f"{version}+")


def test_features_of_code_that_nobody_confirmed_are_not_taken_from_the_cache(edit: Any, tmp_path: Path) -> None:
    backbone = load_backbone("demo-clip")

    def file() -> Path:
        return ImageFeatures(backbone, tmp_path)._path(Block([], ["an image"], View()), "pooled")

    before = file()
    edit("bench.metrics", "100 *", "99 *")
    assert file() == before
    edit("bench.features.views", "CROP_AREAS = (0.08", "CROP_AREAS = (0.5")
    assert file() != before


def test_two_edits_that_nobody_confirmed_are_two_versions(edit: Any) -> None:
    edit("bench.metrics", "100 *", "99 *")
    first = numerics.numerics()
    edit("bench.metrics", "100 *", "98 *")
    assert numerics.numerics() != first


def test_same_keeps_the_version_and_changed_raises_it(
    edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(numerics, "CONFIRMED", tmp_path / "numerics.json")
    (tmp_path / "numerics.json").write_text('{"version": 4, "code": {}}')
    assert numerics.numerics().startswith("4+")
    assert numerics.main(["same"]) == 0
    assert numerics.numerics() == "4"
    edit("bench.metrics", "100 *", "1 *")
    assert numerics.numerics().startswith("4+")
    assert numerics.main(["changed"]) == 0
    assert numerics.numerics() == "5"
    edit("bench.features.views", "CROP_AREAS = (0.08", "CROP_AREAS = (0.5")
    assert numerics.main(["changed"]) == 0
    assert capsys.readouterr().out == (
        "numerics 4\nnumerics 5\n"
        "If image features changed: raise FORMAT in bench/features/cache.py, or old ones are read from the cache\n"
        "numerics 6\n"
    )
    assert numerics.main(["both"]) == 2
    assert numerics.numerics() == "6"


# ---- what is a method's own ----------------------------------------------------------------------------------


CLASS_CONDITIONAL = {"softcpt-cata", "softcpt-cats", "softcpt-csta", "softcpt-csts"}
ON_SOFTCPT = {"softcpt-graph", "softcpt-rank", "softcpt-mix", "coop-mix", "softcpt-tree", "softcpt-residual"}


def codes() -> dict[str, str]:
    return {name: numerics.method_code(find_method(name)) for name in method_names()}


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("kgcoop", "weight", "weigth", {"kgcoop"}),
        ("coop", "len(tasks)", "len(tasks) + 0", {"coop", "coop-cs", "prograd", "kgcoop", "lasp"}),
        ("softcpt", '"projection"', '"matrix"', {"softcpt", "softcpt-nats", *CLASS_CONDITIONAL, *ON_SOFTCPT}),
    ],
)
def test_an_edited_method_has_another_code_and_so_have_those_that_build_on_it(
    edit: Any, module: str, old: str, new: str, changed: set[str]
) -> None:
    before = codes()
    edit(f"bench.methods.{module}", old, new)
    after = codes()
    assert {name for name in before if after[name] != before[name]} == changed


def test_a_plug_in_s_code_is_that_of_its_package_and_of_the_class_it_inherits_from(
    edit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "their_methods"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "formulas.py").write_text("def weight():\n    return 2\n")
    (package / "theirs.py").write_text(
        "from bench.methods.coop import CoOp\nfrom . import formulas\nclass Theirs(CoOp):\n    name = 'theirs'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    method = find_method("their_methods.theirs:Theirs")
    before = numerics.method_code(method)
    assert before.startswith("their_methods.theirs:Theirs:")
    edit("their_methods.formulas", "return 2", "return 3")
    other = numerics.method_code(method)
    assert other != before
    edit("bench.methods.coop", "len(tasks)", "len(tasks) + 0")
    assert numerics.method_code(method) not in (before, other)


def test_the_code_is_the_one_that_is_loaded_not_what_its_file_has_become(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "edited_method.py"
    file.write_text("from bench.methods.coop import CoOp\nclass Theirs(CoOp):\n    name = 'theirs'\n    x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = numerics.method_code(find_method("edited_method:Theirs"))
    file.write_text(file.read_text().replace("x = 1", "x = 222"))
    assert numerics.method_code(find_method("edited_method:Theirs")) == before
    importlib.reload(sys.modules["edited_method"])
    assert numerics.method_code(find_method("edited_method:Theirs")) != before


NO_NUMBERS = {"bench.errors", "bench.progress"}  # what methods import besides, and no number follows from


def test_all_that_methods_import_from_the_bench_counts() -> None:
    """Else code that makes their numbers could change and old scores would be given for it."""
    folder = Path(__file__).parents[1] / "methods"
    imported: set[str] = set()
    for file in folder.glob("*.py"):
        imported |= set(re.findall(r"^\s*from (bench[\w.]*) import", file.read_text(encoding="utf-8"), re.MULTILINE))
    others = {name for name in imported if not name.startswith("bench.methods")}
    assert others - set(numerics.SHARED) == NO_NUMBERS


def test_all_that_shared_methods_modules_import_counts() -> None:
    """A method's own code does not reach into shared modules: what they import has to be shared, too."""
    folder = Path(__file__).parents[1] / "methods"
    imported: set[str] = set()
    for name in numerics.SHARED:
        if name.startswith("bench.methods."):
            text = (folder / f"{name.rpartition('.')[2]}.py").read_text(encoding="utf-8")
            imported |= set(re.findall(r"^\s*from (bench\.methods\.\w+) import", text, re.MULTILINE))
    assert imported - set(numerics.SHARED) == {"bench.methods.log"}  # it notes losses, and stops what diverges


def test_a_module_beside_a_plug_in_of_one_file_is_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    codes = []
    for number, value in ((1, "0.5"), (2, "0.5"), (3, "0.7")):
        folder = tmp_path / f"place{number}"
        folder.mkdir()
        (folder / f"helping_{number}.py").write_text(f"VALUE = {value}\n")
        text = "from bench.methods import Method\nfrom helping_{n} import VALUE\nclass Theirs(Method):\n"
        text += "    name = 'x'\n"
        (folder / f"plugged_{number}.py").write_text(text.replace("{n}", str(number)))
        monkeypatch.syspath_prepend(str(folder))
        module = importlib.import_module(f"plugged_{number}")
        codes.append({numerics.digest(source) for source in numerics._own_modules(module.Theirs)})
    helpers = [numerics.digest(f"VALUE = {value}\n") for value in ("0.5", "0.5", "0.7")]
    assert all(helper in code for helper, code in zip(helpers, codes, strict=True))
    assert helpers[0] == helpers[1] != helpers[2]


@pytest.mark.parametrize("place", ["one{k}", "two{k}/alone", "three{k}/inner/alone", "four{k}/__init__"])
def test_an_edited_helper_on_the_plug_in_s_import_path_makes_other_cells_wherever_the_class_lies(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file stands in the current folder, the class beside it or in a package; a library's file is no part of it."""
    method = "from bench.methods import Method\nimport {}, {}, json, numpy\nclass Theirs(Method):\n    name = 'x'\n"
    found = []
    for k, value in enumerate(("1", "1", "2")):
        root, file = tmp_path / f"root{k}", tmp_path / f"root{k}" / f"{place.format(k=k)}.py"
        unique = place.partition("/")[0].format(k=k)  # no test finds another's module
        file.parent.mkdir(parents=True)
        (root / "site-packages").mkdir()
        (root / f"helper_{unique}.py").write_text(f"VALUE = {value}\n")
        (root / "site-packages" / f"library_{unique}.py").write_text("VALUE = 'library'\n")
        file.write_text(method.format(f"helper_{unique}", f"library_{unique}"))
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(root / "site-packages"))
            patch.syspath_prepend(str(root))
            name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            module = importlib.import_module(name)
            found.append(set(numerics._own_modules(module.Theirs)))
    assert [{s.strip() for s in sources if s.startswith("VALUE")} for sources in found] == [
        {"VALUE = 1"}, {"VALUE = 1"}, {"VALUE = 2"},
    ]  # fmt: skip


SCRIPT = """
from bench import numerics
from bench.methods import Method
import beside
class Theirs(Method):
    name = "theirs"
    value = VALUE
print(numerics.method_code(Theirs))
"""


def test_an_edited_method_in_the_script_that_python_was_started_with_has_another_code(tmp_path: Path) -> None:
    found = []
    for value, helped in (("1", "1"), ("1", "1"), ("2", "1"), ("1", "2")):
        (tmp_path / "script.py").write_text(SCRIPT.replace("VALUE", value))
        (tmp_path / "beside.py").write_text(f"number = {helped}\n")
        done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
        found.append(done.stdout.strip())
    assert found[0] == found[1] and len(set(found)) == 3


def test_a_method_without_a_source_is_refused_and_a_notebook_s_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "class Theirs:\n    name = 'theirs'\n"
    space: dict[str, Any] = {"__name__": "no_such_module"}
    exec(source, space)  # noqa: S102 - source that this test wrote
    with pytest.raises(UserError, match="no_such_module:Theirs: its source is not at hand"):
        numerics.method_code(space["Theirs"])
    monkeypatch.setattr(inspect, "getsource", lambda of: source)  # what IPython keeps of its cells
    first = numerics.method_code(space["Theirs"])
    monkeypatch.setattr(inspect, "getsource", lambda of: source.replace("'theirs'", "'others'"))
    assert numerics.method_code(space["Theirs"]) != first


def test_why_a_method_cannot_score_unseen_tasks_is_no_part_of_its_code() -> None:
    def of(line: str, inside: str = "") -> str:
        return numerics.digest(f"class A:\n    order = 1\n{line}    def fit(self):\n{inside}        return 2\n")

    assert of("    unseen = 'why'\n") == of("    unseen: ClassVar[str] = ''\n") == of("")
    assert of("    other = 'why'\n") != of("")
    assert of("", "        self.unseen = 1\n") != of("")
