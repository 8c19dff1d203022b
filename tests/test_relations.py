"""`bench relate`: every measure beside a plain computation or values worked out by hand, and what the command says."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import bench
from bench import gains, relations
from bench.cli import main
from bench.clip.text import Prompts
from bench.config import RunConfig
from bench.datasets import load_suite, load_tasks
from bench.features import ImageFeatures, View
from bench.files import file_name
from bench.methods import TaskData, find_method
from bench.plan import prepare
from bench.reports.relations import drawn, page

sys.path.append(str(Path(__file__).parent))
from test_cli import mistake

pytestmark = pytest.mark.usefixtures("one_thread")

NOUNS = relations.NOUNS.split()
TASKS = ["Colour", "Shade", "Stripes"]
SUBSETS = [["Colour"], ["Shade"], ["Stripes"], ["Colour", "Shade"], ["Colour", "Stripes"], ["Shade", "Stripes"]]


@pytest.fixture(scope="module")
def runs(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """softcpt with two seeds on three tasks, and with one seed on each of them alone and on each pair."""
    folder = tmp_path_factory.mktemp("runs")
    tiny.run(folder, shots=[2], seeds=[1, 2], methods=["zero-shot", "coop", "softcpt"])
    tiny.run(folder, shots=[1], seeds=[1], methods=["softcpt", "shared-coop"])
    for tasks in SUBSETS:
        tiny.run(folder, shots=[2], seeds=[1], methods=["softcpt"], tasks=tasks)
    tiny.run(folder, shots=[2], seeds=[1], methods=["coop"], options=["coop.joint=true"])
    return folder


def asked(runs: Path, tiny: Any, **more: Any) -> dict[str, Any]:
    return {"results": str(runs), "suite": tiny.suite, "data": str(tiny.data), "quiet": True, **more}


@pytest.fixture(scope="module")
def found(runs: Path, tiny: Any) -> dict[str, pd.DataFrame]:
    with torch.no_grad():
        return bench.relate(**asked(runs, tiny))


def scores(runs: Path, tiny: Any, method: str, seed: int, tasks: list[str] = TASKS) -> dict[str, float]:
    """A cell's accuracies, from its record."""
    for record in tiny.records(runs).values():
        cell = record["cell"]
        if (cell["method"], cell["seed"], record["config"]["tasks"]) == (method, seed, tasks) and cell["shots"] != 1:
            return {row["task"]: row["accuracy"] for row in record["tasks"]}
    raise LookupError(method)


def cells(runs: Path, method: str, variant: str = "") -> dict[int, Any]:
    """The loaded cells of all three tasks at 2 shots, by seed."""
    loaded = {}
    for path in sorted(runs.rglob(f"{method}/2shot-*.safetensors")):
        kept = bench.load_cell(str(path))
        if len(kept.tasks) == 3 and bool(kept.config["params"].get("joint")) == bool(variant):
            loaded[kept.config["seed"]] = kept
    return loaded


def contexts(kept: Any) -> list[torch.Tensor]:
    """[1, L, w] of each task, from the formula: V_t = E(u, name) P."""
    learned, tower = kept.method.learned, kept.backbone.tower
    if kept.method.name == "coop":
        return [learned[f"context-{t}"] for t in range(3)]
    made = []
    for task in kept.tasks:
        f = tower.encode([Prompts(learned["task_context"], [task.task_name])])[0][0]
        made.append((f @ learned["projection"]).reshape(1, kept.method.params.context, tower.width))
    return made


def unit_text(kept: Any, context: torch.Tensor, names: Any) -> torch.Tensor:
    return F.normalize(kept.backbone.tower.encode([Prompts(context, list(names))])[0][0], dim=-1)


