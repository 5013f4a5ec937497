"""Run folders for the report to read, and cells of its tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from symdiff_plugin.presets import PRESETS

METRICS = {
    "test_nll": -120.4567, "atom_stability": 0.98765, "molecule_stability": 0.871, "validity": 0.95,
    "uniqueness": 0.9789, "validity_x_uniqueness": 0.93, "seconds_per_sample": 0.0912, "n_samples": 10000, "n_runs": 3,
    "std": {"test_nll": 1.234, "atom_stability": 0.0004, "validity": 0.001}, "runs": [{}, {}, {}],
}  # fmt: skip
WATER = "3\nstable; O\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"


def write_run(folder: Path, model: str = "symdiff", seed: int = 0, metrics: dict | None = None, **args: object) -> Path:
    """A run folder in the format of main_qm9.py and of the evaluation."""
    folder.mkdir(parents=True)
    given = {"dataset": "qm9", "conditioning": [], "n_epochs": 4350, "diffusion_steps": 1000, "nf": 256, "n_layers": 9}
    parameters = {"total": 31_200_000, "epsilon_theta": 29_000_000, "f_theta": 2_200_000}
    config = {"model": model, "seed": seed, "args": {**given, **args}, "parameters": parameters, "device": "NVIDIA X"}
    if model in PRESETS:
        config["architecture"] = asdict(PRESETS[model].architecture)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.json").write_text(json.dumps(metrics or METRICS))
    rows = [{"epoch": i, "train_loss": 3 - i, "val_nll": 50.0 - i, "train_seconds": s} for i, s in enumerate((20, 31))]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "molecules.xyz").write_text(WATER * 3)
    return folder


def rows_of(tables: list, number: str, key: str | None, source: str) -> list[list[str]]:
    (table,) = (t for t in tables if t.number == number)
    return [[cell.text for cell in row.cells] for row in table.rows if row.key == key and row.source == source]


def note_of(tables: list, number: str, key: str | None) -> str:
    (table,) = (t for t in tables if t.number == number)
    (row,) = (row for row in table.rows if row.key == key and row.source == "ours")
    return row.note
