"""The cells that failed, with their reasons."""

from __future__ import annotations

from bench.reports import markup
from bench.reports.elements import Contents, Overview
from bench.reports.markup import Cell

COLUMNS = ("suite", "backbone", "method", "variant", "protocol", "fold", "shots")


class Failed(Overview):
    """A line for the seeds of a cell that failed for one reason."""

    name = "failed"
    title = "Failed cells"
    order = 90
    on_page = False

    def why_none(self, contents: Contents) -> str:
        return "" if contents.failed else "no cell failed"

    def over(self, contents: Contents) -> list[markup.Table]:
        seeds: dict[tuple[str, str], list[str]] = {}
        for cell in contents.failed:
            named = ", ".join(f"{name} {cell[name]}" for name in COLUMNS if cell.get(name) not in (None, ""))
            seeds.setdefault((named, str(cell["error"])), []).append(str(cell.get("seed")))
        rows = []
        for (named, reason), numbers in seeds.items():
            told = ", ".join(sorted(numbers, key=lambda seed: (len(seed), seed)))
            rows.append([Cell(named), Cell(told), Cell(reason[:300] + "…" * (len(reason) > 300))])
        header = [Cell(text) for text in ("cell", "seeds", "reason")]
        return [markup.Table(f"Failed cells ({len(contents.failed)})", [], header, rows, name="failed")]