def test_swap_is_what_each_task_scores_in_the_others_contexts(found: Any, runs: Path, tiny: Any) -> None:
    plain = scores(runs, tiny, "zero-shot", 0)
    wanted = np.zeros((3, 3))
    with torch.no_grad():
        for kept in cells(runs, "softcpt").values():
            for j, task in enumerate(load_tasks(load_suite(tiny.suite), tiny.data)):
                paths = [task.split.root / item.path for item in task.split.test]
                labels = np.array([item.label for item in task.split.test])
                images = F.normalize(ImageFeatures(kept.backbone).get(paths, View())[0], dim=-1)
                for i, context in enumerate(contexts(kept)):
                    said = (images @ unit_text(kept, context, task.class_names).T).argmax(dim=1).numpy()
                    recalls = [100 * (said == labels)[labels == c].mean() for c in range(3)]  # as many of each class
                    wanted[i, j] += (np.mean(recalls) - plain[task.name]) / 2
    assert found["swap"].index.tolist() == found["swap"].columns.tolist() == TASKS
    assert found["swap"].to_numpy() == pytest.approx(wanted, abs=1e-4)
    assert np.abs(wanted - wanted.T).max() > 1  # rows are not columns
    own = [np.mean([scores(runs, tiny, "softcpt", seed)[t] for seed in (1, 2)]) - plain[t] for t in TASKS]
    assert np.diag(found["swap"]) == pytest.approx(own, abs=1e-4)


def test_functional_likeness_is_of_what_contexts_do_to_class_names_and_nouns(found: Any, runs: Path, tiny: Any) -> None:
    for method, table in (("softcpt", found), ("coop", bench.relate(**asked(runs, tiny, cell=key_of(runs, "coop"))))):
        wanted = np.zeros((3, 3))
        with torch.no_grad():
            loaded = cells(runs, method)
            for kept in loaded.values():
                names = [*dict.fromkeys([n for task in kept.tasks for n in task.class_names] + NOUNS)]
                alone = F.normalize(kept.backbone.tower.encode_texts([f"{name}." for name in names]), dim=-1)
                rows = [(unit_text(kept, context, names) - alone).double().flatten() for context in contexts(kept)]
                for i in range(3):
                    for j in range(3):
                        wanted[i, j] += float(rows[i] @ rows[j] / rows[i].norm() / rows[j].norm()) / len(loaded)
        assert table["functional"].to_numpy() == pytest.approx(wanted, abs=1e-4)
    assert "contexts" not in table and "kernel" not in table and "spectrum" not in table  # CoOp's have no common start
    assert len({*NOUNS}) == len(NOUNS) == 100


def key_of(runs: Path, method: str, tasks: int = 3, joint: bool = False) -> str:
    for path in runs.rglob(f"{method}/2shot-seed1-*.safetensors"):
        kept = bench.load_cell(str(path))
        if len(kept.tasks) == tasks and bool(kept.config["params"].get("joint")) == joint:
            return path.stem.rpartition("-")[2]
    raise LookupError(method)


def test_kernel_contexts_and_spectrum_are_those_of_the_learned_task_features(found: Any, runs: Path) -> None:
    kernel, cosine, shares, ranks = np.zeros((3, 3)), np.zeros((3, 3)), np.zeros(3), 0.0
    with torch.no_grad():
        for kept in cells(runs, "softcpt").values():
            u, tower = kept.method.learned["task_context"], kept.backbone.tower
            f = torch.cat([tower.encode([Prompts(u, [task.task_name])])[0][0] for task in kept.tasks]).double().numpy()
            v = torch.stack([own.flatten() for own in contexts(kept)]).double().numpy()
            v /= np.linalg.norm(v, axis=1, keepdims=True)
            values = np.linalg.eigvalsh(f @ f.T)[::-1]
            own = values / values.sum()
            kernel, cosine, shares = kernel + f @ f.T / 2, cosine + v @ v.T / 2, shares + own / 2
            ranks += np.exp(-(own * np.log(own)).sum()) / 2
    assert found["kernel"].to_numpy() == pytest.approx(kernel, rel=1e-4)
    assert found["contexts"].to_numpy() == pytest.approx(cosine, abs=1e-4)
    assert found["spectrum"]["of K"].tolist() == ["effective rank", "share 1", "share 2", "share 3"]
    assert found["spectrum"]["learned"].to_numpy() == pytest.approx(np.array([ranks, *shares]), abs=1e-3)
    first = np.zeros(3)
    with torch.no_grad():
        for seed, kept in cells(runs, "softcpt").items():
            start = type(kept.method)(kept.method.params)
            start.setup(kept.backbone, kept.tasks, seed)
            values = np.linalg.eigvalsh((f := start.features(range(3)).double().numpy()) @ f.T)[::-1]
            first += values / values.sum() / 2
    assert found["spectrum"]["start"].to_numpy()[1:] == pytest.approx(first, abs=1e-4)
    assert np.abs(first - shares).max() > 1e-3


