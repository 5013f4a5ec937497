"""The notebooks of examples/ run as they stand, and print what they show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# At the end: as many figures as were drawn, each with something in it.
COUNT = "\nimport matplotlib.pyplot as _plt\nprint('figures', sum(any(a.has_data() for a in _plt.figure(n).axes) "
COUNT += "for n in _plt.get_fignums()))\n"


def cells(path: Path) -> list[dict]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        assert {"cell_type", "id", "metadata", "source"} <= cell.keys()
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(sources: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The cells in turn in a fresh interpreter, in a folder that holds nothing."""
    (folder / "cells.json").write_text(json.dumps([*sources, COUNT]))
    code = "import json\nfor cell in json.load(open('cells.json')): exec(compile(cell, 'cell', 'exec'), globals())"
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-W", "ignore:FigureCanvasAgg", "-c", code], cwd=folder, env=environment, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


def shown(code: list[dict]) -> list[str]:
    """The lines that the stored outputs print."""
    outputs = [output for cell in code for output in cell["outputs"]]
    return "".join("".join(o["text"]) for o in outputs if o["output_type"] == "stream").splitlines()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_it_shows(path: Path, tmp_path: Path) -> None:
    code = cells(path)
    result = run(["".join(cell["source"]) for cell in code], tmp_path)
    assert result.returncode == 0, result.stderr
    *lines, figures = result.stdout.splitlines()
    assert lines == shown(code)
    pictures = [o for cell in code for o in cell["outputs"] if o["output_type"] == "display_data"]
    assert figures == f"figures {len(pictures)}"


def test_the_notebook_is_there_and_a_wrong_cell_is_seen(tmp_path: Path) -> None:
    (path,) = NOTEBOOKS
    assert path.name == "symmetrise_your_network.ipynb"
    assert shown(cells(path))[:2] == [
        "not equivariant under O(2)", "equivariant under O(2): no moment is off by more than chance allows",
    ]  # fmt: skip
    assert run(["x = 1", "y = x + z"], tmp_path).returncode != 0
    assert run(["x = 1", "print(x)"], tmp_path).stdout == "1\nfigures 0\n"
