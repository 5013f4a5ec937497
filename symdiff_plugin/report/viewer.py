"""Molecules that turn under the mouse, drawn by plotly.js inside the page: no network, one WebGL canvas."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from typing import Any

from symdiff_plugin.evaluate.bonds import bonded_pairs
from symdiff_plugin.evaluate.molecules import Molecule
from symdiff_plugin.evaluate.picture import COLOURS, OTHER, ball_radius, view
from symdiff_plugin.report.plots import spread
from symdiff_plugin.report.runs import Run

SHOWN = 12  # molecules a run
INSTALL = 'pip install "symdiff-plugin[report]"'


def have_plotly() -> bool:
    """Whether plotly is installed; without it the page has no molecules in 3D."""
    return importlib.util.find_spec("plotly") is not None


def traces(molecule: Molecule) -> list[dict[str, Any]]:
    """Plotly's traces of one molecule with finite coordinates: bonds as lines, atoms as markers, in Angstrom."""
    points = view(molecule.positions).round(4).tolist()
    lines: list[list[float | None]] = [[], [], []]
    for i, j in bonded_pairs(molecule):
        for axis in range(3):
            lines[axis] += [points[i][axis], points[j][axis], None]
    bonds = {
        "type": "scatter3d", "mode": "lines", "hoverinfo": "skip", "line": {"width": 9, "color": "#aab0b8"},
        **dict(zip("xyz", lines, strict=True)),
    }  # fmt: skip
    atoms = {
        "type": "scatter3d", "mode": "markers", "hoverinfo": "text", "text": list(molecule.symbols),
        "marker": {
            "size": [round(62 * ball_radius(symbol), 1) for symbol in molecule.symbols], "opacity": 1,
            "color": [COLOURS.get(symbol, OTHER) for symbol in molecule.symbols],
            "line": {"width": 1, "color": "#4a4f57"},
        },
        **dict(zip("xyz", map(list, zip(*points, strict=True)), strict=True)),
    }  # fmt: skip
    return [bonds, atoms]


def viewer(runs: Sequence[Run]) -> str:
    """HTML of the viewer, plotly.js included; "" if no run has molecules.

    Raises:
        ImportError: plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    entries = [
        {
            "run": f"{run.label} ({run.folder.name})",
            "name": f"{run.molecules[i].formula}, {run.comments[i].split(';')[0]}",
            "traces": traces(run.molecules[i]),
        }
        for run in runs
        if not run.is_data
        for i in spread(len(run.molecules), SHOWN)
    ]
    if not entries:
        return ""
    script = _SCRIPT.replace("ENTRIES", script_json(entries))
    return f"{_MARKUP}<script>{get_plotlyjs()}</script>\n<script>{script}</script>"


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_MARKUP = """<div class="viewer">
<p class="controls"><label>Run <select id="run"></select></label>
<label>Molecule <select id="molecule"></select></label>
<button type="button" id="previous">Previous</button> <button type="button" id="next">Next</button></p>
<div id="molecule3d"></div>
<p class="hint">Drag to turn, scroll to zoom. Bonds are judged by distance.</p>
</div>
"""

_SCRIPT = """
(() => {
  const entries = ENTRIES;
  const byId = id => document.getElementById(id);
  const hidden = {visible: false, showspikes: false};
  const layout = {
    margin: {l: 0, r: 0, t: 0, b: 0}, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)",
    scene: {xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "data",
            camera: {eye: {x: 0, y: 0, z: 1.7}, up: {x: 0, y: 1, z: 0}, projection: {type: "orthographic"}}},
  };
  const options = {displaylogo: false, displayModeBar: false, responsive: true};
  const runs = [...new Set(entries.map(entry => entry.run))];
  const option = (text, value) => Object.assign(document.createElement("option"), {textContent: text, value});
  runs.forEach((run, i) => byId("run").append(option(run, i)));
  const draw = () => Plotly.react("molecule3d", entries[+byId("molecule").value].traces, layout, options);
  const list = () => {
    byId("molecule").replaceChildren();
    entries.forEach((entry, i) => {
      if (entry.run === runs[+byId("run").value]) byId("molecule").append(option(entry.name, i));
    });
    draw();
  };
  const step = by => {
    const count = byId("molecule").options.length;
    byId("molecule").selectedIndex = (byId("molecule").selectedIndex + by + count) % count;
    draw();
  };
  byId("run").onchange = list;
  byId("molecule").onchange = draw;
  byId("previous").onclick = () => step(-1);
  byId("next").onclick = () => step(1);
  list();
})();
"""
