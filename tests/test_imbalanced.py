"""imbalanced: the draw by hand, what methods make of classes of different sizes, and what a record says of it."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.datasets.fewshot import seeded_order
from bench.draws import few_shot_set
from bench.errors import UserError
from bench.methods import TaskData, find_method, method_names
from bench.methods.gda import gaussians
from bench.methods.zero_shot import ZeroShot
from bench.protocols import find_protocol
from bench.protocols.imbalanced import rounded
from bench.reports import report

sys.path.append(str(Path(__file__).parent))
from test_methods_heads import ZERO_SHOT, clip, digits, example, fitted, made, scores
from test_numbers import a_task
from test_unseen_task import world_of

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- the draw ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "total", "expected"),
    [
        ([6, 3, 1], 3, [2, 1, 0]),  # 1.8, 0.9, 0.3: the last class has none
        ([6, 3, 1], 6, [3, 2, 1]),  # 3.6, 1.8, 0.6 round to 7: the largest gives one up
        ([6, 3, 1], 12, [7, 4, 1]),  # 7.2, 3.6, 1.2
        ([1, 1, 1, 1], 8, [2, 2, 2, 2]),
        ([3, 3, 1, 1], 4, [2, 2, 0, 0]),  # 1.5, 1.5, 0.5, 0.5: halves go to the even number
        ([0, 4, 0], 3, [0, 3, 0]),
        ([0, 0], 2, [0, 0]),  # no validation images
    ],
)
def test_classes_share_the_images_by_their_sizes(shares: list[int], total: int, expected: list[int]) -> None:
    assert rounded(shares, total) == expected


TASK = a_task(3, train=[0] * 6 + [1] * 3 + [2], val=[0] * 2 + [1], test=[0, 1, 2])


def drawn(protocol: str, shots: int, seed: int = 1, task: Any = TASK) -> tuple[list[list[Any]], list[list[Any]]]:
    return few_shot_set(task, find_protocol(protocol), shots, seed, None)


def labels(blocks: list[list[Any]]) -> list[list[int]]:
    return [[item.label for item in block] for block in blocks]


def test_shots_are_drawn_by_share_and_more_of_them_go_on_from_fewer() -> None:
    """6, 3 and 1 images are there: 3, 6 and all 10 of them at 1, 2 and 4 shots; so are 2 and 1 to validate on."""
    assert labels(drawn("imbalanced", 1)[0]) == [[0, 0, 1]]
    assert labels(drawn("imbalanced", 2)[0]) == [[0, 0, 1], [0, 1, 2]]
    assert labels(drawn("imbalanced", 4)[0]) == [[0, 0, 1], [0, 1, 2], [0, 0, 0, 1]]
    assert labels(drawn("imbalanced", 1)[1]) == [[0, 0, 1]]
    assert drawn("imbalanced", 1)[0] == drawn("imbalanced", 4)[0][:1]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_class_s_images_are_the_first_in_the_seeds_order(seed: int) -> None:
    taken = [item for block in drawn("imbalanced", 2, seed)[0] for item in block if item.label == 0]
    own = sorted((i for i in TASK.split.train if i.label == 0), key=lambda item: seeded_order(item.path, seed))
    assert taken == own[:3]


def test_few_shot_and_imbalanced_draw_the_same_of_classes_of_one_size() -> None:
    even = a_task(2, train=[0, 1] * 9, val=[0, 1] * 4)
    for shots in (1, 3, 8):
        assert drawn("imbalanced", shots, task=even) == drawn("few-shot", shots, task=even)


def test_a_ratio_makes_classes_of_one_size_fall_geometrically() -> None:
    """Shares 1, 1/10, 1/100 of 12 images: 10.8, 1.08, 0.11."""
    even = a_task(3, train=[0, 1, 2] * 20)
    largest = set()
    for seed in range(12):
        blocks, _ = drawn("imbalanced:100", 4, seed, even)
        sizes = torch.bincount(torch.tensor([label for block in labels(blocks) for label in block]), minlength=3)
        assert sorted(sizes.tolist()) == [0, 1, 11]
        assert drawn("imbalanced:100", 4, seed, even) == (blocks, [])
        largest.add(int(sizes.argmax()))
    assert largest == {0, 1, 2}


@pytest.mark.parametrize("name", ["imbalanced:1", "imbalanced:0", "imbalanced:x", "imbalanced:", "imbalanced:1000"])
def test_a_ratio_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--protocol '{name}': write imbalanced:10"):
        find_protocol(name)


def test_tasks_of_which_none_is_imbalanced_are_refused(tiny: Any, tmp_path: Path) -> None:
    said = "imbalanced: Colour, Shade, Stripes: every class has as many .*; imbalanced:10 draws ten times"
    with pytest.raises(UserError, match=said):
        tiny.run(tmp_path, protocol="imbalanced")
    with pytest.raises(UserError, match="--draws coop: --protocol imbalanced:3 draws its own images"):
        tiny.run(tmp_path, protocol="imbalanced:3", draws="coop")


# ---- methods, by hand: of the specification's example two images of the first class, one of the second --------


def uneven(**changes: Any) -> TaskData:
    whole = example()
    return replace(whole, views=whole.views[:, :3], labels=whole.labels[:3], **changes)


def test_a_short_class_has_fewer_keys_in_tip_adapter_s_cache() -> None:
    """The images' weights at α = 2, β = 3 are .911825, .981708 and .660086."""
    method = fitted("tip-adapter", uneven(), alpha=2.0, beta=3.0)
    cache = (0.911825 + 0.981708, 0.660086)
    assert scores(method) == digits(*(z + 2 * c for z, c in zip(ZERO_SHOT, cache, strict=True)))


