"""Methods can be told apart, also by those who do not see red and green: measured in simulated vision."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from colorspacious import cspace_convert
from matplotlib.colors import to_rgb

from bench.methods import method_names
from bench.reports import looks

LEAST = 10  # ΔE in CIELAB; 2.3 is just noticeable side by side, lines 1.5 points wide take more
VISIONS = (None, "protanomaly", "deuteranomaly")  # at full severity: protanopia, deuteranopia
LISTED = [name for family in looks.FAMILIES for name in family.methods]
UNLISTED = ["one's own", "another", "a third", "softcpt-mine", "coop-mine", "x", "y", "z"]


def seen(colour: str, vision: str | None) -> np.ndarray:
    """CIELAB of a colour as it is seen (Machado, Oliveira and Fernandes 2009)."""
    space = {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100} if vision else "sRGB1"
    return cspace_convert(np.clip(cspace_convert(to_rgb(colour), space, "sRGB1"), 0, 1), "sRGB1", "CIELab")


def distance(a: str, b: str) -> float:
    """The least ΔE of two colours over all visions."""
    return min(float(np.linalg.norm(seen(a, vision) - seen(b, vision))) for vision in VISIONS)


def test_distances_are_those_of_the_literature() -> None:
    assert distance("#ffffff", "#000000") == pytest.approx(100, abs=0.1)  # L* 100 and 0
    assert np.linalg.norm(seen("#ff0000", None) - seen("#00ff00", None)) == pytest.approx(170.6, abs=0.5)
    # Red and a dark yellow-green of its lightness: far apart for most, alike for deuteranopes.
    assert np.linalg.norm(seen("#d02020", None) - seen("#7a7000", None)) > 60
    assert np.linalg.norm(seen("#d02020", "deuteranomaly") - seen("#7a7000", "deuteranomaly")) < 15


def test_any_two_methods_differ_in_colour_or_in_marker_for_everybody() -> None:
    found = looks.looks([*LISTED, *UNLISTED])
    assert len(found) >= 40
    alike = [
        (a, b)
        for a, b in combinations(found, 2)
        if distance(found[a].colour, found[b].colour) < LEAST and found[a].marker == found[b].marker
    ]
    assert alike == []


def test_lines_of_a_family_share_no_colour_and_dash() -> None:
    found = looks.looks([*LISTED, *UNLISTED])
    drawn = [(look.family, look.colour, look.dash) for look in found.values()]
    assert len(set(drawn)) == len(drawn)
    for a, b in combinations(found.values(), 2):
        if a.family == b.family and a.dash == b.dash:
            assert distance(a.colour, b.colour) >= LEAST


def test_no_line_is_too_pale_for_paper_and_none_but_zero_shot_is_nearly_black() -> None:
    colours = [colour for family in (*looks.FAMILIES, looks.OTHERS) for colour in family.colours]
    for colour in colours:
        luminance = cspace_convert(to_rgb(colour), "sRGB1", "XYZ100")[1] / 100
        assert 1.05 / (luminance + 0.05) >= 3  # WCAG 2.2, 1.4.11: contrast of what must be recognised
        assert seen(colour, None)[0] > 25 or colour == looks.ZERO_SHOT.colour


def test_a_method_looks_the_same_whoever_is_beside_it() -> None:
    few, many = looks.looks(["softcpt", "coop"]), looks.looks([*UNLISTED, *LISTED])
    assert (few["softcpt"], few["coop"]) == (many["softcpt"], many["coop"])
    assert len(set(many.values())) == len(many)


@pytest.mark.parametrize(
    ("method", "family"),
    [
        ("coop", "CoOp family"),
        ("coop-tree", "task sharing"),
        ("softcpt-csta", "SoftCPT family"),
        ("softcpt-graph-2", "task sharing"),  # of the two beginnings the longer one
        ("cooperative", "other methods"),
        ("zero-shot-names", "zero-shot"),
        ("果物", "other methods"),
    ],
)
def test_an_unlisted_method_belongs_to_the_family_that_its_name_begins_with(method: str, family: str) -> None:
    assert looks.family(method) == family


def test_every_method_of_the_bench_is_listed() -> None:
    assert set(method_names()) <= set(LISTED)
