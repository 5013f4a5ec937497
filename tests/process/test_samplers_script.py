"""scripts/samplers.py: what is computed once is not computed again, and the page says what the lines say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "samplers.py"


@pytest.fixture
def script(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("samplers_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("CELLS", "TIMES", "PAGE", "PLOT"):
        setattr(module, name, tmp_path / getattr(module, name).name)
    return module


def cell(flags: dict, seed: int, n: int, connected: float = 0.5) -> dict:
    measured = ("atom_stability", "molecule_stability", "validity", "uniqueness", "valid_connected", "non_finite")
    return {
        **flags,
        "seed": seed,
        "n_samples": n,
        "atoms": 18 * n,
        "connected": connected,
        **dict.fromkeys(measured, 0.25),
    }


def test_a_killed_run_goes_on(script, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [{"sampler": "ddim", "sampling_steps": calls} for calls in (10, 25, 50)]
    monkeypatch.setattr(script, "cells", lambda: [(one, 1, 100) for one in flags])
    done: list[dict] = []
    monkeypatch.setattr(script, "judged", lambda model, one, seed, n: done.append(one) or cell(one, seed, n))
    script.append(script.CELLS, cell(flags[1], 1, 100))
    with script.CELLS.open("a") as file:
        file.write('{"sampler": "ddim", "sampling_steps": 50, "se')  # killed while writing
    script.run("")
    assert done == [flags[0], flags[2]]
    script.run("")
    assert len(done) == 2
    assert [line["sampling_steps"] for line in script.read(script.CELLS)] == [25, 10, 50]


def test_seeds_are_pooled_and_the_page_is_made_again(script) -> None:
    script.PAGE.write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n")
    for seed, n, connected in ((1, 100, 0.5), (2, 300, 0.7)):
        script.append(script.CELLS, cell({"sampler": "ddim", "sampling_steps": 50}, seed, n, connected))
    script.append(script.TIMES, {"sampler": "ddim", "sampling_steps": 50, "seconds": 0.125})
    script.page()
    text = script.PAGE.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| ddim")]
    assert "65.0 (60.2 to 69.5)" in row  # Wilson's of 260 in 400
    assert row.endswith("| 400 | 0.125 |")
    reference = json.loads((SCRIPT.parents[1] / "symdiff_plugin/pretrained/qm9-mini.json").read_text())["metrics"]
    (row,) = [line for line in text.splitlines() if line.startswith("| ancestral | 1000")]
    assert f"| {100 * reference['connected']:.1f} (" in row
    assert script.PLOT.stat().st_size > 10_000
