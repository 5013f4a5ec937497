"""``--num_workers`` where processes are not forked: macOS spawns them, Linux from Python 3.14 on has a server do it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from runs import TINY, Workplace

from symdiff_plugin.common.workers import main_set_aside
from symdiff_plugin.training.history import read_rows

pytestmark = pytest.mark.edm


@pytest.mark.parametrize(
    ("script", "method"),
    [("main_qm9.py", "spawn"), ("main_qm9.py", "forkserver"), ("main_geom_drugs.py", "spawn")],
)
def test_the_loaders_of_both_scripts_start(
    script: str, method: str, workplace: Workplace, qm9_slice: Path, geom_file: Path, tmp_path: Path
) -> None:
    """Both scripts take a batch before they train; one of the runs goes on and tests an epoch."""
    (tmp_path / "sitecustomize.py").write_text(f"import multiprocessing; multiprocessing.set_start_method('{method}')")
    trains = (script, method) == ("main_qm9.py", "spawn")
    name = f"workers_{method}_{script[5:-3]}"
    flags = (
        "--model", "dit", *TINY[:10], "--exp_name", name, "--num_workers", 1, "--diffusion_steps", 4, "--no_wandb",
        "--n_stability_samples", 2, "--n_epochs", int(trains), "--batch_size", 60, "--seed", 1,
    )  # fmt: skip
    data = ("--datadir", qm9_slice) if script == "main_qm9.py" else ("--data_file", geom_file, "--split", "molecule")
    workplace.run(script, *flags, *data, python_path=tmp_path)
    if trains:
        (row,) = read_rows(workplace.output(name) / "history.jsonl")
        assert {"val_nll", "test_nll"} <= row.keys()


def test_the_main_module_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)  # a worker of pytest-xdist has none
    monkeypatch.setattr(main, "__spec__", object(), raising=False)
    before = dict(vars(main))
    with main_set_aside():
        assert main.__file__ is None
        assert main.__spec__ is None
    assert dict(vars(main)) == before
