"""Put the demo report's main table into README.md, between the markers. Run after `make demo` and a report."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main(report: Path) -> None:
    text = (report / "table.md").read_text(encoding="utf-8")
    table = re.search(r"^\| method.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    if table is None:
        sys.exit(f"{report / 'table.md'}: no table of methods")
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = re.sub(
        r"<!-- demo:table -->.*?(?=\n\n!\[)",
        lambda _: f"<!-- demo:table -->\n{table[0]}",
        old,
        flags=re.DOTALL,
    )
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
