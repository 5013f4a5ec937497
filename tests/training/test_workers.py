"""``--num_workers`` where processes are not forked: macOS spawns them, Linux from Python 3.14 on has a server do it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from runs import TINY, Workplace
from torch.utils.data import Dataset

from symdiff_plugin.common.workers import DataLoader, main_set_aside, rest_of
from symdiff_plugin.training.history import read_rows


@pytest.mark.edm
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


@pytest.mark.parametrize("workers", [0, 1])
def test_the_rest_of_an_epoch_is_what_was_left(workers: int) -> None:
    """Also when the loader's batches have become larger; the random numbers drawn are the same."""

    def loader(batch_size: int) -> DataLoader:
        return DataLoader(Numbers(), batch_size=batch_size, shuffle=True, num_workers=workers)

    torch.manual_seed(0)
    whole = [batch.tolist() for batch in loader(3)]
    after = torch.get_rng_state()
    for done in (1, 3, 4):
        for batch_size in (3, 5):
            torch.manual_seed(0)
            rest = rest_of(loader(batch_size), done, 3)
            assert len(rest) == len(whole) - done
            assert [batch.tolist() for batch in rest] == whole[done:]
            assert torch.equal(torch.get_rng_state(), after)
    assert [len(batch) for batch in loader(5)] == [5, 5]


class Numbers(Dataset):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        return index