def test_the_kernel_times_the_gradients_is_the_product_of_the_losses_gradients_by_p(
    found: Any, runs: Path, tiny: Any
) -> None:
    """Held u: L_i depends on P through V_i = f_i P, so ⟨∂L_i/∂P, ∂L_j/∂P⟩ = ⟨f_i, f_j⟩ ⟨G_i, G_j⟩."""
    by_p, factor = np.zeros((3, 3)), np.zeros((3, 3))
    plan = prepare(RunConfig(**asked(runs, tiny), backbone=tiny.backbone, shots=2, seeds=(1, 2), methods="zero-shot"))
    for seed, kept in cells(runs, "softcpt").items():
        rows, names = [], [task.task_name for task in kept.tasks]
        f = kept.backbone.tower.encode([Prompts(kept.method.learned["task_context"], names)])[0][0].detach()
        for t, task in enumerate(kept.tasks):
            p = kept.method.learned["projection"].detach().requires_grad_(True)
            context = (f[t] @ p).reshape(1, kept.method.params.context, -1)
            parts = plan.images.draws[2, seed].train[task.name]
            images = plan.features.get([path for part in parts for path in part.paths], View())[0]
            labels = torch.tensor([item.label for part in parts for item in part.items])
            logits = kept.backbone.scale * F.normalize(images, dim=-1) @ unit_text(kept, context, task.class_names).T
            rows.append(torch.autograd.grad(F.cross_entropy(logits, labels), p)[0].flatten().double())
        products = (torch.stack(rows) @ torch.stack(rows).T).numpy()
        by_p += products / 2
        factor += products / (f @ f.T).double().numpy() / 2
    assert found["kernel × gradients"].to_numpy() == pytest.approx(by_p, rel=1e-3, abs=1e-4 * np.abs(by_p).max())
    assert found["gradients"].to_numpy() == pytest.approx(factor, rel=1e-3, abs=1e-4 * np.abs(factor).max())


def test_a_graph_s_kernel_is_that_of_its_smoothed_features(tiny: Any, tmp_path: Path) -> None:
    """V = S F P, and P has a right inverse: S F = V P⁺."""
    tiny.run(tmp_path, shots=[1], seeds=[1], methods=["softcpt-graph"], options=["softcpt-graph.a=0.5"])
    (path,) = tmp_path.rglob("*.safetensors")
    kept: Any = bench.load_cell(str(path))
    with torch.no_grad():
        v = torch.cat(kept.method.contexts(range(3), [["a"]] * 3)).flatten(1).double()
        smoothed = (v @ torch.linalg.pinv(kept.method.learned["projection"].double())).numpy()
        plain = kept.method.features(range(3)).double().numpy()
    kernel = bench.relate(**asked(tmp_path, tiny, method="softcpt-graph"))["kernel"].to_numpy()
    assert kernel == pytest.approx(smoothed @ smoothed.T, rel=1e-3)
    assert np.abs(kernel / (plain @ plain.T) - 1).max() > 0.05


def test_a_method_whose_contexts_are_not_f_times_p_has_no_kernel(tiny: Any, tmp_path: Path) -> None:
    for name in ("coop-mix", "softcpt-mix", "softcpt-rank"):
        tiny.run(tmp_path, shots=[1], seeds=[1], methods=[name])
        table = bench.relate(**asked(tmp_path, tiny, method=name))
        assert {"contexts", "contexts change"} <= set(table)
        assert not {"kernel", "spectrum", "gradients", "kernel × gradients"} & set(table)


def test_without_learning_nothing_changes_since_the_start(runs: Path, tiny: Any, tmp_path: Path) -> None:
    tiny.run(tmp_path, shots=[1], seeds=[1], methods=["softcpt"], options=["softcpt.lr=0", "softcpt.warmup_lr=0"])
    still = bench.relate(**asked(tmp_path, tiny))
    assert still["contexts change"].to_numpy() == pytest.approx(np.zeros((3, 3)), abs=1e-6)
    assert still["spectrum"]["start"].to_numpy() == pytest.approx(still["spectrum"]["learned"].to_numpy(), abs=1e-5)
    moved = bench.relate(**asked(runs, tiny))["contexts change"].to_numpy()
    assert np.abs(moved).max() > 1e-3 and np.diag(moved) == pytest.approx(np.zeros(3), abs=1e-6)


