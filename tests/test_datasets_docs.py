"""The example of docs/data.md works as it is printed."""

import re
from pathlib import Path

import pytest

from bench.datasets import few_shot, load_suite, load_tasks
from bench.datasets.registry import READERS
from bench.datasets.spec import SUITE_KEYS, TASK_KEYS

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def test_own_folder_of_images_needs_one_file_and_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    (own_suite, _) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "birds.yaml").write_text(own_suite, encoding="utf-8")
    for name in ("blue_jay", "crow", "winter_wren"):
        (tmp_path / "garden" / "photos" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "garden" / "photos" / name / f"{number}.jpg").touch()
    (task,) = load_tasks(load_suite(str(tmp_path / "birds.yaml")), tmp_path)
    assert task.class_names == ("blue jay", "crow", "winter wren")
    assert len(few_shot(task.split.train, 4, seed=1)) == 12


def test_the_second_example_is_a_valid_task(tmp_path: Path) -> None:
    (_, task) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "hub.yaml").write_text("tasks:\n" + task, encoding="utf-8")
    assert load_suite(str(tmp_path / "hub.yaml")).tasks[0].reader["kind"] == "huggingface"


def test_every_key_and_reader_is_explained() -> None:
    words = [*SUITE_KEYS, *TASK_KEYS, *READERS, *(option for reader in READERS.values() for option in reader.options)]
    assert [word for word in words if f"`{word}" not in PAGE] == []
