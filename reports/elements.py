"""What a report is made of: every figure and every table is one class, found in its package's files."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from inspect import isabstract
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from bench.reports.groups import Block
    from bench.reports.markup import Table as Markup

E = TypeVar("E", bound="Element")


class Element:
    """A figure or a table of a block of records.

    Attributes
    ----------
    name : unlike any other's of its kind. title : what it shows, after the block's title. order : its
        place in the report, the smallest first. on_page : whether the page shows it as it is; some it has in a form
        of its own.
    """

    name: str = ""
    title: str = ""
    order: int = 100
    on_page: bool = True

    @property
    def slug(self) -> str:
        """In file names, after the block's."""
        return self.name

    def each(self: E, block: Block) -> Sequence[E]:
        """What a block gets of it: itself; or one for each parameter that was varied; or none, where it is about other
        blocks (another protocol) and nobody would miss it."""
        return [self]

    def heading(self, block: Block) -> str:
        """What is written above it, after the block's title."""
        return self.title

    def why_not(self, block: Block) -> str:
        """Why the block's records do not allow it, as a reader is told; "" if they do."""
        return ""


class Figure(Element, ABC):
    """Drawn without its heading, which the report adds (`--no-title` leaves it out)."""

    @abstractmethod
    def draw(self, block: Block) -> Drawing:
        """A figure made with `bench.reports.figures.common.grid`, never with pyplot."""


class Table(Element, ABC):
    """One or more tables of one kind."""

    @abstractmethod
    def build(self, block: Block, notes: dict[str, int]) -> list[Markup]:
        """notes : the number of every footnote's text."""

    def data(self, block: Block) -> dict[str, pd.DataFrame]:
        """What it has to say as data: the lines that files (by their names without ending) get from this block."""
        return {}


class Overview(Element, ABC):
    """Tables about all blocks at once. `file` : the file (without ending) that they stand in as Markdown."""

    file: str = "table"

    def why_none(self, contents: Contents) -> str:
        """As `why_not`, of a whole report."""
        return ""

    @abstractmethod
    def over(self, contents: Contents) -> list[Markup]:
        """The tables of a report."""

    def summary(self, contents: Contents) -> str:
        """A sentence at the top of the report, or ""."""
        return ""

    def data(self, contents: Contents) -> dict[str, pd.DataFrame]:
        """As a table's, of all blocks."""
        return {}


@dataclass(frozen=True)
class Contents:
    """What a report is about. failed : one dict a failed cell; other : the rows of the folder to compare with."""

    blocks: list[Block]
    failed: list[dict[str, Any]] = field(default_factory=list)
    rows: pd.DataFrame | None = None
    other: pd.DataFrame | None = None
    folders: tuple[str, str] = ("", "")  # what the two folders are called


def find(package: ModuleType, kind: type[E]) -> list[E]:
    """One of every class of a kind that has a `name`: in the package's files, and in the entry points of the group with
    the package's name (`bench.reports.figures`, `bench.reports.tables`).

    Raises
    ------
    UserError : two classes of one name.
    """
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    values = [value for module in modules for value in vars(module).values()]
    values += [entry.load() for entry in entry_points(group=package.__name__)]
    classes = dict.fromkeys(value for value in values if _is_one(value, kind))
    found: dict[str, type[E]] = {}
    for value in classes:
        other = found.setdefault(value.name, value)
        if other is not value:
            both = " and ".join(f"{c.__module__}.{c.__qualname__}" for c in (other, value))
            raise UserError(f"{package.__name__}: {both} both have the name {value.name!r}; rename one")
    return sorted((value() for value in found.values()), key=lambda element: (element.order, element.name))


def _is_one(value: Any, kind: type[E]) -> TypeGuard[type[E]]:
    """Asked by `type`: on Python 3.10 `isinstance(list[int], type)` is true."""
    return issubclass(type(value), type) and issubclass(value, kind) and bool(value.name) and not isabstract(value)