def test_start_values_of_other_code_are_left_out(runs: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "numerics", lambda: "0")
    table = bench.relate(**asked(runs, tiny))
    assert "contexts change" not in table and "start" not in table["spectrum"]
    assert any(note.startswith("Start values are left out") for note in table["association"].attrs["notes"])


def a_task(name: str, *classes: str) -> TaskData:
    return TaskData(name, name, classes, "{}", torch.zeros(1, 0, 2), torch.zeros(0, dtype=torch.long))


def test_text_similarity_is_of_features_less_their_mean() -> None:
    """(1, 0), (0, 1), (−1, 0), of other lengths: less their mean (0, 1/3), (1, −1/3), (0, 2/3), (−1, −1/3)."""
    features = {"a.": [2.0, 0.0], "b.": [0.0, 1.0], "c.": [-3.0, 0.0]}
    clip: Any = SimpleNamespace(
        tower=SimpleNamespace(encode_texts=lambda texts: torch.tensor([features[text] for text in texts]))
    )
    near = -2 / 9 / (np.sqrt(10) / 3 * 2 / 3)
    wanted = [[1, near, -0.8], [near, 1, near], [-0.8, near, 1]]
    assert relations.text(clip, [a_task("a"), a_task("b"), a_task("c")]) == pytest.approx(np.array(wanted))


def test_visual_similarity_is_of_mean_unit_features() -> None:
    """Means (1, 1)/2 of images of other lengths, (1, 0), and (0, −2) → cosines √½, −√½, 0."""
    images = [torch.tensor([[5.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, -2.0]])]
    half = np.sqrt(0.5)
    assert relations.visual(images) == pytest.approx(np.array([[1, half, -half], [half, 1, 0], [-half, 0, 1]]))


def test_class_name_overlap_is_shared_of_all() -> None:
    tasks = [a_task("a", "rose", "Oak"), a_task("b", "oak", "elm"), a_task("c", "car")]
    assert relations.overlap(tasks) == pytest.approx(np.array([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]))


def test_visual_similarity_of_the_cells_is_of_their_own_few_shot_images(found: Any, runs: Path, tiny: Any) -> None:
    given = {"suite": tiny.suite, "data": str(tiny.data), "backbone": tiny.backbone, "quiet": True}
    plan = prepare(RunConfig(**given, shots=2, seeds=(1, 2), methods="zero-shot"))
    wanted = np.zeros((3, 3))
    for seed in (1, 2):
        means = []
        for task in TASKS:
            paths = [path for part in plan.images.draws[2, seed].train[task] for path in part.paths]
            assert len(paths) == 6
            means.append(F.normalize(plan.features.get(paths, View())[0], dim=-1).mean(dim=0))
        wanted += np.array([[float(F.cosine_similarity(a, b, dim=0)) for b in means] for a in means]) / 2
    assert found["visual"].to_numpy() == pytest.approx(wanted, abs=1e-5)


# ---- gains from records ------------------------------------------------------------------------------------------

HELD = {
    frozenset("a"): {"a": 50.0},
    frozenset("b"): {"b": 60.0},
    frozenset("ab"): {"a": 53.0, "b": 59.0},
    frozenset("bc"): {"b": 70.0, "c": 10.0},
    frozenset("abc"): {"a": 55.0, "b": 58.0, "c": 20.0},
}


def test_gains_by_hand() -> None:
    second = {**HELD, frozenset("a"): {"a": 40.0}, frozenset("b"): {"b": 58.0}}
    even = {frozenset("a"): {"a": 0.1 + 0.2}, frozenset("ab"): {"a": 0.3, "b": 1.0}}
    assert gains.alone({1: even}, ["a", "b"])["gain"].tolist() == [0]  # no loss of 6e-17
    table = gains.alone({1: HELD, 2: second, 3: {frozenset("a"): {"a": 0.0}}}, ["a", "b", "c"])
    assert table.to_dict("list") == {  # c was never trained alone; seed 3 has no training of all
        "task": ["a", "b"], "together": [55, 58], "alone": [45, 59], "gain": [10, -1], "seeds": [2, 2],
    }  # fmt: skip
    nan = float("nan")
    assert gains.pairs(HELD, ["a", "b", "c"]) == pytest.approx(
        np.array([[nan, 3, nan], [-1, nan, 10], [nan, nan, nan]]), nan_ok=True
    )
    assert gains.left_out(HELD, ["a", "b", "c"]) == pytest.approx(
        np.array([[nan, nan, 2], [-12, nan, -1], [10, nan, nan]]), nan_ok=True
    )


