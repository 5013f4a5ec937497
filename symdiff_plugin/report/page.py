"""One HTML page that needs nothing else: tables, plots inside it, molecules to turn. All text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from symdiff_plugin.report.render import BLANK, caption, column_head, source_words
from symdiff_plugin.report.tables import Row, Table

# Nothing may be fetched: a browser refuses it even if a script tried. plotly.js compiles its shaders' glue at run time.
_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "worker-src blob:"
)

_STYLE = """
:root { --ink: #1d2126; --faint: #6b727c; --rule: #dfe2e6; --ours: #0b5c8a; --tint: #eef6fb; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.5 "Source Sans 3", "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2.5rem 2rem 4rem; }
h1, h2 { font-family: "Source Serif 4", Georgia, "Times New Roman", serif; font-weight: 600; line-height: 1.2; }
h1 { font-size: 2rem; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .7rem; }
p.lead { color: var(--faint); margin: 0; max-width: 46rem; }
nav { margin-top: 1rem; }
nav a { display: inline-block; margin-right: 1.1rem; color: var(--ours); text-decoration: none; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink);
  font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 600; padding: .45rem .7rem; border-bottom: 1px solid var(--ink);
  vertical-align: bottom; }
th:first-child, th:last-child, th.text { text-align: left; }
td { padding: .32rem .7rem; border-bottom: 1px solid var(--rule); vertical-align: baseline; }
td.number { text-align: right; white-space: nowrap; }
td.label { white-space: nowrap; }
td.note { font-size: .8rem; line-height: 1.35; color: var(--faint); min-width: 14rem; }
table.wide { font-size: .82rem; } .wide th, .wide td { padding-left: .4rem; padding-right: .4rem; }
tr.ours td { background: var(--tint); }
tr.ours td.number, tr.ours td.label { color: var(--ours); font-weight: 600; }
tr.ours td.label { box-shadow: inset 3px 0 var(--ours); padding-left: 1.5rem; }
tr.missing td { color: var(--faint); } tr.missing td.label { padding-left: 1.5rem; font-style: italic; }
.tag { font-size: .78rem; color: var(--faint); } tr.ours .tag { color: var(--ours); }
code { font: .8rem/1.3 ui-monospace, "SF Mono", Menlo, Consolas, monospace; color: var(--ink); }
p.footnote, p.hint, li { font-size: .85rem; color: var(--faint); max-width: 62rem; }
p.footnote { margin: .5rem 0 0; }
img { display: block; max-width: 100%; height: auto; margin: .6rem 0 1.4rem; }
.viewer { border: 1px solid var(--rule); border-radius: 6px; background: #fff; padding: .8rem 1rem; }
.controls label { margin-right: 1rem; } select, button { font: inherit; padding: .15rem .5rem; max-width: 22rem; }
#molecule3d { height: 460px; }
"""


def page(
    tables: Sequence[Table],
    pictures: Sequence[tuple[str, Path]],
    viewer: str,
    skipped: Sequence[tuple[object, str]] = (),
) -> str:
    """The page.

    Args:
        tables: from :func:`symdiff_plugin.report.tables.build_tables`.
        pictures: heading and PNG file of each plot.
        viewer: HTML of the molecules in 3D, or of what stands in its place; "" leaves the section out.
        skipped: (folder, reason) of what is not in the report.

    Raises:
        OSError: a picture cannot be read.
    """
    sections = [
        (f"table-{table.number}", f"Table {table.number}" if table.number != "other" else "Other runs", _table(table))
        for table in tables
    ]
    for index, (heading, path) in enumerate(pictures):
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        image = f'<img alt="{escape(heading)}" src="data:image/png;base64,{data}">'
        sections.append((f"plot-{index}", heading, f"<h2>{escape(heading)}</h2>\n{image}"))
    if viewer:
        sections.append(("molecules", "Molecules in 3D", f"<h2>Molecules in 3D</h2>\n{viewer}"))
    if skipped:
        items = "".join(f"<li><code>{escape(str(f))}</code>: {escape(reason)}</li>\n" for f, reason in skipped)
        sections.append(("left-out", "Left out", f"<h2>Left out</h2>\n<ul>\n{items}</ul>"))
    links = "\n".join(
        f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections if not title.startswith("Samples of")
    )
    body = "\n".join(f'<section id="{name}">\n{content}\n</section>' for name, _, content in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>SymDiff for EDM: results</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>SymDiff for EDM: results</h1>
<p class="lead">Plain rows are the paper's (Zhang et al. 2024). Rows in blue are measured here, and say of what.</p>
<nav>{links}</nav>
{body}
</main>
</body>
</html>
"""


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(column_head(column))}</th>" for column in table.columns)
    rows = "\n".join(map(_row, table.rows))
    notes = "\n".join(f'<p class="footnote">{escape(note)}</p>' for note in table.footnotes)
    wide = ' class="wide"' if len(table.columns) > 6 else ""
    return f"""<h2>{escape(caption(table))}</h2>
<div class="scroll"><table{wide}>
<thead><tr><th>Method</th><th class="text">Source</th>{heads}<th>Note</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>
{notes}"""


def _row(row: Row) -> str:
    cells = "".join(f'<td class="number">{escape(cell.text) or BLANK}</td>' for cell in row.cells)
    note = f"fill with <code>{escape(row.command)}</code>" if row.command else escape(row.note)
    return (
        f'<tr class="{row.source}"><td class="label">{escape(row.label)}</td>'
        f'<td class="tag">{source_words(row)}</td>{cells}<td class="note">{note}</td></tr>'
    )
