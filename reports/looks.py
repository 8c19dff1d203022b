"""One look per method, the same in every figure and on the page: a hue per family; a shade, marker and dash per member.

The families are listed here and not in the methods' classes: a report is made from records alone, also from those of
methods that this machine lacks. Whoever adds a method adds its name; one that is not listed belongs to the family whose
name, or whose member's name, it begins with ("softcpt-mine"), and otherwise to "other methods".

No library is needed for it: the colours are fixed, and tests/test_figures_looks.py simulates how people see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """colours : shades of one hue, CIELAB lightness about 31, 47 and 61, so that they stay apart from one another
    where hues do not, and from white paper. marker : the place in `MARKERS` of the first member's.
    """

    name: str
    colours: tuple[str, ...]
    marker: int
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """colour : "#rrggbb". marker : matplotlib's letter. dash : lengths on, off, … in line widths; () is solid."""

    family: str
    colour: str
    marker: str
    dash: tuple[float, ...]


# Three shades and four dashes: a family repeats none of twelve pairs.
MARKERS = ("o", "s", "^", "D", "v", "P", "h", "p", "X", ">", "<", "d", "*")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.5), (1.5, 1.5), (6, 1.5, 1.5, 1.5))
ZERO_SHOT = Look("zero-shot", "#000000", "", (3.5, 2.5))
GREY = "#c9c9c9"  # of lines that are there for comparison only

FAMILIES = (
    Family("zero-shot", ("#000000", "#474747", "#707070"), 4, ("zero-shot", "zero-shot-generic")),
    Family(
        "probes and prototypes", ("#723e16", "#9d6131", "#c6854b"), 7,
        ("protonet", "linear-probe", "zs-lp", "lp++", "gda", "cross-modal-lp"),
    ),
    Family(
        "CoOp family", ("#06487f", "#0d72b3", "#049ed1"), 0,
        ("coop", "cocoop", "coop-cs", "shared-coop", "plot", "shared-coop-matched"),
    ),
    Family("regularised prompts", ("#015739", "#068141", "#35a83d"), 9, ("kgcoop", "prograd", "lasp")),
    Family(
        "SoftCPT family", ("#dc1821", "#9a0426", "#f66536"), 12,
        ("softcpt", "softcpt-nats", "softcpt-star", "softcpt-cata", "softcpt-cats", "softcpt-csta", "softcpt-csts"),
    ),
    Family(
        "task sharing", ("#015456", "#007c7f", "#07a4a3"), 8,
        ("softcpt-graph", "softcpt-rank", "coop-tree", "mvlpt", "coop-kernel",
         "coop-mix", "coop-mpt", "softcpt-mix", "softcpt-tree", "softcpt-residual", "shared-cocoop"),
    ),
    Family("caches", ("#936b02", "#624a00", "#c08901"), 7, ("tip-adapter", "tip-adapter-f", "ape", "ape-t")),
    Family(
        "adapters", ("#681e9b", "#9949bc", "#c674d5"), 6, ("clip-adapter", "taskres", "clap", "rla", "prolip"),
    ),
)  # fmt: skip
OTHERS = Family("other methods", ("#96024d", "#d80677", "#f15da9"), 1)


def family(method: str) -> str:
    """The name of a method's family."""
    return _family(method).name


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """The look of each method.

    methods : all of a report, so that no two get the same; those that are listed above have the same look in every
        report, others in every report of the same methods.
    """
    found = {}
    for group in (*FAMILIES, OTHERS):
        more = [name for name in dict.fromkeys(methods) if name not in group.methods and _family(name) is group]
        for place, name in enumerate((*group.methods, *more)):
            colour, dash = group.colours[place % len(group.colours)], DASHES[place % len(DASHES)]
            found[name] = Look(group.name, colour, MARKERS[(group.marker + place) % len(MARKERS)], dash)
    return {name: ZERO_SHOT if name == "zero-shot" else found[name] for name in methods}


def order(methods: Sequence[str]) -> list[str]:
    """The methods family by family, in the order of the list above."""
    names = [group.name for group in (*FAMILIES, OTHERS)]
    return sorted(methods, key=lambda method: names.index(family(method)))


def _family(method: str) -> Family:
    """The family that lists a method, else the one with the longest name that the method's begins with."""
    listed = [(name, group) for group in FAMILIES for name in group.methods]
    begins = [(len(name), -i) for i, (name, _) in enumerate(listed) if method == name or method.startswith(f"{name}-")]
    return listed[-max(begins)[1]][1] if begins else OTHERS
