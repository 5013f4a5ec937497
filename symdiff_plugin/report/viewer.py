"""Molecules that turn under the mouse, drawn by ``viewer.js`` inside the page: no network, no library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from symdiff_plugin.molecules.bonds import bonded_pairs
from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.picture import COLOURS, OTHER, STICK, ball_radius, view
from symdiff_plugin.report.folders import EvaluatedRun
from symdiff_plugin.report.plots import spread

SHOWN = 12  # molecules a run


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


def viewer(runs: Sequence[EvaluatedRun]) -> str:
    """HTML of the viewer, its script included; "" if no run has molecules."""
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
    data = script_json({"stick": STICK, "entries": entries})
    script = resources.files(__package__).joinpath("viewer.js").read_text(encoding="utf-8")
    return f'{_MARKUP}<script type="application/json" id="molecules3d">{data}</script>\n<script>{script}</script>'


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_MARKUP = """<div class="viewer">
<p class="controls"><label>Run <select id="run"></select></label>
<label>Molecule <select id="molecule"></select></label>
<button type="button" id="previous">Previous</button> <button type="button" id="next">Next</button></p>
<canvas id="molecule3d" role="img" tabindex="0"></canvas>
<p class="hint">Drag to turn, scroll to zoom. Bonds are judged by distance.</p>
</div>
"""
