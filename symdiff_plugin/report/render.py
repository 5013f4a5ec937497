"""Tables as Markdown and as LaTeX (booktabs)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from symdiff_plugin.report.tables import Cell, Column, Row, Table

BLANK = "–"
OURS, PAPER = "ours", "paper"
NOT_RUN = "(nothing of ours yet)"
NO_RUNS = (
    "No runs yet: {}./run_qm9.sh --smoke{} makes one in minutes, "
    "and {}python -m symdiff_plugin.report outputs/*{} puts it here."
)
_ARROWS = {"up": "\u00a0↑", "down": "\u00a0↓", "": ""}
_TEX_ARROWS = {"up": r" $\uparrow$", "down": r" $\downarrow$", "": ""}
_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "–": "--", "±": r"$\pm$", "×": r"$\times$",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
_HEADS = {
    "n_size": r"$n_{\text{size}}$", "n_layers": r"$n_{\text{layers}}$", "n_heads": r"$n_{\text{heads}}$",
    "n_f": "$n_f$", "n_l": "$n_l$",
}  # fmt: skip


def caption(table: Table) -> str:
    """The table's heading, which says whose number it has."""
    return table.title if table.number == "runs" else f"Table {table.number} of the paper: {table.title}"


def column_head(column: Column) -> str:
    """A column's head with its arrow."""
    return column.head + _ARROWS[column.better]


def source_words(row: Row) -> str:
    """``paper`` or ``ours``; a missing row is one of ours to be."""
    return PAPER if row.source == "paper" else OURS


def to_markdown(tables: Sequence[Table], skipped: Sequence[tuple[object, str]] = ()) -> str:
    """All tables as one Markdown document, those of the paper that nothing of ours fills folded.

    ``skipped`` are the (folder, reason) that are not in it.
    """
    blocks = ["# SymDiff for EDM: results", "Rows marked *paper* are Zhang et al. (2024); **ours** are measured here."]
    if not any(table.number == "runs" for table in tables):
        blocks.append(NO_RUNS.format(*4 * ["`"]))
    for table in tables:
        heads = ["Method", "Source", *map(column_head, table.columns), "Note"]
        lines = [_line(heads), _line(["---", "---", *["---:"] * len(table.columns), "---"])]
        for row in table.rows:
            bold = "**" if row.source == "ours" else ""
            note = f"`{row.command}`" if row.command else _markdown(row.note)
            cells = [f"{bold}{cell.text}{bold}" if cell.text else BLANK for cell in row.cells]
            source = "*paper*" if row.source == "paper" else "**ours**" if bold else "ours"
            lines.append(_line([f"{bold}{_markdown(row.label)}{bold}", source, *cells, note]))
        body = ["\n".join(lines), *map(_markdown, table.footnotes)]
        if table.has_ours:
            blocks += [f"## {caption(table)}", *body]
        else:
            blocks += [f"<details>\n<summary>{escape(caption(table))} {NOT_RUN}</summary>", *body, "</details>"]
    if skipped:
        lines = [f"- {_markdown(str(folder))}: {_markdown(reason)}" for folder, reason in skipped]
        blocks += ["## Left out", "\n".join(lines)]
    return "\n\n".join(blocks) + "\n"


def to_latex(tables: Sequence[Table]) -> str:
    """All tables as LaTeX ``table`` environments; they need the packages booktabs and amsmath."""
    return "% needs \\usepackage{booktabs,amsmath}; written by python -m symdiff_plugin.report\n" + "\n".join(
        _latex_table(table) for table in tables
    )


def _latex_table(table: Table) -> str:
    heads = ["Method", "", *(_HEADS.get(c.head, escape_latex(c.head)) + _TEX_ARROWS[c.better] for c in table.columns)]
    lines = [
        r"\begin{table}[t]", r"\centering", rf"\caption{{{escape_latex(caption(table))}.}}",
        rf"\label{{tab:symdiff-{table.number}}}", rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}", r"\toprule",
        " & ".join(heads) + r" \\", r"\midrule",
    ]  # fmt: skip
    notes = []
    for row in table.rows:
        label = escape_latex(row.label)
        if row.source == "ours":
            label = rf"\textbf{{{label}}}"
        mark = ""
        if row.note or row.command:
            notes.append(row.note or f"to fill this row: {row.command}")
            mark = rf"$^{{{len(notes)}}}$"
        cells = [label, source_words(row) + mark, *(_latex_cell(cell) for cell in row.cells)]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    small = [rf"$^{{{i}}}$ {escape_latex(note)}" for i, note in enumerate(notes, 1)]
    small += [escape_latex(note) for note in table.footnotes]
    if small:
        lines.append(r"\par\smallskip{\footnotesize " + r" \par ".join(small) + r"\par}")
    return "\n".join([*lines, r"\end{table}", ""])


def _latex_cell(cell: Cell) -> str:
    if not cell.text:
        return "--"
    return "$" + cell.text.replace(" ± ", r" \pm ").replace("M", r"\text{M}") + "$"


def escape_latex(text: str) -> str:
    """``text`` with every character that LaTeX would read as a command written out."""
    return "".join(_TEX.get(character, character) for character in text)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(text: str) -> str:
    for character in "\\`*_|<>[]":
        text = text.replace(character, "\\" + character)
    return text
