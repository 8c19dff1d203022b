"""OUT/index.html: the whole report as one file that opens from disk and asks no network for anything.

Jinja2 fills the tables, escaping all that comes from records; charts, filters and the dialog are drawn by the page's
own script from the same numbers, which stand in it as JSON. DataTables (of the package itables) sorts and filters,
Vega-Lite (of vl-convert) draws.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bench import __version__
from bench.reports import payload
from bench.reports.elements import Contents, Overview
from bench.reports.groups import Block
from bench.reports.markup import Table
from bench.reports.records import Loaded
from bench.reports.tables import Built
from bench.reports.tables.common import slug

OPEN = {"Statistics", "Compared"}  # sections whose tables a reader need not open; others are long
REFRESH = 5  # seconds between two looks of a page that is watched
SCRIPTS = ("base.js", "tables.js", "more.js", "charts.js", "pairs.js", "closer.js", "cell.js", "main.js")
# Where a method's colours are set: the light ones, and the dark ones by the system's choice or the reader's.
THEMES = (
    ("light", (":root{", "}")),
    ("dark", ('@media (prefers-color-scheme:dark){:root:not([data-theme="light"]){', "}}")),
    ("dark", (':root[data-theme="dark"]{', "}")),
    ("light", ("@media print{:root:root:root{", "}}")),
)
VIEWS = (("ours", "Measured"), ("paper", "Paper"), ("delta", "Difference"), ("all", "All three"))


def page(
    loaded: Loaded, contents: Contents, built: Sequence[Built], live: bool = False, now: datetime | None = None
) -> str:
    """The page's HTML. built : the report's tables. live : it reads itself again every few seconds, for
    `report --watch`."""
    data = payload.payload(loaded, contents.blocks)
    now = now or datetime.now(timezone.utc)
    modules = [_datatables(), _vega(), "\n".join(map(_template, SCRIPTS))]
    scripts = [Markup(text.replace("</script", r"<\/script")) for text in modules]  # noqa: S704 - no record in it: a packaged file
    policy = "; ".join(
        [
            "default-src 'none'",  # no network at all
            f"script-src {' '.join(map(_digest, scripts))}",
            "style-src 'unsafe-inline'",  # Vega sets styles of single elements
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    html = _environment().get_template("page.html").render(
        data=data,
        json=_json(data),
        tables=[_table(block) for block in data["blocks"]],
        views=VIEWS,
        facts=_facts(data),
        said=[said for one in built if isinstance(one.kind, Overview) and (said := one.kind.summary(contents))],
        sections=_sections(contents, built),
        themes=[(name, [Markup(text) for text in texts]) for name, texts in THEMES],  # noqa: S704 - no record in it: a packaged file
        css=Markup(_template("page.css")),  # noqa: S704 - no record in it: a packaged file
        scripts=scripts,
        policy=policy,
        refresh=REFRESH if live else None,
        version=__version__,
        made=now.strftime("%Y-%m-%d %H:%M UTC"),
        average=payload.AVERAGE,
    )
    return html.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in a name is no text


@cache
def _template(name: str) -> str:
    return (files("bench.reports") / "templates" / name).read_text(encoding="utf-8")


def _environment() -> Environment:
    how: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FunctionLoader(_template), **how)  # noqa: S701 - autoescape is in `how`
    environment.filters["number"] = _number
    environment.filters["signed"] = lambda value: "—" if value is None else f"{value:+.2f}".replace("-", "−")
    environment.filters["count"] = lambda value: "—" if value is None else f"{value:,}"
    return environment


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}"


def _json(data: Any) -> Markup:
    """JSON that is safe inside a script element: no markup in it, and no letters outside ASCII."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704 - the three letters of markup are escaped above


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _datatables() -> str:
    """DataTables, as the package itables bundles it: a module whose default export it is."""
    text = (files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    found = re.search(r"export\s*\{[^}]*?([\w$]+) as default[^}]*\};?", text)
    if found is None:
        raise RuntimeError("itables: its bundle of DataTables has no default export; install another version")
    return f"{text[: found.start()]}globalThis.DataTable={found[1]};{text[found.end() :]}"


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed."""
    import vl_convert

    return str(vl_convert.javascript_bundle("globalThis.vegaEmbed = vegaEmbed;"))


def _facts(data: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """What the summary counts: a name, and the values."""
    columns = (("suite", "suite_title"), ("backbone", "backbone"), ("protocol", "protocol"))
    found = [(name, list(dict.fromkeys(block[key] for block in data["blocks"]))) for name, key in columns]
    return [*found, ("method", data["methods"])]


def _table(block: dict[str, Any]) -> dict[str, Any]:
    """The block's table as it stands in the page: a header, and for each row its cells, None where there is nothing."""
    scores = block["scores"]
    lines = [dict(zip(scores, values, strict=True)) for values in zip(*scores.values(), strict=True)]
    found = {(line["row"], line["shots"], line["part"]): line for line in lines}
    shots = sorted({line["shots"] for line in lines} - {payload.AVERAGE})
    halves = len(block["parts"]) > 1
    if halves and block["shots"]:  # as the field prints them: zero-shot in the columns of the trained methods
        shots = block["shots"]
    shots = [*shots, *([payload.AVERAGE] if any(line["shots"] == payload.AVERAGE for line in lines) else [])]
    columns = [(n, part) for n in shots for part in range(len(block["parts"]))]
    rows = [
        [found.get((i, n, part)) or (found.get((i, 0, part)) if halves else None) for n, part in columns]
        for i in range(len(block["rows"]))
    ]
    heads = []
    for n, part in columns:
        at = "Avg." if n == payload.AVERAGE else f"{n}-shot"
        heads.append({"shots": n, "part": part, "text": f"{at} {block['parts'][part]['label']}".strip()})
    return {"columns": heads, "rows": rows}


def _sections(contents: Contents, built: Sequence[Built]) -> list[dict[str, Any]]:
    """The tables that the page shows as they stand in table.md, by their sections' titles."""
    sections: dict[str, dict[str, Any]] = {}
    for one in built:
        if not one.kind.on_page or not one.tables:
            continue
        title = one.kind.title
        start = {"id": f"more-{slug(title)}", "title": title, "open": title in OPEN, "linked": one.block is not None}
        section = sections.setdefault(title, {**start, "said": [], "tables": []})
        if isinstance(one.kind, Overview):
            section["said"].append(one.kind.summary(contents))
        place = next((i for i, block in enumerate(contents.blocks) if block is one.block), None)
        section["tables"] += [_as_written(table, one.block, place) for table in one.tables]
    return sorted(sections.values(), key=lambda section: not section["open"])


def _as_written(table: Table, block: Block | None, place: int | None) -> dict[str, Any]:
    """A table for section.html. place : the block's, which numbers its rows' methods."""
    columns = [[row[i] for row in table.rows] for i in range(len(table.header))]
    numeric = [all(_NUMBER.match(cell.text) or cell.text in ("", "—") for cell in column) for column in columns]
    about = table.about or ({},) * len(table.rows)
    across = table.across or ({},) * len(table.header)

    def method(i: int) -> str | None:
        label = about[i].get("label")
        return None if block is None or label is None else str(block.of(label, "method"))

    heads = zip(table.header, table.grouped, across, numeric, strict=True)
    return {
        "title": table.title,
        "demo": table.demo,
        "block": "" if place is None else place,
        "caption": table.caption,
        "footnotes": table.footnotes,
        "heads": [
            {"text": f"{group} {cell.text}".strip(), "notes": cell.notes, "about": json.dumps(known), "numeric": number}
            for cell, group, known, number in heads
        ],
        "rows": [
            {
                "about": json.dumps(known),
                "cells": [
                    {"text": cell.full, "mark": cell.mark, "notes": cell.notes, "method": None if j else method(i),
                     "order": _order(cell.text) if number else cell.text}
                    for j, (cell, number) in enumerate(zip(row, numeric, strict=True))
                ],
            }
            for i, (row, known) in enumerate(zip(table.rows, about, strict=True))
        ],
    }  # fmt: skip


_NUMBER = re.compile(r"(< |± )?([−+]?[\d,]*\.?\d+)")


def _order(text: str) -> float:
    """What a text is sorted by: the number that it begins with, below which stands what has none."""
    found = _NUMBER.match(text)
    if found is None:
        return -1e9
    value = float(found[2].replace("−", "-").replace(",", ""))
    return value / 2 if found[1] == "< " else value
