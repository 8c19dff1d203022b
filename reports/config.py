"""What a report is: `ReportConfig`, the one definition of its settings.

The command line's options and `bench.report`'s arguments are made from these fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.errors import UserError
from bench.settings import Names, Numbers, Settings, setting

FORMATS = ("md", "tex", "csv", "parquet", "html", "png", "svg", "pdf")
PICTURES = ("png", "svg", "pdf")


@dataclass(frozen=True)
class ReportConfig(Settings):
    """The settings of a report. Lists are given as lists, as texts with commas, or as a single value.

    Raises
    ------
    UserError : a value that no report can have. Whether records of such names exist is checked when they are read.
    """

    results: str | Path = setting(
        "runs", "where the records are (default: %(default)s)", "records", metavar="DIR", path="always"
    )
    out: str | Path = setting(
        "report", "where the report goes (default: %(default)s)", "what to write", metavar="OUT", path="always"
    )
    methods: Names | None = setting(None, "of these methods only (default: all)", "records", metavar="METHOD")
    tasks: Names | None = setting(
        None, "of these tasks only; means are then over these (default: all)", "records", metavar="TASK"
    )
    shots: Numbers | None = setting(
        None, "of these shot counts only, and of methods that train on none", "records", metavar="N", minimum=1
    )
    best_on: Literal["val"] | None = setting(
        None,
        "of a method's variants (-o coop.epochs=50,200) show the one with the highest accuracy on the few-shot "
        "validation images (val); test images have no say, and controls stay beside it",
        "records",
        choices=("val",),
    )
    compare: str | Path | None = setting(
        None, "another folder of records: both side by side", "records", metavar="DIR2", path="always"
    )
    format: Names = setting(
        ("md", "tex", "csv", "html", "png", "svg"),
        f"files to write, among {', '.join(FORMATS)} (default: %(default)s)",
        "what to write",
        metavar="KIND",
        choices=FORMATS,
    )
    title: bool = setting(
        True, "no titles in tables and figures, for a paper that has captions", "what to write", option="--no-title"
    )
    watch: bool = setting(False, "write the report again whenever a record comes, until Ctrl-C", "what to write")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compare is not None and Path(self.compare) == Path(self.results):
            raise UserError(f"--compare {self.compare}: the same folder as --results")

    @property
    def pictures(self) -> tuple[str, ...]:
        """The figures' formats among those to write."""
        return tuple(kind for kind in PICTURES if kind in self.format)