def test_gains_are_those_of_the_records(found: Any, runs: Path, tiny: Any) -> None:
    """Of seed 1, the one that has cells on fewer tasks."""
    together = scores(runs, tiny, "softcpt", 1)
    alone = {task: scores(runs, tiny, "softcpt", 1, [task])[task] for task in TASKS}
    table = found["gains"].set_index("task")
    assert table["gain"].to_dict() == pytest.approx({task: together[task] - alone[task] for task in TASKS})
    assert set(table["seeds"]) == {1}
    notes, lost = found["association"].attrs["notes"], int((table["gain"] < 0).sum())
    assert f"Negative transfer: joint training costs {lost} of 3 tasks accuracy." in notes
    assert "Gains are without cells trained on one task: Colour (seed 2), Shade (seed 2), Stripes (seed 2)." in notes
    assert "pair gain: all pairs of tasks have records with 1 of 2 seeds only." in notes
    for pair in SUBSETS[3:]:
        (third,) = set(TASKS) - set(pair)
        both = scores(runs, tiny, "softcpt", 1, pair)
        for i, j in (pair, pair[::-1]):
            assert found["pair gain"].loc[i, j] == pytest.approx(both[i] - alone[i])
            assert found["left-out gain"].loc[i, third] == pytest.approx(together[i] - both[i])


def test_what_gains_lack_is_told() -> None:
    """a was trained alone with seed 1 and b with both; of the three pairs a–b has records with seed 1."""
    second = {key: row for key, row in HELD.items() if key not in (frozenset("a"), frozenset("ab"))}
    several = [gains.pairs(held, ["a", "b", "c"]) for held in (HELD, second)]
    said = gains.notes({1: HELD, 2: second}, ["a", "b", "c"], {"pair gain": several})
    assert said == [
        "Gains are without cells trained on one task: a (seed 2), c (seeds 1, 2).",
        "pair gain: 2 of 3 pairs of tasks lack records: correlated with nothing.",
    ]
    both = {"pair gain": [gains.pairs(held, ["a", "b"]) for held in (HELD, second)]}
    (told,) = gains.notes({1: HELD}, ["a", "b"], both)
    assert told == "pair gain: all pairs of tasks have records with 1 of 2 seeds only."
    (told,) = gains.notes({1: {frozenset("ab"): {"a": 1.0, "b": 2.0}}}, ["a", "b"], {})
    assert told.startswith("No gains of joint training: ")
    assert gains.notes({1: {frozenset("a"): {"a": 1.0}, frozenset("b"): {"b": 2.0}}}, ["a", "b"], {}) == []  # no joint


def test_joint_coop_gains_over_coop_trained_on_each_task_alone(runs: Path, tiny: Any) -> None:
    table = bench.relate(**asked(runs, tiny, cell=key_of(runs, "coop", joint=True)))["gains"].set_index("task")
    alone, together = scores(runs, tiny, "coop", 1), None
    for record in tiny.records(runs).values():
        if record["config"]["params"].get("joint"):
            together = {row["task"]: row["accuracy"] for row in record["tasks"]}
    assert together is not None
    assert table["gain"].to_dict() == pytest.approx({task: together[task] - alone[task] for task in TASKS})


def test_associations_are_of_the_means_over_seeds(found: Any) -> None:
    from scipy.stats import spearmanr

    table = found["association"].set_index(["gain", "similarity"])
    upper = np.triu_indices(3, 1)
    for gain in ("swap", "pair gain", "left-out gain"):
        for name in ("text", "kernel", "contexts", "contexts change", "functional", "visual"):
            a, b = (own.to_numpy() for own in (found[name], found[gain]))
            wanted = spearmanr(a[upper], ((b + b.T) / 2)[upper]).statistic
            assert table.loc[(gain, name), "rho"] == pytest.approx(wanted, nan_ok=True)
        assert np.isnan(table.loc[(gain, "class names"), "rho"])  # no two tasks share a name
    assert set(table["least p"]) == {1 / 6}
    assert any("With 3 tasks nothing can be significant" in note for note in found["association"].attrs["notes"])


