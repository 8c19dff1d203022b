"""The package as a whole: each Python it names, one version, and the files that repeat either."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import bench
from bench.methods import coop, find_method, method_names
from bench.records import versions

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


class Alias:
    """Passes for a class without being one, as `list[int]` does on Python 3.10."""

    __class__ = property(lambda self: type)  # type: ignore[assignment]


@pytest.mark.parametrize("alias", [Alias(), list[int], dict[str, type]])
def test_a_generic_alias_in_a_methods_file_is_no_method(alias: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Alias(), type)
    before = method_names()
    monkeypatch.setattr(coop, "Several", alias, raising=False)
    assert method_names() == before and "coop" in before
    assert find_method("coop").name == "coop"
    with pytest.raises(bench.UserError, match="Several' is not a method"):
        find_method("bench.methods.coop:Several")


def test_the_declared_pythons_are_those_of_the_classifiers_and_of_the_workflow() -> None:
    # The text, not the installed metadata: an old *.egg-info in the working folder would answer for it.
    assert re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT) == PYTHONS
    assert 'requires-python = ">=3.10,<3.14"' in PYPROJECT
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["smoke"]["strategy"]["matrix"]["python"] == PYTHONS
    others = jobs["other-systems"]["strategy"]["matrix"]
    assert others == {"system": ["macos-latest", "windows-latest"], "python": [PYTHONS[0], PYTHONS[-1]]}


def test_ci_tries_the_oldest_and_the_newest_declared_python() -> None:
    assert "make smoke\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"scripts/smoke.py {PYTHONS[0]} {PYTHONS[-1]}\n" in makefile


def test_smoke_says_in_one_line_which_python_is_missing() -> None:
    """`call` stands in for uv: it leaves a wheel, and an installation would fail."""
    code = (
        "import smoke\n"
        "def build(command, folder, **_):\n    (folder / 'dist').mkdir(); (folder / 'dist/x.whl').touch()\n"
        "smoke.call = build\nsmoke.main(['3.99', '4.0'])"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT / "scripts", capture_output=True, text=True, timeout=60)  # noqa: S603 - a list of our own words, and no shell
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == (
        "smoke on Python 3.99: skipped, no python3.99 here\nsmoke on Python 4.0: skipped, no python4.0 here\n"
    )


def test_every_file_that_names_the_version_names_this_one() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.findall(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert (citation["version"], str(citation["date-released"])) == newest[0]
    assert citation["version"] == bench.__version__
    assert 'version = { attr = "bench.__version__" }' in PYPROJECT
    assert versions()["prompt-bench"] == bench.__version__  # what a record says
