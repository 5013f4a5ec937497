"""Molecules that turn under the mouse, drawn by plotly.js inside the page: no network, one WebGL canvas."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from typing import Any

from symdiff_plugin.molecules.bonds import bonded_pairs
from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.picture import COLOURS, OTHER, STICK, ball_radius, view
from symdiff_plugin.report.folders import Run
from symdiff_plugin.report.plots import spread

SHOWN = 12  # molecules a run
INSTALL = 'pip install "symdiff-plugin[report]"'


def have_plotly() -> bool:
    """Whether plotly is installed; without it the page has no molecules in 3D."""
    return importlib.util.find_spec("plotly") is not None


def geometry(molecule: Molecule) -> dict[str, Any]:
    """What the page draws of one molecule with finite coordinates: a ball an atom, a stick a bond, in Angstrom.

    Returns:
        ``points`` (N lists of 3), ``symbols``, ``colours`` and ``radii`` of the N atoms, and ``bonds``,
        pairs of indices.
    """
    return {
        "points": view(molecule.positions).round(4).tolist(),
        "symbols": list(molecule.symbols),
        "colours": [COLOURS.get(symbol, OTHER) for symbol in molecule.symbols],
        "radii": [round(ball_radius(symbol), 3) for symbol in molecule.symbols],
        "bonds": bonded_pairs(molecule).tolist(),
    }


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
            **geometry(run.molecules[i]),
        }
        for run in runs
        if not run.is_data
        for i in spread(len(run.molecules), SHOWN)
    ]
    if not entries:
        return ""
    script = _SCRIPT.replace("STICK", str(STICK)).replace("ENTRIES", script_json(entries))
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
  // One scale for all axes, 6 Angstrom across at the least; plotly shades meshes in perspective alone.
  const layout = entry => {
    const box = [0, 1, 2].map(axis => {
      const ends = by => entry.points.map((point, n) => point[axis] + by * entry.radii[n]);
      return [Math.min(...ends(-1)), Math.max(...ends(1))];
    });
    const extent = box.map(([low, high]) => high - low);
    const [x, y, z] = extent.map(length => 1.7 * length / Math.max(6, ...extent));
    return {
      margin: {l: 0, r: 0, t: 0, b: 0}, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)",
      scene: {
        xaxis: {...hidden, range: box[0]}, yaxis: {...hidden, range: box[1]}, zaxis: {...hidden, range: box[2]},
        aspectmode: "manual", aspectratio: {x, y, z},
        camera: {eye: {x: 0, y: 0, z: 2.2}, up: {x: 0, y: 1, z: 0}},
      },
    };
  };
  const options = {displaylogo: false, displayModeBar: false, responsive: true};
  const runs = [...new Set(entries.map(entry => entry.run))];
  const option = (text, value) => Object.assign(document.createElement("option"), {textContent: text, value});
  runs.forEach((run, i) => byId("run").append(option(run, i)));
  // Meshes are made here rather than stored: they would be some hundred times the size of the molecules.
  const grid = (mesh, rings, sides, at) => {
    const first = mesh.x.length;
    for (let a = 0; a <= rings; a++) for (let b = 0; b < sides; b++) {
      const point = at(a / rings, 2 * Math.PI * b / sides);
      mesh.x.push(point[0]); mesh.y.push(point[1]); mesh.z.push(point[2]);
    }
    for (let a = 0; a < rings; a++) for (let b = 0; b < sides; b++) {
      const p = first + a * sides + b, q = first + a * sides + (b + 1) % sides;
      mesh.i.push(p, q); mesh.j.push(p + sides, p + sides); mesh.k.push(q, q + sides);
    }
  };
  const ball = (mesh, centre, radius) => grid(mesh, 14, 22, (s, angle) => {
    const around = Math.sin(Math.PI * s) * radius;
    return [centre[0] + around * Math.cos(angle), centre[1] + around * Math.sin(angle),
            centre[2] + radius * Math.cos(Math.PI * s)];
  });
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const unit = a => a.map(x => x / (Math.hypot(...a) || 1));
  const stick = (mesh, from, to) => {
    const along = to.map((x, axis) => x - from[axis]);
    const u = unit(cross(along, Math.abs(along[0]) < Math.abs(along[1]) ? [1, 0, 0] : [0, 1, 0]));
    const v = unit(cross(u, along));  // so that the normals point outwards
    grid(mesh, 1, 14, (s, angle) => from.map((x, axis) =>
      x + s * along[axis] + STICK * (Math.cos(angle) * u[axis] + Math.sin(angle) * v[axis])));
  };
  const traces = entry => {
    const meshes = new Map();
    const mesh = colour => {
      if (!meshes.has(colour)) meshes.set(colour, {
        type: "mesh3d", x: [], y: [], z: [], i: [], j: [], k: [], color: colour, hoverinfo: "skip", flatshading: false,
        lighting: {ambient: .55, diffuse: .6, specular: .2, roughness: .5, fresnel: .1,
                   facenormalsepsilon: 1e-15, vertexnormalsepsilon: 1e-15},
        lightposition: {x: 4000, y: 6000, z: 9000},
      });
      return meshes.get(colour);
    };
    entry.points.forEach((point, n) => ball(mesh(entry.colours[n]), point, entry.radii[n]));
    entry.bonds.forEach(([n, m]) => {
      const middle = entry.points[n].map((x, axis) => (x + entry.points[m][axis]) / 2);
      stick(mesh(entry.colours[n]), entry.points[n], middle);
      stick(mesh(entry.colours[m]), middle, entry.points[m]);
    });
    return [...meshes.values()];
  };
  const draw = () => {
    const entry = entries[+byId("molecule").value];
    Plotly.react("molecule3d", traces(entry), layout(entry), options);
  };
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