def test_clap_s_pull_is_the_mean_over_a_class_s_own_images() -> None:
    """Own-class probabilities are .880797 and .998887, and .880797."""
    assert made("clap", uneven()).heads[0].pull.tolist() == digits((0.880797 + 0.998887) / 2, 0.880797)


def test_gda_of_two_images_and_one() -> None:
    """Means (.88, .44) and (.6, .8), residuals ±(.08, −.16) and 0, so S = (.0064, −.0128 | −.0128, .0256), M = 3, and
    2 · (2S + tr S · I)⁻¹ = (54 1/6, 16 2/3 | 16 2/3, 29 1/6)."""
    task = uneven()
    weights, bias = gaussians(task.views, task.labels, 2)
    assert weights.tolist() == [pytest.approx([55.0, 27.5], rel=1e-5), pytest.approx([45.833333, 33.333333], rel=1e-5)]
    assert bias.tolist() == pytest.approx([-math.log(2) - 30.25, -math.log(2) - 27.083333], rel=1e-5)


def test_lp_plus_plus_starts_at_sums_and_at_the_mean_over_classes() -> None:
    """W = (.8, .6) + (.96, .28) and (.6, .8); f·t of their own class .88 in the mean, and .8: α = 250 · .84."""
    head = made("lp++", uneven()).heads[0]
    task = uneven()
    head.start(torch.nn.functional.normalize(task.views[0], dim=-1), task.labels)
    assert head.weights.tolist() == [digits(1.76, 0.88), digits(0.6, 0.8)]
    assert head.alpha.tolist() == digits(210, 210)


@pytest.mark.parametrize(("asked", "shots"), [(0, 2), (1, 1), (8, 8)])
def test_what_depends_on_the_shots_takes_those_of_the_run(asked: int, shots: int) -> None:
    """Not those of the largest class, where the run is known: α of GDA, λ of RLA."""
    task = uneven(asked=asked)
    assert task.shots == shots
    assert made("gda", task).heads[0].alpha.item() == pytest.approx({1: 1e-3, 2: 0.1, 8: 1.0}[shots])
    assert made("rla", task).heads[0].pull == pytest.approx(1 / shots)


SHORT = {"epochs": 2, "steps": 20, "batch": 8, "context": 4, "words": ""}


