"""A method in words: what is learned, the formula, the parameters, the source."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import fields

from tabulate import tabulate

from bench.methods import find_method


def explain(method: str) -> str:
    """What a method computes, from its file's head, and its parameters with defaults and meaning.

    Parameters
    ----------
    method : a name as for `--methods`.
    """
    found = find_method(method)
    head = inspect.getdoc(inspect.getmodule(found)) or ""
    lines = [f"{found.name}: {inspect.getdoc(found) or ''}", "", textwrap.dedent(head)]
    rows = [
        (f"-o {found.name}.{f.name}=", repr(f.default), f.metadata.get("meaning", "")) for f in fields(found.Params)
    ]
    if rows:
        lines += ["", tabulate(rows, headers=["parameter", "default", "meaning"])]
    if found.source:
        lines += ["", f"Source: {found.source}"]
    if found.footnote:
        lines += ["", f"Note: {found.footnote}"]
    return "\n".join(lines)
