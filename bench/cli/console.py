"""What the commands share: mistakes as one line, lists of values, tables that fit the terminal."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from dataclasses import fields
from typing import Any, NoReturn

from bench.config import RunConfig
from bench.errors import UserError, nearest
from bench.settings import ALIASES, Settings, is_list, many, option_of

NARROW = 80  # columns of a terminal: on fewer, a table whose words do not fit is written row by row


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """`--tasks, --task TASK [TASK ...]` with the values once, as from Python 3.13 on."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {values}"


class Parser(argparse.ArgumentParser):
    """argparse, with mistakes as one line and the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def add_list(self, *names: str, metavar: str, help: str, group: Any = None, action: str = "store") -> None:
        """An option that takes several values, with commas or blanks between them."""
        (group or self).add_argument(*names, metavar=metavar, nargs="+", action=action, help=help)

    def add_settings(self, kind: type[Settings], lists: str) -> None:
        """The fields of `kind` as options. What the parser returns holds only those that are typed.

        lists : the group of options below which it is said how lists are written.
        """
        groups: dict[str, Any] = {}
        for f in fields(kind):
            about, default, name = f.metadata, f.default, f.metadata["group"]
            if name not in groups:
                groups[name] = self.add_argument_group(
                    name + " (lists take commas or blanks between values)" * (name == lists)
                )
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            how: dict[str, Any] = {"dest": f.name, "default": argparse.SUPPRESS}
            how["help"] = about["help"].replace("%(default)s", shown)
            if isinstance(default, bool):
                how |= {"action": "store_const", "const": not default}
            else:
                how["metavar"] = about["metavar"] or "|".join(about["choices"])
            if is_list(f):
                how |= {"nargs": "+", "action": "extend" if option_of(f) == "-o" else "store"}
            groups[name].add_argument(option_of(f), *([ALIASES[f.name]] if f.name in ALIASES else []), **how)
            if option_of(f).startswith("--no-"):  # what it turns off can be written, too
                plain = {"dest": f.name, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
                groups[name].add_argument("--" + option_of(f)[5:], action="store_const", const=default, **plain)

    def read(self, argv: list[str]) -> argparse.Namespace:
        lists = {name for action in self._actions if action.nargs == "+" for name in action.option_strings}
        words = []
        for word in argv:  # argparse would end the list after the first of `--shots=1 2 4`
            option, equals, value = word.partition("=")
            words += [option, value] if equals and option in lists else [word]
        known, rest = self.parse_known_args(words)
        if rest:
            options = [option for action in self._actions for option in action.option_strings]
            hint = f"; {nearest(rest[0].partition('=')[0], options)}" if rest[0].startswith("-") else ""
            raise UserError(f"unknown argument {rest[0]!r}{hint}")
        return known


def command_parser(command: str, about: str, epilog: str = "") -> Parser:
    return Parser(
        prog=f"python -m bench {command}",
        description=about,
        epilog=epilog,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


def add_tasks(p: Parser, group: Any = None) -> None:
    p.add_list("--tasks", "--task", metavar="TASK", group=group, help="some of the suite's tasks (default: all)")


def add_draws(p: Parser, group: Any = None) -> None:
    shots, seeds = (",".join(map(str, many(numbers))) for numbers in (RunConfig.shots, RunConfig.seeds))
    p.add_list("--shots", "--shot", metavar="N", group=group, help=f"training images per class (default: {shots})")
    p.add_list("--seeds", "--seed", metavar="N", group=group, help=f"of the few-shot draws (default: {seeds})")


def settings_of(a: argparse.Namespace) -> RunConfig:
    """Tasks, shots and seeds that were given, checked as those of a run; else a run's defaults."""
    given = {name: value for name in ("tasks", "shots", "seeds") if (value := getattr(a, name, None)) is not None}
    return RunConfig(**given)


def print_table(table: Any, floatfmt: str = "g") -> None:
    """Print a table; long cells are wrapped so that it is not wider than the terminal.

    On a narrow terminal, where that would cut words, each row is a paragraph with a line for each column.
    """
    from tabulate import tabulate

    total = shutil.get_terminal_size((120, 24)).columns
    rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    texts = [[f"{column}  " for column in table.columns], *([_text(value, floatfmt) for value in row] for row in rows)]
    columns = list(zip(*texts, strict=True))
    words = [max(map(len, [head, *" ".join(column).split()])) for head, *column in columns]
    least = [max(9, len(head)) for head, *_ in columns]  # tabulate wraps no headers
    widths = _fit([max(map(len, column)) for column in columns], [list(map(max, words, least)), least], total)
    if total < NARROW and any(word > width for word, width in zip(words, widths, strict=True)):
        for name, *others in texts[1:]:
            pairs = zip(table.columns[1:], others, strict=True)
            print("\n".join([name, *(_filled(f"  {column}: {text}", total) for column, text in pairs if text)]))
    else:
        print(tabulate(rows, headers=list(table.columns), floatfmt=floatfmt, missingval="", maxcolwidths=widths))
    if note := table.attrs.get("note"):
        print(f"\n{_filled(note, total)}")


def _filled(text: str, total: int) -> str:
    return textwrap.fill(text, total, subsequent_indent="    " * text.startswith(" "), break_on_hyphens=False)


def _fit(widths: list[int], floors: list[list[int]], total: int) -> list[int]:
    """Column widths that fit: the widest are narrowed, to their first floors or, where that is not enough, to the next;
    never the first column, which holds the names."""
    name, *others = widths
    for _, *least in floors:
        while name + sum(others) + 2 * len(others) > total:
            if not (wide := [i for i, width in enumerate(others) if width > least[i]]):
                break
            others[max(wide, key=others.__getitem__)] -= 1
    return [name, *others]


def _text(value: Any, floatfmt: str) -> str:
    return "" if value is None else format(value, floatfmt) if isinstance(value, float) else str(value)