def test_an_association_by_hand() -> None:
    """Swaps of two seeds with halves of ρ = 0.5, so of reliability 2/3; their mean is 3, 1.5, 1.5, of ranks 3, 1.5, 1.5
    beside 3, 2, 1: ρ = 1.5 / (√2 √1.5), which two of the six permutations reach. Text is the same in both."""

    def square(*values: float) -> Any:
        full = np.zeros((3, 3))
        full[np.triu_indices(3, 1)] = values
        return full + full.T

    table = relations.associated({"swap": [square(3, 2, 1), square(3, 1, 2)], "text": [square(9, 5, 1)] * 2})
    assert table[["gain", "similarity", "seeds"]].to_numpy().tolist() == [["swap", "text", 2]]
    told = table.loc[0, ["rho", "p", "least p", "ceiling"]].tolist()
    assert told == pytest.approx([1.5 / 3**0.5, 1 / 3, 1 / 6, (2 / 3) ** 0.5])
    even = relations.associated({"swap": [square(3, 0.1 + 0.2, 0.3)], "text": [square(9, 5, 1)]})
    assert even.loc[0, "rho"] == pytest.approx(1.5 / 3**0.5)  # 0.1 + 0.2 and 0.3 are a tie


# ---- the command -------------------------------------------------------------------------------------------------


def test_the_command_prints_tables_and_writes_them_with_a_picture(
    runs: Path, tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "relations"
    typed = ["--results", str(runs), "--suite", tiny.suite, "--data", str(tiny.data), "--out", str(out)]
    assert main(["relate", *typed]) == 0
    said = capsys.readouterr().out
    assert said.startswith("softcpt, 2 shots, 3 tasks of tiny, tiny-clip, seeds 1, 2")
    for part in ("swap: points", "spectrum of K", "gain of joint training", "nothing can be significant", str(out)):
        assert part in said
    swap = pd.read_csv(out / "swap.csv", index_col=0)
    again = bench.relate(**asked(runs, tiny))
    assert swap.to_numpy() == pytest.approx(again["swap"].to_numpy())
    written = {path.name for path in out.iterdir()}
    assert written == {"relations.md", "relations.png", "relations.svg", *(f"{file_name(n)}.csv" for n in again)}
    page = (out / "relations.md").read_text(encoding="utf-8")
    assert "# How tasks relate" in page and "Which likeness goes with which gain" in page
    assert f"{again['swap'].loc['Colour', 'Shade']:.1f}" in page


def a_frame(*rows: list[float]) -> pd.DataFrame:
    return pd.DataFrame(rows, pd.Index(["a", "b<i>|", "c"], name="task"), ["a", "b<i>|", "c"])


def test_the_picture_s_matrices_stand_in_the_order_of_the_dendrogram_of_functional_shifts() -> None:
    """a and c are near to each other, and b is nearer to a."""
    nan = float("nan")
    frames = {
        "swap": a_frame([1, 2, 3], [-4, 5, 6], [7, 8, 9]),
        "pair gain": a_frame([nan, 12, 13], [21, nan, 23], [31, 32, nan]),
        "kernel": a_frame([4, 2, 0], [2, 1, 0], [0, 0, 9]),
        "functional": a_frame([1, 0.2, 0.9], [0.2, 1, 0.1], [0.9, 0.1, 1]),
        "class names": a_frame([1, 0, 0], [0, 1, 0], [0, 0, 1]),
    }
    found = relations.Relations("softcpt", True, {**frames, "association": pd.DataFrame()}, ["A note."])
    figure = drawn(found)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == ["context swap", "gain in pairs", "task features (K)", "functional shifts"]
    order = [label.get_text() for label in panels["context swap"].get_yticklabels()]
    assert order in (["b<i>|", "a", "c"], ["c", "a", "b<i>|"])
    wanted = {  # in the first order, nothing on the diagonal but for the swap
        "context swap": [5, -4, 6, 2, 1, 3, 8, 7, 9],
        "gain in pairs": [21, 23, 12, 13, 32, 31],
        "task features (K)": [100, 0, 100, 0, 0, 0],  # 2 / √(4 · 1)
        "functional shifts": [20, 10, 20, 90, 10, 90],
    }
    for title, values in wanted.items():
        written = [int(text.get_text()) for text in panels[title].texts]
        assert written == (values if order[0] == "b<i>|" else values[::-1]), title
    text = page(found)
    assert "b&lt;i&gt;\\|" in text and "<i>" not in text and "DEMO" in text


def test_the_commands_of_the_page_run_as_printed(tiny: Any, tmp_path: Path) -> None:
    """On the tests' pictures instead of the demo's, whose tasks have other names."""
    page = (Path(__file__).parents[1] / "docs" / "task-sharing.md").read_text(encoding="utf-8")
    section = page.partition("## How tasks relate\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^python -m bench (.*)$", section, flags=re.MULTILINE)
    commands = sorted((shlex.split(line, comments=True) for line in lines), key=lambda words: words[0], reverse=True)
    assert [words[0] for words in commands] == ["run", "run", "run", "relate"]
    where = ["--suite", tiny.suite, "--data", str(tiny.data), "--results", str(tmp_path / "runs")]
    demo = {task.name for task in load_suite("demo").tasks}
    for words in commands:
        if "--tasks" in words:
            place = words.index("--tasks") + 1
            assert {*words[place].split(",")} <= demo
            words[place] = words[place].replace("Shape", "Shade")
        few = ["--backbone", tiny.backbone, "--seeds", "1,2", "--quiet"]
        more = few if words[0] == "run" else ["--out", str(tmp_path / "out")]
        assert main([*words, *where, *more]) == 0
    gained = pd.read_csv(tmp_path / "out" / "gains.csv")
    assert gained["task"].tolist() == ["Shade"] and gained["seeds"].tolist() == [2]
    pairs = pd.read_csv(tmp_path / "out" / "pair_gain.csv", index_col=0)
    assert pairs.notna().sum().sum() == 1 and not np.isnan(pairs.loc["Shade", "Colour"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "softcp"], "did you mean 'softcpt'?"),
        (["--method", "kgcoop"], "or name another with --method (there: coop, shared-coop, softcpt)"),
        (["--shots", "8"], "no finished few-shot cell of softcpt at 8 shots (there: 1, 2) below"),
        (["--shots", "8"], "run `python -m bench run --methods softcpt --shots 8 --results"),
        (["--method", "coop"], "2 settings of coop below"),
        (["--method", "protonet"], "--method protonet: learns no prompts"),
        (["--method", "zero-shot"], "--method zero-shot: learns no prompts"),
        (["--method", "shared-coop"], "all tasks have the same context"),
        (["--cell", "3f", "--shots", "1"], "--shots 1: --cell 3f says which cells; leave one of them out"),
        (["--cells", "3f"], "unknown argument '--cells'; did you mean '--cell'?"),
    ],
)
def test_what_cannot_be_related_is_one_line(more: list[str], said: str, runs: Path, tiny: Any, capsys: Any) -> None:
    where = ["--results", str(runs), "--suite", tiny.suite, "--data", str(tiny.data)]
    assert said in mistake(["relate", *where, *more], capsys)