@pytest.mark.parametrize("name", [name for name in method_names() if find_method(name).image == "pooled"])
def test_a_class_without_images_is_scored_and_kept(name: str, tiny: Any) -> None:
    """Where images alone tell classes apart, it is never said; of the others every score is finite."""
    backbone, tasks = world_of(tiny)
    kind = find_method(name)
    known = {f for f in kind.Params.__dataclass_fields__}
    own = []
    for task in tasks:
        there = task.labels != 1
        views, found = task.views[:, there], task.labels[there]
        val = {"val": task.views[0, there], "val_labels": found}
        own.append(replace(task, views=views, labels=found, test_view=views[0], flip_view=views[0], **val))
    method = kind(kind.Params(**{k: v for k, v in SHORT.items() if k in known}))
    method.fit(backbone, own, 1, lambda done, total: None)
    images = torch.randn(40, backbone.embed_dim, generator=torch.Generator().manual_seed(2))
    found = method.predict(own[0], images)
    assert found.shape == (40, 3)
    if kind.reads_names:
        assert found.isfinite().all()
    else:
        assert (found[:, 1] == -torch.inf).all() and found[:, [0, 2]].isfinite().all()
    again = kind(method.params)
    again.restore(backbone, own, method.state())
    assert torch.equal(again.predict(own[0], images), found)


def test_a_linear_probe_of_one_class_says_so() -> None:
    method = find_method("linear-probe")()
    task = replace(example(), labels=torch.zeros(4, dtype=torch.long))
    with pytest.raises(UserError, match="linear-probe separates classes; task toy has images of one alone"):
        method.fit(clip(), [task], 1, lambda done, total: None)


# ---- a run ---------------------------------------------------------------------------------------------------

SEEN: dict[tuple[str, int], TaskData] = {}


class Noting(ZeroShot):
    """Zero-shot that notes what it is given to learn from."""

    name = "noting"
    trains = True
    needs = frozenset({"views"})

    def fit(self, clip: Any, tasks: Any, seed: int, report: Any) -> None:
        super().fit(clip, tasks, seed, report)
        SEEN.update({(task.name, seed): task for task in tasks})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Colour has 6, 3 and 6 images to train on, the other tasks 6 of each class."""
    from conftest import make_tiny

    root = tmp_path_factory.mktemp("uneven")
    tiny = make_tiny(root)
    for image in sorted((tiny.data / "colour" / "green paint").glob("*.png"))[6:]:
        image.unlink()
    for protocol in ("few-shot", "imbalanced", "imbalanced:10"):
        tiny.run(root / "runs", methods=[f"{__name__}:Noting", "zero-shot"], shots=[2], seeds=[1], protocol=protocol)
    return tiny, root / "runs"


def test_methods_are_given_classes_of_different_sizes_and_the_shots(ran: Any) -> None:
    """In the last run: shares 1, .316 and .1 of 6 images make 4.2, 1.3 and .4; Colour's largest class has only 3."""
    assert len(SEEN) == 3
    for (name, _), task in SEEN.items():
        assert sorted(task.counts.tolist()) == [0, 1, 3 if name == "Colour" else 4] and task.shots == 2


def test_records_and_report_tell_the_protocols_apart(ran: Any, tmp_path: Path) -> None:
    """Of Colour 2.4, 1.2 and 2.4 images by the classes' shares, so 5 in all, of the others 6; by the ratio
    4 + 1, but 3 + 1 of Colour, whose largest class has no more."""
    tiny, runs = ran
    records = list(tiny.records(runs).values())
    kept = {(r["cell"]["protocol"], r["cell"]["method"]): r for r in records}
    assert len(kept) == len(records) == 6 and len({r["key"] for r in records}) == 6
    for (protocol, method), record in kept.items():
        metrics = {row["task"]: row["metric"] for row in record["tasks"]}
        plain = {"Colour": "overall_acc", "Shade": "mean_acc", "Stripes": "overall_acc"}
        assert metrics == (plain if protocol == "few-shot" else dict.fromkeys(metrics, "mean_acc"))
        expected = {"few-shot": [6, 6, 6], "imbalanced": [5, 6, 6], "imbalanced:10": [4, 5, 5]}[protocol]
        assert [row["n_train"] for row in record["tasks"]] == (expected if method == "noting" else [0, 0, 0])
    report(str(runs), str(tmp_path), format="md")
    page = (tmp_path / "table.md").read_text(encoding="utf-8")
    for protocol, shares in (("imbalanced", "its share of the data"), ("imbalanced:10", "shares that fall to 1/10 of")):
        said = f"Protocol {protocol}, seed 1. Trained at 2 shots on classes of different sizes: as many images in all,"
        assert f"{said} of each class by {shares}" in page
    assert page.count("classes of different sizes") < page.count("Protocol ")  # not of few-shot's
