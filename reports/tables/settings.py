"""Sweeps: methods and the settings that they were run in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from bench.records import PARTS
from bench.reports import markup, stats
from bench.reports.elements import Table
from bench.reports.groups import NAMES, Block, natural
from bench.reports.markup import Cell
from bench.reports.tables.common import about, marks_said, names, ranked, searched_said, slug, spread_said, used
from bench.reports.tables.main import over_shots


class Settings(Table):
    """Where several methods were varied in the same parameters, a table in which they meet; else one for each."""

    name = "settings"
    title = "Settings"
    order = 40

    def why_not(self, block: Block) -> str:
        return "" if block.ablations else "no method was run in several settings"

    def build(self, block: Block, notes: dict[str, int]) -> list[markup.Table]:
        kinds: dict[tuple[str, ...], list[str]] = {}
        for method in block.ablations:
            kinds.setdefault(self._varied(block, method), []).append(method)
        return [
            self._met(block, parameters, methods, notes) if len(methods) > 1 else self._alone(block, methods[0], notes)
            for parameters, methods in kinds.items()
        ]

    def _varied(self, block: Block, method: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(p for label in block.ablations[method] for p in block.changed(label)))

    def _setting(self, block: Block, parameters: Sequence[str], name: str) -> str:
        """ "epochs=50": what a label has of the parameters that vary, be it the method's default or not."""
        values = block.of(name, "parameters")
        told = ", ".join(f"{parameter}={_value(values, parameter)}" for parameter in parameters)
        return ", ".join(filter(None, [told, block.of(name, "setting")]))

    def _met(
        self, block: Block, parameters: Sequence[str], methods: Sequence[str], notes: dict[str, int]
    ) -> markup.Table:
        """Methods × shot counts (and parts), in each of these a column for every setting."""
        labels = [name for method in methods for name in block.ablations[method]]
        by = {(block.of(name, "method"), self._setting(block, parameters, name)): name for name in labels}
        settings = sorted({setting for _, setting in by}, key=natural)
        header, groups = [Cell("method")], [""]
        across: list[dict[str, int]] = [{}]
        firsts = [block.ablations[method][0] for method in methods]
        rows = [[name] for name in names(block, firsts, notes, lambda name: block.of(name, "method"))]
        tested = []
        scores = block.scores.set_index(["label", "shots", "part"])
        for n, part in product(block.shots or [0], block.parts):
            header += map(Cell, settings)
            groups += [f"{n}-shot {PARTS[part]}".strip()] * len(settings)
            across += [{"shots": n}] * len(settings)
            for row, method in zip(rows, methods, strict=True):
                own = [by[method, setting] for setting in settings if (method, setting) in by]
                found = scores.reindex([(name, n, part) for name in own])
                values = block.values(part, [n], own)
                cells, could = ranked(
                    values, found["mean"].tolist(), found["std"].tolist(), len(block.seeds), stats.OVER_TASKS
                )
                told = dict(zip(own, cells, strict=True))
                row += [told.get(by.get((method, setting), ""), Cell("—")) for setting in settings]
                tested.append(could)
        caption = [*about(block), spread_said(block)]
        caption += searched_said(block, labels)
        caption += marks_said(tested, "method's settings at a shot count", stats.OVER_TASKS)
        title = f"{block.title} · {', '.join(parameters)} varied"
        own_name = slug(f"{block.slug}-settings-{'-'.join(parameters)}")
        about_rows = tuple({"method": method} for method in methods)
        notes_used = used(block, labels, notes)
        return markup.Table(
            title, caption, header, rows, notes_used, block.demo, own_name, tuple(groups), about_rows, tuple(across)
        )

    def _alone(self, block: Block, method: str, notes: dict[str, int]) -> markup.Table:
        labels = block.ablations[method]
        table = over_shots(block, labels, f"{block.title} · {method}", notes)
        changed = dict.fromkeys(parameter for name in labels for parameter in block.changed(name))
        default = [block.of(name, "parameters") for name in labels if not block.changed(name)][:1]
        values = ", ".join(f"{parameter}={_value(values, parameter)}" for values in default for parameter in changed)
        if default:
            table.caption.append(f"The first row has the method's default ({values}).")
        return replace(table, name=slug(f"{block.slug}-settings-{method}"))


def _value(values: Mapping[str, Any], parameter: str) -> Any:
    """What a row has of a parameter."""
    return values.get(parameter, "own" if parameter == NAMES else "—")