def test_a_cell_of_another_method_or_protocol_or_that_failed_is_refused(
    runs: Path, tiny: Any, tmp_path: Path, capsys: Any
) -> None:
    key = key_of(runs, "coop")
    said = mistake(["relate", "--results", str(runs), "--cell", key, "--method", "kgcoop"], capsys)
    assert said == f"error: --method kgcoop: --cell {key} is of coop; leave one of them out"
    tiny.run(tmp_path, shots=[1], seeds=[1], methods=["coop"], protocol="base2new")
    (path,) = tmp_path.rglob("*.json")
    assert "of protocol base2new" in mistake(["relate", "--results", str(tmp_path), "--cell", str(path)], capsys)
    with pytest.warns(UserWarning, match="1 of 1 cell failed"):
        tiny.run(tmp_path / "failed", shots=[1], seeds=[1], methods=["coop"], options=["coop.words=a"])
    (path,) = (tmp_path / "failed").rglob("*.json")
    assert "it failed (words='a'" in mistake(["relate", "--results", str(tmp_path), "--cell", str(path)], capsys)
    (path,) = runs.rglob("zero-shot/*.json")
    assert "zero-shot learns nothing" in mistake(["relate", "--results", str(runs), "--cell", str(path)], capsys)
    tiny.run(tmp_path / "some", shots=[1], seeds=[1], methods=["softcpt"], score_tasks=2)
    said = mistake(["relate", "--results", str(tmp_path / "some")], capsys)
    assert "scored 2 of the 3 tasks that it was trained on (--score-tasks)" in said


