"""What a cell will take, told before it starts: worked out by hand, compared with what is measured, and held to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import estimates
from bench.cli import main
from bench.config import RunConfig
from bench.errors import UserError
from bench.estimates import by_setting, memory
from bench.options import bytes_of
from bench.plan import prepare

pytestmark = pytest.mark.usefixtures("one_thread")
GB = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * GB), ("500 MB", 5e8), ("1.5 gb", 1.5 * GB), ("2e9", 2e9), ("64k", 64_000), ("7", 7)]
)
def test_sizes_as_people_write_them(text: str, size: float) -> None:
    assert bytes_of(text) == size
    assert RunConfig(memory_limit=text).memory_limit == text


@pytest.mark.parametrize("text", ["four", "", "0GB", "-1GB", "4GiB", "4 apples", "1.2.3GB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=rf"--memory-limit '{text}': write a size such as 4GB"):
        RunConfig(memory_limit=text)


def plan_of(tiny: Any, results: Path, **changes: Any) -> Any:
    return prepare(RunConfig(**{**tiny.arguments, "results": str(results), "quiet": True, **changes}))


ONE = {"shots": [1], "seeds": [1]}


def test_the_memory_of_a_cell_is_the_sum_of_its_parts(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Width 32, 2 blocks, features of 16 float32; 3 tasks of 3 classes; 1 training image a class in 2 views, 1 to
    validate on and 4 to test."""
    noise = {"options": ["all.words="]}
    tiny.run(tmp_path / "a", methods=["coop", "cocoop"], **ONE, **noise)  # so that nothing is to be encoded
    monkeypatch.setattr(estimates, "_now", lambda: 1e6)
    plan = plan_of(tiny, tmp_path / "b", methods=["coop", "cocoop", "shared-cocoop", "zero-shot"], **ONE, **noise)
    cells = {cell.config["method"]: cell for cell in plan.cells}
    one = ["all.words=", "shared-cocoop.max_tokens=1"]
    bounded = plan_of(tiny, tmp_path / "b", methods=["shared-cocoop"], **ONE, options=one)
    tower = plan.backbone.tower
    each = [sum(len(tower.tokens(f"{name}.")) + 1 for name in task.class_names) for task in plan.tasks]
    tokens = sum(each)
    texts = [task.template.format(name) for task in plan.tasks for name in task.class_names]
    features = 2 * (9 * 2 + 9) * 16 * 4 + 36 * 16 * 4  # few-shot ones twice, test images once
    a_token = 2 * 16 * 32 * 4  # what it keeps for them, in float32
    assert memory(plan, [cells["coop"]]) == 1e6 + features + tokens * a_token
    zero_shot = 36 * 16 * 4 + sum(len(tower.tokens(t)) + 1 for t in texts) * 32 * 8 * 4  # without gradients
    assert memory(plan, [cells["zero-shot"]]) == 1e6 + zero_shot
    # A batch has 8 images. CoCoOp trains all tasks side by side, each on a batch of its own; a batch that tasks share
    # has no more than 8 images of the task with the longest names, each of which reads the names of its task alone.
    assert memory(plan, [cells["cocoop"]]) == 1e6 + features + 8 * tokens * a_token
    assert len(set(each)) > 1 and 8 * tokens < 20_000
    assert memory(plan, [cells["shared-cocoop"]]) == 1e6 + features + 8 * max(each) * a_token
    assert memory(bounded, bounded.cells) == 1e6 + features + max(each) * a_token  # one image's names are not divided


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux")
def test_estimates_are_within_a_factor_of_one_and_a_half_of_measured_peaks(own_tiny: Any, tmp_path: Path) -> None:
    """Of what a cell takes beyond what was there before: CoOp on 24 classes, CoCoOp on 4, with names of 64 tokens."""
    text = {"context_length": 77, "vocab_size": 516, "width": 256, "heads": 4, "layers": 6}
    text["tokenizer_kwargs"] = {"bpe_path": "tiny-bpe.txt.gz"}
    backbone = own_tiny.model("larger", text_cfg=text)
    for task, classes in (("many", 24), ("few", 4)):
        for k in range(classes):
            for image in range(4):
                file = tmp_path / "data" / task / f"{k:02d}{'xyz' * 20}" / f"{image}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (32, 32), (10 * k, 50 * image, 99)).save(file)
    tasks = [{"name": name, "task_name": "x", "template": "{}"} for name in ("many", "few")]
    (tmp_path / "suite.yaml").write_text(json.dumps({"tasks": tasks, "recipe": {"epochs": 1, "batch": 4}}))
    script = f"""
import ctypes, json, torch
from bench.config import RunConfig
from bench import estimates
from bench.evaluate import evaluate
from bench.plan import prepare
torch.set_num_threads(1)
given = dict(suite={str(tmp_path / "suite.yaml")!r}, data={str(tmp_path / "data")!r}, backbone={backbone!r})
given |= dict(results={str(tmp_path / "runs")!r}, shots=1, seeds=1, quiet=True, keep=False)
for method, task in (("cocoop", "few"), ("coop", "many")):
    options = [f"{{method}}.words=", f"{{method}}.context=4"]
    plan = prepare(RunConfig(methods=method, tasks=task, options=options, **given))
    estimates._now.cache_clear()
    ctypes.CDLL(None).malloc_trim(0)  # what the cell before has freed would be taken from
    before, estimate = estimates._now(), estimates.memory(plan, plan.cells)
    (record,) = evaluate(plan, plan.cells)
    print(json.dumps([method, record.peak_memory_mb * 1e6 - before, estimate - before, record.error]))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)  # noqa: S603 - our own words, and no shell
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["cocoop", "coop"]
    for method, measured, estimated, error in rows:
        assert not error, error
        assert measured > 50e6, (method, measured)  # more than what a process needs here and there
        assert measured / 1.5 < estimated < 1.5 * measured, (method, measured, estimated)


def test_a_cell_over_the_limit_is_recorded_as_failed_before_it_starts(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"coop": 5.24e9, "zero-shot": 1e9}
    monkeypatch.setattr(estimates, "memory", lambda plan, cells: sum(wanted[c.config["method"]] for c in cells))
    monkeypatch.setattr("bench.methods.coop.CoOp.fit", None)  # it is not even tried
    with pytest.warns(UserWarning, match="1 of 2 cells failed"):
        table = tiny.run(tmp_path / "runs", methods=["coop", "zero-shot"], **ONE, memory_limit="4GB")
    (failed,) = table.attrs["failed"]
    assert failed["error"] == (
        "needs about 5.2 GB of memory, more than --memory-limit 4GB: not started; fewer shots, views or classes take "
        "less (docs/performance.md)"
    )
    assert set(table["method"]) == {"zero-shot"}
    monkeypatch.undo()
    assert not tiny.run(tmp_path / "runs", methods=["coop"], **ONE).attrs["failed"]  # without a limit it runs


def test_seeds_at_once_that_are_over_the_limit_run_one_by_one(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(estimates, "memory", lambda plan, cells: 3e9 * len(cells))
    table = tiny.run(
        tmp_path / "runs", methods=["coop"], shots=[1], seeds=[1, 2], seeds_at_once=True, memory_limit="4GB"
    )
    assert not table.attrs["failed"] and set(table["seed"]) == {1, 2}
    assert not any(record.get("trained_together") for record in tiny.records(tmp_path / "runs").values())


def test_dry_run_tells_memory_disk_and_time(
    own_tiny: Any, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = own_tiny.command(tmp_path / "runs", "--methods", "coop", "--shots", "1", "--dry-run")
    assert main([*command, "--seeds", "1"]) == 0
    out = capsys.readouterr().out
    assert "no measured cell" in out and " GB" in out
    # Features of 9 images in 2 views, 9 to validate on and 36 to test, 16 float32 each: 4 kB. Kept: 36 rows of 10
    # bytes, and 3 contexts of 16 vectors of 32 float32: 6.5 kB.
    assert "on disk 0.00 MB of features to encode and 0.01 MB to keep; training and test: no measured cell" in out
    own_tiny.run(tmp_path / "runs", methods=["coop"], **ONE)
    (record,) = own_tiny.records(tmp_path / "runs").values()
    seconds = record["train_seconds"] + record["test_seconds"]
    plan = plan_of(own_tiny, tmp_path / "runs", methods=["coop"], shots=[1, 2], seeds=[1, 2])
    found = {(c.shots, c.seed): e for c, e in zip(plan.cells, estimates.estimates(plan), strict=True)}
    assert found[1, 1].seconds == found[1, 2].seconds == pytest.approx(seconds)  # another seed takes as long
    assert found[2, 1].seconds is None  # another number of shots does not
    assert sum(found[1, 1].encode.values()) == 0
    assert sum(found[1, 2].encode.values()) == (9 * 2 + 9) * 16 * 4  # its own draw; the test images are there
    assert found[1, 2].kept == found[1, 1].kept  # of a file that was kept
    assert estimates.totals([found[1, 2], found[2, 1]]).endswith("for 1 of 2 cells, the others have no measured cell")


def test_the_time_of_a_cell_is_the_mean_of_measured_ones(own_tiny: Any, cache: Path, tmp_path: Path) -> None:
    own_tiny.run(tmp_path / "runs", methods=["coop"], shots=[1], seeds=[1, 2])
    times = [r["train_seconds"] + r["test_seconds"] for r in own_tiny.records(tmp_path / "runs").values()]
    (found,) = estimates.estimates(plan_of(own_tiny, tmp_path / "runs", methods=["coop"], shots=[1], seeds=[3]))
    assert len(times) == 2 and found.seconds == pytest.approx(sum(times) / 2)


def test_features_that_cells_share_count_once_in_the_total(own_tiny: Any, cache: Path, tmp_path: Path) -> None:
    plan = plan_of(own_tiny, tmp_path / "runs", methods=["coop", "softcpt"], **ONE)
    one, two = estimates.estimates(plan)
    expected = ((9 * 2 + 9) + 36) * 16 * 4
    assert sum(one.encode.values()) == sum(two.encode.values()) == expected == 4032
    assert one.encode == two.encode
    large = [replace(e, encode={k: 1000 * v for k, v in e.encode.items()}) for e in (one, two)]
    assert "on disk 4.03 MB of features to encode" in estimates.totals(large)


def test_a_dry_run_says_how_often_a_search_trains(tiny: Any, tmp_path: Path) -> None:
    """RLA 7 rates × 7 pulls, the cross-modal probe 2 × 3 × 2 settings, the linear probe 7 values of C and at most 9
    between them. Without a search there is nothing to say."""

    def told(*methods: str, options: tuple[str, ...] = ()) -> dict[str, int]:
        plan = plan_of(tiny, tmp_path, methods=list(methods), options=list(options), **ONE)
        table = by_setting(plan, estimates.estimates(plan)).set_index("method")
        return dict(table["trainings per task"]) if "trainings per task" in table else {}

    search = ("rla.search=val", "cross-modal-lp.search=val", "lp++.search=val")
    expected = {"rla": 49, "cross-modal-lp": 12, "linear-probe": 16, "taskres": 1, "lp++": 1}
    assert told(*expected, options=search) == expected
    assert told("rla", "taskres") == {}
