"""Letters in figures: a font that has them is found, and letters that none has are named once."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from bench.reports import figures, fonts


def test_letters_that_the_usual_font_lacks_are_taken_from_another(recwarn: pytest.WarningsRecorder) -> None:
    """の is in STIXGeneral, which comes with matplotlib, and not in DejaVu Sans."""
    with matplotlib.rc_context(figures.LOOK):
        assert fonts.families("colour, ± Δ é ‑ 16 shots") == ["sans-serif"]
        first, second = fonts.families("colour の")
    assert first == "sans-serif" and second != "DejaVu Sans"
    assert "の" in fonts._letters(dict(fonts._installed())[second])
    assert not recwarn


def test_letters_that_no_font_has_are_named_once_with_their_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(fonts, "_installed", lambda: iter(()))
    monkeypatch.setattr(fonts, "_letters", lambda _: frozenset(map(chr, range(0x250))) | {"·"})
    with matplotlib.rc_context(figures.LOOK):
        figure = Figure(figsize=(2, 2))
        figure.text(0, 0, "果物 हिन्दी", fontfamily=fonts.families("果物 हिन्दी"))
        figures.save(figure, tmp_path / "figure.png")
    (warning,) = recwarn  # matplotlib's own, one for each letter, are left out
    said = "figures: no installed font has द न ह 果 物 ि ी ् (CJK, DEVANAGARI): drawn as boxes"
    assert str(warning.message).startswith(said)
