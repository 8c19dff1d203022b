"""Our folder is called `datasets`; the name `datasets` belongs to Hugging Face's library."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRY_IMPORT = """
try:
    import datasets
    print("found", datasets.__file__)
except ModuleNotFoundError as error:
    print("none", error.name)
"""


def run_python(code: str, folder: Path, python_path: Path | str = "", *flags: str) -> str:
    """What a fresh Python prints, started in `folder` (which `-c` puts first on its search path)."""
    environment = {**os.environ, "PYTHONPATH": str(python_path)}
    environment.pop("PYTHONSAFEPATH", None)
    run = subprocess.run(  # noqa: S603 - a list of our own words, and no shell
        [sys.executable, *flags, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A stand-in for the installed library, in a folder of its own on the search path."""
    package = tmp_path / "site" / "datasets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from datasets.loading import load_dataset\n")
    (package / "loading.py").write_text("def load_dataset():\n    return 'theirs'\n")
    return tmp_path / "site"


@pytest.fixture(params=["root", "elsewhere"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return ROOT if request.param == "root" else tmp_path


def test_import_datasets_finds_nothing_when_the_library_is_absent(start: Path) -> None:
    assert run_python(TRY_IMPORT, start, "", "-S") == "none datasets"  # -S: without what is installed


def test_import_datasets_finds_the_library(start: Path, library: Path) -> None:
    assert run_python(TRY_IMPORT, start, library) == f"found {library / 'datasets' / '__init__.py'}"
    assert run_python("import datasets; print(datasets.load_dataset())", start, library) == "theirs"
    assert run_python("from datasets.loading import load_dataset as f; print(f())", start, library) == "theirs"


def test_our_files_are_not_reached_under_the_bare_name(start: Path, library: Path) -> None:
    code = "try:\n    import datasets.suites\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    assert run_python(code, start, library) == "datasets.suites"


def test_a_failed_library_import_is_told_as_it_is(library: Path) -> None:
    (library / "datasets" / "__init__.py").write_text("raise RuntimeError('broken library')\n")
    code = "try:\n    import datasets\nexcept RuntimeError as error:\n    print(error)"
    assert run_python(code, ROOT, library) == "broken library"


def test_our_package_and_the_library_stand_side_by_side(start: Path, library: Path) -> None:
    code = "import bench.datasets, datasets; print(len(bench.datasets.suite_names()) > 3, datasets.load_dataset())"
    assert run_python(code, start, library) == "True theirs"
    code = "import datasets, bench.datasets; print(len(bench.datasets.suite_names()) > 3, datasets.load_dataset())"
    assert run_python(code, start, library) == "True theirs"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", reason="building a wheel without a network takes setuptools here")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("bench", "methods", "datasets", "reports"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(out),
        ".",
    ]
    run = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=300)  # noqa: S603 - a list of our own words, and no shell
    assert run.returncode == 0, run.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_takes_no_name_but_bench(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"bench", next(top for top in tops if top.endswith(".dist-info"))}


def test_the_wheel_holds_the_suites(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    suites = {f"bench/datasets/suites/{file.name}" for file in (ROOT / "datasets" / "suites").glob("*.yaml")}
    assert len(suites) >= 4 and suites <= names


def test_import_datasets_beside_the_unpacked_wheel(wheel: Path, library: Path, tmp_path: Path) -> None:
    site = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(site)
    code = TRY_IMPORT + "import bench.datasets; print(bench.datasets.__file__)"
    # An editable install is asked only after the search path, so the unpacked wheel is what is imported.
    found = run_python(code, tmp_path, f"{site}{os.pathsep}{library}").splitlines()
    assert found[0] == f"found {library / 'datasets' / '__init__.py'}"
    assert Path(found[1]) == site / "bench" / "datasets" / "__init__.py"
