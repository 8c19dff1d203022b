"""The list of faults that `make mutants` plants stays true as code moves."""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
import mutants

FAULTS = mutants.load()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_the_text_a_fault_replaces_stands_once_in_its_file(fault: mutants.Mutant) -> None:
    assert fault.old != fault.new
    ast.parse(fault.planted())  # a fault that is no Python would be noticed by any test


def test_faults_are_many_in_all_parts_each_of_its_own_name() -> None:
    assert not [name for name, n in Counter(fault.id for fault in FAULTS).items() if n > 1]
    parts = Counter(fault.file.split("/")[0] for fault in FAULTS)
    assert sum(parts.values()) >= 80 and min(parts[part] for part in ("bench", "methods", "datasets", "reports")) >= 10


def test_tests_named_beside_faults_are_there_and_quick() -> None:
    for name in {name for fault in FAULTS for name in fault.tests}:
        file, _, test = name.partition("::")
        assert file in mutants.quick_tests(), name
        assert f"def {test}(" in (mutants.ROOT / file).read_text(encoding="utf-8") or not test, name
        assert name not in mutants.DESELECTED


def test_a_text_that_stands_twice_or_not_at_all_is_told() -> None:
    for old in ("return", "not in the file"):
        fault = mutants.Mutant("x", "bench/metrics.py", old, "", "", ())
        with pytest.raises(ValueError, match=r"x: .* stands \d+ times in bench/metrics.py"):
            fault.planted()


def test_tests_that_are_left_out_are_there() -> None:
    for name in mutants.DESELECTED:
        file, _, test = name.partition("::")
        assert f"def {test}(" in (mutants.ROOT / file).read_text(encoding="utf-8"), name


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_tests_that_are_not_collected_notice_nothing_and_the_entry_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without tests, a fault whose only test is left out, and a test with a word of those in its name."""
    left_out = mutants.DESELECTED[0]
    file, _, test = left_out.partition("::")
    mine = ("bench", Path(file).stem)  # and the tests' file of that name, where this process has collected it
    for name in [name for name in sys.modules if name.partition(".")[0] in mine]:
        monkeypatch.delitem(sys.modules, name)  # each fork imports the copy's
    tree = tmp_path / "copy"
    for folder in ("bench", "tests"):
        (tree / folder).mkdir(parents=True)
    (tree / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (tree / "bench" / "__init__.py").touch()
    (tree / "bench" / "metrics.py").touch()
    (tree / "tests" / "test_none.py").touch()
    (tree / file).write_text(
        f"import bench\ndef {test}(): assert 0\ndef test_killed(): pass\ndef test_other(): assert 0\n"
    )
    assert mutants.run_tests(tree, ["tests/test_none.py"]) == mutants.NO_TESTS
    assert mutants.run_tests(tree, [f"{file}::test_killed"]) == ""
    assert mutants.run_tests(tree, [file]) == f"{file}::test_other"
    fault = mutants.Mutant("my-fault", "bench/metrics.py", "from __future__ import annotations", "", "", (left_out,))
    assert mutants.noticed(tree, fault) == mutants.NO_TESTS
    assert mutants._judge([tree], [fault]) == 2
    assert f"my-fault: pytest collects none of {left_out}" in capfd.readouterr().err