def test_a_folder_of_another_protocol_is_named_and_offers_no_method(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    methods = ["zero-shot-generic", "shared-coop", "softcpt"]
    tiny.run(tmp_path, shots=[1], seeds=[1], methods=methods, protocol="source-task:Colour")
    said = mistake(["relate", "--results", str(tmp_path)], capsys)
    run = f"`python -m bench run --methods softcpt --results {tmp_path}`"
    read = "; its cells of --protocol source-task:Colour are not read"
    assert said == f"error: no finished few-shot cell of softcpt below '{tmp_path}'; run {run}{read}"
    tiny.run(tmp_path, shots=[1], seeds=[1], methods=["zero-shot-generic", "shared-coop"])
    assert f"; run {run}, or name another with --method (there: shared-coop)" in mistake(
        ["relate", "--results", str(tmp_path)], capsys
    )


def test_other_images_than_the_cells_are_refused(runs: Path, tiny: Any, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(tiny.data, tmp_path / "data")
    lost = sorted((tmp_path / "data" / "colour").glob("*/*.png"))[-1]
    lost.unlink()
    typed = ["--results", str(runs), "--suite", tiny.suite, "--data", str(tmp_path / "data")]
    assert "with these settings its backbone, names or images are others" in mistake(["relate", *typed], capsys)


def test_of_cells_made_by_several_versions_of_the_code_the_last_are_taken(tiny: Any, tmp_path: Path) -> None:
    tiny.run(tmp_path, shots=[1], seeds=[1, 2], methods=["softcpt"])
    plain = bench.relate(**asked(tmp_path, tiny))
    (path,) = tmp_path.rglob("1shot-seed1-*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    record_key = record["key"]
    del record["checksum"]
    record["config"]["numerics"], record["key"], record["finished"] = "0", "0" * 24, "2020-01-01T00:00:00+00:00"
    record["tasks"][0]["accuracy"] = 0.0
    other = path.with_name(f"1shot-seed1-{record['key']}.json")
    other.write_text(json.dumps(record), encoding="utf-8")
    shutil.copy(path.with_suffix(".safetensors"), other.with_suffix(".safetensors"))
    with pytest.warns(UserWarning, match="1 cell made by other code left out; --cell names one of them"):
        again = bench.relate(**asked(tmp_path, tiny))
    pd.testing.assert_frame_equal(plain["swap"], again["swap"])
    tiny.run(tmp_path, shots=[1], seeds=[1], methods=["softcpt"], tasks=["Shade"])
    assert bench.relate(**asked(tmp_path, tiny, cell=record_key))["gains"]["task"].tolist() == ["Shade"]
    with pytest.warns(UserWarning, match="gains: 1 cell of other seeds, images or code left out"):
        of_other_code = bench.relate(**asked(tmp_path, tiny, cell="0" * 24))
    assert "gains" not in of_other_code
    alone = of_other_code["association"]
    assert set(alone["seeds"]) == {1}
    assert any(note.startswith("Accuracies differ by up to") for note in alone.attrs["notes"])


def test_a_run_s_own_settings_are_taken_and_its_suite_file_is_asked_for(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    """One validation image a class, where two shots have two: another draw."""
    tiny.run(tmp_path, shots=[2], seeds=[1], methods=["softcpt"], val_shots=1)
    assert bench.relate(**asked(tmp_path, tiny))["visual"].shape == (3, 3)
    said = mistake(["relate", "--results", str(tmp_path), "--data", str(tiny.data)], capsys)
    assert said == "error: --suite: that of the cells, 'tiny', was a file, and records hold no paths; give it again"


def test_cells_without_their_parameters_and_of_one_task(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    where = ["--suite", tiny.suite, "--data", str(tiny.data)]
    tiny.run(tmp_path / "bare", shots=[1], seeds=[1], methods=["softcpt"], keep=False)
    assert "learned parameters beside its record" in mistake(["relate", "--results", str(tmp_path / "bare")], capsys)
    tiny.run(tmp_path / "one", shots=[1], seeds=[1], methods=["softcpt"], tasks=["Colour"])
    said = mistake(["relate", "--results", str(tmp_path / "one"), *where], capsys)
    assert "trained on one task" in said


def test_methods_whose_prompts_fit_no_other_task_say_so() -> None:
    on_images = "depend on the image"
    for name, reason in (("coop-cs", "fit no other task's"), ("cocoop", on_images), ("shared-cocoop", on_images)):
        method = find_method(name)()
        method.tasks = [a_task("a", "x"), a_task("b", "y")]
        assert reason in relations.why_not(method)
