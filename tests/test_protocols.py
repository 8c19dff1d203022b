"""base2new: train on the first half of each task's classes, test both halves, each among its own classes."""

import pytest

from bench.protocols import harmonic_mean


def test_base_to_new_scores_both_halves_and_their_harmonic_mean(tiny, tmp_path) -> None:
    results = tiny.run(tmp_path, methods=["coop"], shots=[2], seeds=[1], protocol="base2new")
    for _, rows in results.groupby("task"):
        part = rows.set_index("part")
        assert part["n_classes"].to_dict() == {"base": 2, "new": 1, "harmonic": 3}  # ⌈3/2⌉ are base
        assert part.loc["base", "n_train"] == 4  # two classes, two shots
        assert part.loc["new", "accuracy"] == 100  # a single class: nothing to mistake it for
        expected = harmonic_mean(part.loc["base", "accuracy"], 100)
        assert part.loc["harmonic", "accuracy"] == pytest.approx(expected)


def test_a_method_that_cannot_score_unseen_classes_fails_with_its_reason(tiny, tmp_path) -> None:
    assert tiny.run(tmp_path, methods=["coop-cs"], shots=[1], seeds=[1], protocol="base2new").empty
    (record,) = tiny.records(tmp_path).values()
    assert record["status"] == "failed" and "one context for each class" in record["error"]
