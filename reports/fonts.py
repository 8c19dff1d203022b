"""Fonts for figures: further families for letters that the usual one lacks."""

from __future__ import annotations

import contextlib
import unicodedata
import warnings
from collections.abc import Iterator
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

NO_LETTERS = ("last resort", "blank")  # fonts that have a box, or nothing, for every letter
SHOWN = 12  # letters that a warning names


def families(text: str) -> list[str]:
    """Font families that have the letters of a text between them, the usual one first.

    A warning names the letters that no installed font has: they are drawn as boxes.
    """
    wanted = {c for c in text if unicodedata.category(c)[0] in "LMNPS"}
    found = ["sans-serif"]
    missing = wanted - _letters(findfont(FontProperties(family=found)))
    if missing:
        fonts = dict(_installed())
        while best := max(fonts, key=lambda name: len(missing & _letters(fonts[name])), default=None):
            added = missing & _letters(fonts[best])
            if not added:
                break
            found.append(best)
            missing -= added
    if missing:
        scripts = sorted({unicodedata.name(c, "unknown").split()[0] for c in missing})
        shown = sorted(missing, key=lambda c: (unicodedata.category(c)[0] != "L", c))
        some = " ".join(shown[:SHOWN]) + (" …" if len(missing) > SHOWN else "")
        warnings.warn(
            f"figures: no installed font has {some} ({', '.join(scripts)}): drawn as boxes. "
            "Install a font for them, for example one of the Noto Sans family",
            stacklevel=2,
        )
    return found


def _installed() -> Iterator[tuple[str, str]]:
    """Upright families with their files, those without serifs first."""
    # matplotlib's list is as old as its first start: a font that was installed since is not in it.
    for path in set(findSystemFonts()) - {font.fname for font in fontManager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):  # a damaged file
            fontManager.addfont(path)
    upright = [f for f in fontManager.ttflist if f.style == "normal" and f.weight in (400, "normal", "regular")]
    files = {font.name: font.fname for font in reversed(upright)}  # of two files the first, as matplotlib takes them
    for name in sorted(files, key=lambda name: ("Sans" not in name, "Mono" in name, name)):
        if not any(word in name.lower() for word in NO_LETTERS):
            yield name, files[name]


@cache
def _letters(path: str) -> frozenset[str]:
    """The letters that a font file has outlines for."""
    try:
        font = FT2Font(path)
        return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
    except (OSError, RuntimeError):
        return frozenset()
