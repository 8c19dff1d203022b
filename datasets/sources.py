"""Where a task's data comes from, and what of it is on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.datasets import hub
from bench.datasets.archives import there

PACKED = (".zip", ".rar", ".7z", ".tar", ".tar.gz", ".tgz")
UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@dataclass(frozen=True)
class Source:
    """One of a task's `sources` in a suite file (docs/data.md says what the keys are).

    With `reader`, which no suite file sets, it is what this reader's library downloads by itself.
    """

    what: str = ""
    url: str = ""
    size: str = ""
    licence: str = ""
    how: str = ""
    fetch: bool | str = False
    file: str = ""
    unpack: Mapping[str, str] = field(default_factory=dict)
    md5: str = ""
    sha256: str = ""
    reader: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by_hand(self) -> bool:
        return not (self.fetch or self.reader)

    @property
    def address(self) -> str:
        """What is downloaded; "" where nothing is, or a library does it."""
        return self.url if self.fetch is True else self.fetch or ""

    @property
    def file_name(self) -> str:
        """The name that the download is saved as; "" without one."""
        return (self.file or self.address.partition("?")[0].rpartition("/")[2]) if self.address else ""

    @property
    def name(self) -> str:
        return self.what or self.file_name or self.url or "the images"

    @property
    def is_split(self) -> bool:
        """Whether it is a split file, which a task can do without."""
        return self.what.startswith("split_")

    @property
    def targets(self) -> dict[str, str]:
        """What a download leaves in the task's folder: member of the archive → path, or {"": the file itself}."""
        return dict(self.unpack or {"": self.file_name})

    @property
    def n_bytes(self) -> int:
        """Of the download by `size`, roughly; 0 where that says nothing."""
        found = re.search(r"(\d+(?:\.\d+)?)\s*([KMGT]B)", self.size.upper())
        return int(float(found[1]) * UNITS[found[2]]) if found else 0

    @property
    def checksum(self) -> tuple[str, str] | None:
        """(algorithm, hexadecimal digest)."""
        return next(((kind, digest) for kind in ("sha256", "md5") if (digest := getattr(self, kind))), None)

    def is_there(self, folder: Path) -> bool:
        """Whether what it gives is in the task's folder, as far as its name says.

        Of an archive fetched by hand nobody can say: the names of its files are not known.
        """
        if self.reader:
            return hub.is_fetched(folder, self.reader)
        if self.fetch:
            return all(there(folder / target) for target in self.targets.values())
        named = self.what and "/" not in self.what and not self.what.lower().endswith(PACKED)
        return bool(named) and any((folder / f"{self.what}{end}").is_file() for end in ("", ".gz"))

    def packed(self, folder: Path) -> bool:
        """Whether the archive of a source by hand is in the task's folder as it came."""
        named = self.by_hand and self.what.lower().endswith(PACKED) and "/" not in self.what
        return named and (folder / self.what).is_file()
