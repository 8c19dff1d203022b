"""Few-shot draws as files: written by one command, used by another instead of a draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def draws(tiny: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "draws"
    command = ["data", "splits", "--suite", tiny.suite, "--data", str(tiny.data), "--shots=1,2", "--seeds=1,2"]
    assert main([*command, "--out", str(folder)]) == 0
    return folder


def test_every_task_shots_and_seed_has_a_file(draws: Path, tiny: Any) -> None:
    files = {str(p.relative_to(draws)) for p in draws.rglob("*.json")}
    tasks = ("Colour", "Shade", "Stripes")
    drawn = {f"{t}/shot_{n}-seed_{s}.json" for t in tasks for n in (1, 2) for s in (1, 2)}
    assert files == drawn | {f"{t}/split_zhou_{t}.json" for t in tasks}
    content = json.loads((draws / "Colour" / "shot_2-seed_1.json").read_text())
    assert [row[1:] for row in content["train"]] == [[c, n] for c, n in enumerate(CLASSES) for _ in range(2)]
    table = bench.write_draws(tiny.suite, str(tiny.data), str(draws), [2], [1])
    assert table["train images"].tolist() == [6, 6, 6]
    written = json.loads((draws / "Colour" / "shot_2-seed_1.json").read_text())
    assert table["validation images"].tolist()[0] == len(written["val"])


CLASSES = ("blue paint", "green paint", "red paint")  # in the folders' order


def test_our_own_draw_from_files_is_the_same_cell(tiny: Any, tmp_path: Path, draws: Path, count_calls: Any) -> None:
    tiny.run(tmp_path / "runs")
    before = tiny.records(tmp_path / "runs")
    from bench.methods.coop import CoOp

    fits = count_calls(CoOp, "fit")
    tiny.run(tmp_path / "runs", draws=draws)
    assert not fits and tiny.records(tmp_path / "runs") == before


def test_another_choice_of_images_is_another_cell_trained_on_those_images(
    tiny: Any, tmp_path: Path, draws: Path, count_calls: Any
) -> None:
    from bench.methods.coop import CoOp

    file = draws / "Colour" / "shot_1-seed_1.json"
    content = json.loads(file.read_text())
    other = json.loads((draws / "Colour" / "shot_2-seed_1.json").read_text())
    content["train"] = [row for row in other["train"] if row not in content["train"]]  # the images of rank 2
    file.write_text(json.dumps(content))
    common = {"methods": ["coop"], "shots": [1], "seeds": [1]}
    fits = count_calls(CoOp, "fit")
    tiny.run(tmp_path / "runs", **common)
    tiny.run(tmp_path / "runs", draws=draws, **common)
    tiny.run(tmp_path / "two", methods=["coop"], shots=[2], seeds=[1])
    drawn, given, both = ([task for task in tasks] for _, _, tasks, *_ in fits)
    assert given[0].labels.tolist() == [0, 1, 2]
    expected = both[0].views[0][3:]  # block of rank 2 of the two-shot draw
    assert (given[0].views[0] - expected).abs().max() < 1e-5 < (given[0].views[0] - drawn[0].views[0]).abs().max()
    assert (given[1].views[0] - drawn[1].views[0]).abs().max() < 1e-5  # the other tasks' files are as drawn
    records = list(tiny.records(tmp_path / "runs").values())
    assert len({r["config"]["draw"] for r in records}) == len(records) == 2
    assert {r["draws"] for r in records} == {None, "draws"}  # a name, no path


def test_base_to_new_takes_the_images_of_the_base_classes(
    tiny: Any, tmp_path: Path, draws: Path, count_calls: Any
) -> None:
    from bench.methods.coop import CoOp

    common = {"methods": ["coop"], "shots": [1], "seeds": [1], "protocol": "base2new"}
    fits = count_calls(CoOp, "fit")
    tiny.run(tmp_path / "runs", **common)
    tiny.run(tmp_path / "runs", draws=draws, **common)
    assert len(fits) == len(tiny.records(tmp_path / "runs")) == 1  # files that hold the bench's own draw: the same cell
    other = json.loads((draws / "Colour" / "shot_2-seed_1.json").read_text())["train"]
    file = draws / "Colour" / "shot_1-seed_1.json"
    ours = json.loads(file.read_text())
    first, second = ours["train"], [row for row in other if row not in ours["train"]]  # of ranks 1 and 2
    file.write_text(json.dumps({**ours, "train": [*first[:2], second[2]]}))  # another image of the new class
    tiny.run(tmp_path / "runs", draws=draws, **common)
    assert len(fits) == 1  # nothing is trained on it
    file.write_text(json.dumps({**ours, "train": [second[0], *first[1:]]}))  # another image of a base class
    tiny.run(tmp_path / "runs", draws=draws, **common)
    assert len(fits) == len(tiny.records(tmp_path / "runs")) == 2
    (_, _, drawn, *_), (_, _, given, *_) = fits
    assert given[0].class_names == drawn[0].class_names == CLASSES[:2]
    assert given[0].labels.tolist() == [0, 1] and given[0].views.shape == drawn[0].views.shape
    difference = (given[0].views[0] - drawn[0].views[0]).abs().amax(dim=1)
    assert difference[0] > 1e-5 > difference[1]
    file.write_text(json.dumps({**ours, "train": first[1:]}))
    with pytest.raises(UserError, match=r"shot_1-seed_1\.json: no training image of class 'blue paint'"):
        tiny.run(tmp_path / "runs", draws=draws, **common)


def test_mistakes_are_told_before_anything_runs(tiny: Any, tmp_path: Path, draws: Path) -> None:
    with pytest.raises(UserError, match=r"--draws .*nowhere: no such folder"):
        tiny.run(tmp_path / "runs", draws=tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"shot_4-seed_1\.json is missing"):
        tiny.run(tmp_path / "runs", draws=draws, shots=[4])
    file = draws / "Shade" / "shot_2-seed_2.json"
    content = json.loads(file.read_text())
    content["train"][0][0] = "../../secret.png"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"shot_2-seed_2\.json"):
        tiny.run(tmp_path / "runs", draws=draws)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_word_after_data_is_told(capsys: Any) -> None:
    assert main(["data", "split"]) == 2
    assert "'split' is unknown; did you mean 'splits'" in capsys.readouterr().err


def test_coop_s_draws_by_name_are_told_in_record_and_report(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    runs = tmp_path / "runs"
    some = {"methods": ["coop"], "shots": [1, 2], "seeds": [1]}
    tiny.run(runs, **some)
    tiny.run(runs, **some, draws="nested")  # the default: nothing new
    assert len(tiny.records(runs)) == 2
    bench.run(**{**tiny.arguments, **some}, results=runs, draws="coop")
    assert "drawn in the same way from the bench's own split" in capsys.readouterr().err.replace("\n", " ")
    records = list(tiny.records(runs).values())
    assert sorted(str(r["draws"]) for r in records) == ["None", "None", "coop", "coop"]
    assert len({r["config"]["draw"] for r in records}) == 4
    assert {r["run"].get("draws") for r in records} == {None, "coop"}
    table = bench.report(runs, tmp_path / "out")
    assert set(table["setting"]) == {"draws=nested", "draws=coop"}


def test_files_of_coop_s_draws_are_the_cells_of_the_name(tiny: Any, tmp_path: Path, count_calls: Any) -> None:
    from bench.methods.coop import CoOp

    runs, folder = tmp_path / "runs", tmp_path / "like-coop"
    tiny.run(runs, methods=["coop"], shots=[2], seeds=[1, 2], draws="coop")
    where = ["--suite", tiny.suite, "--data", str(tiny.data), "--shots=2", "--seeds=1,2", "--out", str(folder)]
    assert main(["data", "splits", "--like", "coop", *where]) == 0
    fits = count_calls(CoOp, "fit")
    tiny.run(runs, methods=["coop"], shots=[2], seeds=[1, 2], draws=folder)
    assert not fits and len(tiny.records(runs)) == 2
    assert main(["data", "splits", "--like", "coopp", *where]) == 2


def test_a_folder_that_is_not_there_is_an_error_that_names_the_other_way(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; or write coop"):
        tiny.run(tmp_path / "runs", draws=tmp_path / "none")
