"""Hand-written sentences: one template, several, or descriptions of the classes; in features, keys and kept cells."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import bench
from bench.config import RunConfig
from bench.methods import TaskData, template_features
from bench.plan import prepare
from bench.wording import sentences, wording

pytestmark = pytest.mark.usefixtures("one_thread")

# What a "tower" makes of each sentence: two numbers that are easy to normalise.
FEATURES = {
    "a cat.": (3.0, 4.0),  # 0.6, 0.8
    "the cat.": (0.0, 2.0),  # 0, 1
    "a dog.": (5.0, 0.0),  # 1, 0
    "the dog.": (0.0, 7.0),  # 0, 1
    "it barks.": (8.0, 6.0),  # 0.8, 0.6
}


class Tower:
    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([FEATURES[text] for text in texts])


CLIP: Any = SimpleNamespace(tower=Tower())
ONE = TaskData("pets", "", ("cat", "dog"), "a {}.", torch.zeros(1, 0, 2), torch.zeros(0, dtype=torch.long))
TWO = replace(ONE, template=("a {}.", "the {}."))


def test_one_template_is_its_normalised_feature() -> None:
    assert template_features(CLIP, ONE).tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([1.0, 0.0])]


def test_several_templates_are_the_normalised_mean_of_normalised_features() -> None:
    """cat: (0.6, 0.8) and (0, 1) have the mean (0.3, 0.9), of length √0.9; the raw features' mean would be (1.5, 3)."""
    cat = [0.3 / math.sqrt(0.9), 0.9 / math.sqrt(0.9)]
    dog = [math.sqrt(0.5), math.sqrt(0.5)]
    assert template_features(CLIP, TWO).tolist() == [pytest.approx(cat), pytest.approx(dog)]
    assert template_features(CLIP, TWO, ["dog"]).tolist() == [pytest.approx(dog)]


def test_descriptions_stand_instead_of_the_templates_for_the_classes_that_have_them() -> None:
    described = replace(TWO, descriptions={"dog": ("a dog.", "it barks.")})  # mean of (1, 0) and (0.8, 0.6)
    length = math.hypot(0.9, 0.3)
    cat = [0.3 / math.sqrt(0.9), 0.9 / math.sqrt(0.9)]
    assert template_features(CLIP, described).tolist() == [
        pytest.approx(cat),
        pytest.approx([0.9 / length, 0.3 / length]),
    ]
    # A class that the method was not trained on has its sentences, too.
    base = replace(described, class_names=("cat",))
    assert template_features(CLIP, base, ["dog"]).tolist() == [pytest.approx([0.9 / length, 0.3 / length])]
    assert sentences(described, "cat") == ["a cat.", "the cat."]


def test_a_key_holds_one_template_as_it_always_did_and_all_sentences_otherwise() -> None:
    assert wording(ONE) == "a {}."
    assert wording(TWO) == ("a {}.", "the {}.")
    assert wording(replace(ONE, descriptions={"dog": ["it barks."]})) == ["a {}.", [["a cat."], ["it barks."]]]


def in_suite(tiny: Any, old: str, new: str) -> None:
    suite = Path(tiny.suite)
    assert old in suite.read_text()
    suite.write_text(suite.read_text().replace(old, new))


def key(tiny: Any, tmp_path: Path) -> str:
    (cell,) = prepare(RunConfig(results=tmp_path, quiet=True, **{**tiny.arguments, "methods": ["zero-shot"]})).cells
    return cell.key


def test_other_sentences_make_another_cell(own_tiny: Any, cache: Path, tmp_path: Path) -> None:
    keys = [key(own_tiny, tmp_path)]
    in_suite(own_tiny, '"{} things."', '["{} things."]')
    assert key(own_tiny, tmp_path) == keys[0]  # a list of one is the one
    in_suite(own_tiny, '["{} things."]', '["{} things.", "some {} things."]')
    keys.append(key(own_tiny, tmp_path))
    (own_tiny.root / "shades.json").write_text(json.dumps({"grey": ["neither dark nor light."]}))
    in_suite(own_tiny, "{name: Shade,", "{name: Shade, descriptions: shades.json,")
    keys.append(key(own_tiny, tmp_path))
    (own_tiny.root / "shades.json").write_text(json.dumps({"grey": ["between dark and light."]}))
    keys.append(key(own_tiny, tmp_path))
    assert len(set(keys)) == 4


@pytest.mark.parametrize("protocol", ["few-shot", "base2new"])
def test_ensembles_and_descriptions_run_and_are_kept_with_the_cell(
    own_tiny: Any, cache: Path, tmp_path: Path, protocol: str
) -> None:
    """Base classes are dark and grey; light is new, and has its sentences all the same."""
    described = {"grey": ["neither dark nor light."], "light": ["bright things.", "pale things."]}
    (own_tiny.root / "shades.json").write_text(json.dumps(described))
    in_suite(own_tiny, '"{} things."', '["{} things.", "some {} things."]')
    in_suite(own_tiny, "{name: Shade,", "{name: Shade, descriptions: shades.json,")
    table = own_tiny.run(
        tmp_path / "runs",
        methods=["zero-shot", "kgcoop", "prograd"],
        shots=[1],
        seeds=[1],
        tasks=["Shade"],
        options=["kgcoop.words="],
        protocol=protocol,
    )
    assert set(table["method"]) == {"zero-shot", "kgcoop", "prograd"}
    (record,) = (tmp_path / "runs").rglob("zero-shot/*.json")
    kept = bench.load_cell(str(record), backbone=own_tiny.backbone)
    (task,) = kept.tasks
    assert task.template == ("{} things.", "some {} things.")
    assert {name: list(own) for name, own in task.descriptions.items()} == described
    text = template_features(kept.backbone, task, ["light", "dark"])
    wanted = ["bright things.", "pale things.", "dark things.", "some dark things."]
    pairs = torch.nn.functional.normalize(kept.backbone.tower.encode_texts(wanted), dim=-1).view(2, 2, -1)
    assert torch.allclose(text, torch.nn.functional.normalize(pairs.mean(dim=1), dim=-1), atol=1e-6)
