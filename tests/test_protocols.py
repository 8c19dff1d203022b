"""base2new: train on the first half of each task's classes, test both halves, each among its own classes."""

import pytest

from bench.cli import main
from bench.errors import UserError
from bench.methods import find_method, method_names
from bench.protocols.base2new import harmonic_mean


def test_base_to_new_scores_both_halves_and_their_harmonic_mean(tiny, tmp_path) -> None:
    results = tiny.run(tmp_path, methods=["coop"], shots=[2], seeds=[1], protocol="base2new")
    for _, rows in results.groupby("task"):
        part = rows.set_index("part")
        assert part["n_classes"].to_dict() == {"base": 2, "new": 1, "harmonic": 3}  # ⌈3/2⌉ are base
        assert part.loc["base", "n_train"] == 4  # two classes, two shots
        assert part.loc["new", "accuracy"] == 100  # a single class: nothing to mistake it for
        expected = harmonic_mean(part.loc["base", "accuracy"], 100)
        assert part.loc["harmonic", "accuracy"] == pytest.approx(expected)


def test_a_method_that_cannot_score_unseen_classes_is_refused_before_anything_is_trained(tiny, tmp_path) -> None:
    with pytest.raises(UserError, match="leave out coop-cs: it learns one context for each class"):
        tiny.run(tmp_path, methods=["coop", "coop-cs"], shots=[1], seeds=[1], protocol="base2new")
    assert not tiny.records(tmp_path)


def test_all_methods_under_base_to_new_are_those_that_can_score_unseen_classes(tiny, tmp_path, capsys) -> None:
    assert main([*tiny.command(tmp_path, "--protocol=base2new", "--dry-run"), "--methods=all"]) == 0
    said = capsys.readouterr().out
    closed = {name for name in method_names() if find_method(name).no_new_classes}
    assert closed >= {"protonet", "linear-probe", "tip-adapter", "coop-cs", "softcpt-csta", "softcpt-csts"}
    assert not closed & {"zero-shot", "coop", "shared-coop", "cocoop", "kgcoop", "plot", "clip-adapter", "gda"}
    for name in closed:
        why = find_method(name).no_new_classes
        assert f"Left out, {name} cannot score classes that no method was trained on: {why}" in said
    planned = {line.split()[2] for line in said.splitlines() if line.startswith("tiny ")}
    assert planned == set(method_names()) - closed
