"""One HTML page that needs nothing else: tables, plots inside it, molecules to turn. All text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from symdiff_plugin.report.render import BLANK, NO_RUNS, NOT_RUN, caption, column_head, source_words
from symdiff_plugin.report.tables import Row, Table

# Nothing may be fetched: a browser refuses it even if a script tried.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

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
details { border-top: 1px solid var(--rule); margin-top: .9rem; padding-top: .6rem; }
section:not(:has(details)) + section details { margin-top: 2.4rem; }
summary { cursor: pointer; color: var(--faint); } details[open] summary { margin-bottom: .7rem; }
summary h2 { display: inline; font-size: 1.05rem; color: var(--ink); }
details div[id] { scroll-margin-top: 3.5rem; }
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
table.wide { font-size: .8rem; } .wide th, .wide td { padding-left: .35rem; padding-right: .35rem; }
.wide td.note { min-width: 11rem; }
tr.ours td { background: var(--tint); }
tr.ours td.number, tr.ours td.label { color: var(--ours); font-weight: 600; }
tr.ours td.label { box-shadow: inset 3px 0 var(--ours); padding-left: 1.5rem; }
#runs th.text, #runs td.tag { display: none; } #runs td.label { padding-left: .6rem; }
tr.missing td { color: var(--faint); } tr.missing td.label { padding-left: 1.5rem; font-style: italic; }
.tag { font-size: .78rem; color: var(--faint); } tr.ours .tag { color: var(--ours); }
code { font: .8rem/1.3 ui-monospace, "SF Mono", Menlo, Consolas, monospace; color: var(--ink); }
p.footnote, p.hint, li { font-size: .85rem; color: var(--faint); max-width: 62rem; }
p.footnote { margin: .5rem 0 0; }
img { display: block; max-width: 100%; height: auto; margin: .6rem 0 1.4rem; }
.viewer { border: 1px solid var(--rule); border-radius: 6px; background: #fff; padding: .8rem 1rem; }
.controls label { margin-right: 1rem; } select, button { font: inherit; padding: .15rem .5rem; max-width: 22rem; }
#molecule3d { display: block; width: 100%; height: 460px; cursor: grab; touch-action: none; }
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
        viewer: HTML of the molecules in 3D; "" leaves the section out.
        skipped: (folder, reason) of what is not in the report.

    Raises:
        OSError: a picture cannot be read.
    """
    # The user's runs and what is seen of them first, the paper's tables behind.
    own = [table for table in tables if table.number == "runs"]
    sections = [("runs", table.title, _table(table, "runs")) for table in own]
    for index, (heading, path) in enumerate(pictures):
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        image = f'<img alt="{escape(heading)}" src="data:image/png;base64,{data}">'
        sections.append((f"plot-{index}", heading, _section(f"plot-{index}", heading, image)))
    if viewer:
        sections.append(("molecules", "Molecules in 3D", _section("molecules", "Molecules in 3D", viewer)))
    for table in tables:
        if table not in own:
            name = f"table-{table.number}"
            sections.append((name, f"Table {table.number}", _table(table, name)))
    if skipped:
        items = "".join(f"<li><code>{escape(str(f))}</code>: {escape(reason)}</li>\n" for f, reason in skipped)
        sections.append(("left-out", "Left out", _section("left-out", "Left out", f"<ul>\n{items}</ul>")))
    links = "\n".join(
        f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections if not title.startswith("Samples of")
    )
    body = "\n".join(content for _, _, content in sections)
    empty = "" if own else f'<p class="hint">{NO_RUNS.format(*2 * ("<code>", "</code>"))}</p>'
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
<p class="lead">Rows in blue are measured here, and say of what; plain rows are the paper's (Zhang et al. 2024).</p>
{empty}
<nav>{links}</nav>
{body}
</main>
</body>
</html>
"""


def _table(table: Table, name: str) -> str:
    heads = "".join(f"<th>{escape(column_head(column)).replace(' (', '&nbsp;(')}</th>" for column in table.columns)
    rows = "\n".join(map(_row, table.rows))
    notes = "\n".join(f'<p class="footnote">{escape(note)}</p>' for note in table.footnotes)
    wide = ' class="wide"' if len(table.columns) > 6 else ""
    content = f"""<div class="scroll"><table{wide}>
<thead><tr><th>Method</th><th class="text">Source</th>{heads}<th>Note</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>
{notes}"""
    if table.has_ours:
        return _section(name, caption(table), content)
    # The link's target is inside, so that following it opens the table.
    return f"""<section><details>
<summary><h2>{escape(caption(table))}</h2> {NOT_RUN}</summary>
<div id="{name}">
{content}
</div></details></section>"""


def _section(name: str, heading: str, content: str) -> str:
    return f'<section id="{name}">\n<h2>{escape(heading)}</h2>\n{content}\n</section>'


def _row(row: Row) -> str:
    cells = "".join(f'<td class="number">{escape(cell.text) or BLANK}</td>' for cell in row.cells)
    note = f"fill with <code>{escape(row.command)}</code>" if row.command else escape(row.note)
    return (
        f'<tr class="{row.source}"><td class="label">{escape(row.label)}</td>'
        f'<td class="tag">{source_words(row)}</td>{cells}<td class="note">{note}</td></tr>'
    )
