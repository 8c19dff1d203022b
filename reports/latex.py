"""Tables as LaTeX: booktabs, a label, a short caption, and no wider or higher than a two-column page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bench.reports.markup import Cell, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "Δ": r"$\Delta$", "−": r"$-$", "–": "--", "—": "---",
    "·": r"$\cdot$", "≈": r"$\approx$", "√": r"$\surd$", "×": r"$\times$", "≤": r"$\leq$", "†": r"$\dagger$",
    "“": "``", "”": "''",
    "[": "{[}", "*": "{*}",  # after the end of a line they would be read as its options
}  # fmt: skip
_WIDE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZmwMW@%+=<>−±≈Δ√×—")
WIDTH = 390.0  # points: what a two-column page of the usual classes has is 397 and more
LINES = 48  # of a float, with its caption and notes beside
SIZE = 8.0  # points, of \\footnotesize in a paper of 10 points
SEPARATION = 3.0  # on either side of a column
NAMES = 120.0  # what the column of names gets at most
BREAK = r"\\"
_HEAD = r"""% Made by `python -m bench report`. In the preamble: \usepackage{booktabs}
"""


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def document(tables: Sequence[Table]) -> str:
    r"""table.tex, to be taken in by `\input`."""
    body = "\n".join(map(latex, tables))
    foreign = sorted({letter for letter in body if ord(letter) > 0x17F and letter not in _LATEX})
    warning = f"% pdflatex has no letters for {' '.join(foreign)}: use XeLaTeX or LuaLaTeX.\n" if foreign else ""
    return _HEAD + warning + "\n" + body


def latex(table: Table) -> str:
    r"""One `table*` or several: columns that do not fit beside each other stand below each other, each time with the
    names of the rows; what is too high for a page goes on in the next float."""
    panels = [
        _panel(table, columns, table.rows[first : first + LINES])
        for first in range(0, len(table.rows), LINES)
        for columns in _divided(table)
    ]
    floats: list[list[str]] = []
    height = LINES + 1
    for panel in panels:
        lines = panel.count("\n")
        if height + lines > LINES:
            floats.append([])
            height = 0
        floats[-1].append(panel)
        height += lines
    label = f"\\label{{tab:{table.name}}}" if table.name else ""
    demo = r"\textbf{DEMO} " if table.demo else ""
    title = escape_latex(f"{table.title}.")
    sentences = [escape_latex(" ".join(table.caption))] if table.caption else []
    sentences += [f"$^{{{n}}}$ {escape_latex(text)}" for n, text in table.footnotes.items()]
    notes = "\\par\\medskip\n\\parbox{\\textwidth}{\\sloppy\\raggedright " + "\\par\n".join(sentences) + "}\n"
    out = []
    for place, group in enumerate(floats):
        said = f"{demo}{title}{label}" if place == 0 else f"{demo}{title[:-1]} (continued)."
        more = notes if sentences and place == len(floats) - 1 else ""
        body = "\\par\\medskip\n".join(group)
        out.append(
            f"\\begin{{table*}}\n\\centering\\footnotesize\\setlength{{\\tabcolsep}}{{{SEPARATION:g}pt}}\n"
            f"\\caption{{{said}}}\n{body}{more}\\end{{table*}}\n"
        )
    return "\n".join(out)


def _width(text: str) -> float:
    """About how wide a text is in Computer Modern, in points."""
    return SIZE * sum(0.8 if c in _WIDE else 0.28 if c in "., ilj:;'()[]" else 0.53 for c in " ".join(text.split()))


def _divided(table: Table) -> list[list[int]]:
    """The columns of each panel; columns of one group stay together where a panel holds them."""
    columns = list(zip(table.header, *table.rows, strict=True))
    widths = [
        max(*(_width(cell.full) for cell in cells), *map(_width, _lines(header.text))) + 2 * SEPARATION
        for header, *cells in columns
    ]
    free = WIDTH - min(widths[0], NAMES + 2 * SEPARATION)
    panels: list[list[int]] = [[]]
    used = 0.0
    for group, places in groupby(range(1, len(columns)), key=lambda i: table.grouped[i] or f"column {i}"):
        together = list(places)
        bundles = [together] if sum(widths[i] for i in together) <= free else [[i] for i in together]
        for bundle in bundles:
            wide = max(sum(widths[i] for i in bundle), _width(group) if table.grouped[bundle[0]] else 0)
            if panels[-1] and used + wide > free:
                panels.append([])
                used = 0.0
            panels[-1] += bundle
            used += wide
    return panels


def _panel(table: Table, columns: Sequence[int], rows: Sequence[Sequence[Cell]]) -> str:
    shown = [0, *columns]
    names = max(_width(row[0].full) for row in table.rows)
    first = "l" if names <= NAMES else f"p{{{NAMES:g}pt}}"
    lines = [f"\\begin{{tabular}}{{{first}{'r' * len(columns)}}}", r"\toprule"]
    spans = [(name, len(list(group))) for name, group in groupby(table.grouped[i] for i in shown)]
    if any(name for name, _ in spans):
        lines.append(" & ".join(_span(name, n) for name, n in spans) + r" \\")
        ends, start = [], 1
        for name, n in spans:
            ends += [f"\\cmidrule(lr){{{start}-{start + n - 1}}}"] if name else []
            start += n
        lines.append("".join(ends))
    lines += [" & ".join(_header(table.header[i]) for i in shown) + r" \\", r"\midrule"]
    lines += [" & ".join(_cell(row[i]) for i in shown) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _span(name: str, n: int) -> str:
    return f"\\multicolumn{{{n}}}{{c}}{{{escape_latex(name)}}}" if name else " & " * (n - 1)


def _cell(cell: Cell) -> str:
    command = {"best": r"\textbf", "second": r"\underline"}.get(cell.mark)
    text = f"{command}{{{escape_latex(cell.full)}}}" if command else escape_latex(cell.full)
    return text + (f"$^{{{','.join(map(str, cell.notes))}}}$" if cell.notes else "")


def _header(cell: Cell) -> str:
    """A column's name; a long one on two lines."""
    lines = _lines(cell.text)
    if len(lines) == 1:
        return _cell(cell)
    cells = [_cell(Cell(line, "", cell.notes if line is lines[-1] else ())) for line in lines]
    return rf"\shortstack[r]{{{BREAK.join(cells)}}}"


def _lines(text: str) -> list[str]:
    """A long text on two or more lines, cut at blanks."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= 14:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
