"""Put the demo report's main table into README.md: python scripts/readme_table.py results/demo"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "table.md").is_file():
        sys.exit(f"{__doc__}\nThe one argument is the folder of a report, with its table.md.")
    report = Path(sys.argv[1])
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
    main()
