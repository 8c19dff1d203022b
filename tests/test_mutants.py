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


def test_a_text_that_stands_twice_or_not_at_all_is_told() -> None:
    for old in ("return", "not in the file"):
        fault = mutants.Mutant("x", "bench/metrics.py", old, "", "", ())
        with pytest.raises(ValueError, match=r"x: .* stands \d+ times in bench/metrics.py"):
            fault.planted()
