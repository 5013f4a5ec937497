"""main_geom_drugs.py end to end, on conformers that RDKit made: train, validate, test, save, go on, evaluate."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from geom_conformers import make_molecules, write
from runs import SHORT, TINY, Workplace, equal

from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.training.history import read_rows

pytestmark = pytest.mark.edm

MODELS = {
    "symdiff_tiny": ("--model", "symdiff_tiny", *TINY, "--sampling_steps", 3),
    "egnn_dynamics": ("--model", "egnn_dynamics", "--nf", 8, "--n_layers", 1, "--ema_decay", 0.9),
}
SEQUENTIAL = ("--sequential", "--num_workers", 2, "--split", "molecule", "--split_seed", 2)
# The other two combinations train one epoch below.
RUNS = {"ours": (*MODELS["symdiff_tiny"], *SEQUENTIAL), "edms": MODELS["egnn_dynamics"]}
# 92 conformers are five batches of 16 and one of 12; 181 padded atoms make sampling slow, so few of it.
QUICK = (*SHORT, "--diffusion_steps", 3, "--batch_size", 16, "--n_stability_samples", 2, "--no-cuda")


@pytest.fixture(scope="module")
def place(edm_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A folder to train in, with a data set where EDM looks for it."""
    place = Workplace(tmp_path_factory.mktemp("geom"), edm_path)
    write(make_molecules(60), place.folder / "data/geom")
    return place


@pytest.fixture(scope="module")
def files(place: Workplace) -> GeomFiles:
    return GeomFiles(place.folder / "data/geom/geom_drugs_30.npy")


@pytest.fixture(scope="module", params=RUNS)
def trained(place: Workplace, request: pytest.FixtureRequest) -> str:
    """The name of a finished run of two epochs."""
    place.run("main_geom_drugs.py", *RUNS[request.param], *QUICK, "--seed", 4, "--exp_name", request.param)
    return request.param


def test_a_run_trains_validates_tests_and_saves(place: Workplace, trained: str, files: GeomFiles) -> None:
    folder = place.output(trained)
    epochs = read_rows(folder / "history.jsonl")
    assert [row["epoch"] for row in epochs] == [0, 1]
    for row in epochs:
        assert all(math.isfinite(row[key]) for key in ("train_loss", "val_nll", "test_nll"))
    for name in ("generative_model.npy", "generative_model_ema.npy", "args.pickle", "checkpoint.pt"):
        assert (folder / name).stat().st_size > 0
    assert not any("padded" in key for key in torch.load(folder / "generative_model.npy", weights_only=True))
    config = json.loads((folder / "config.json").read_text())["args"]
    assert config["dataset"] == "geom"
    assert config["data_file"] == "./data/geom/geom_drugs_30.npy"
    assert (config["split"], config["split_seed"]) == (("molecule", 2) if config["sequential"] else ("official", 0))
    n_train = len(np.load(files.n_atoms)) * 0.8
    steps = len(read_rows(folder / "train_loss.jsonl")) / 2
    assert abs(steps - n_train / 16) < 2


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(place: Workplace, trained: str) -> None:
    name = f"{trained}_parts"
    place.run("main_geom_drugs.py", *RUNS[trained], *QUICK, "--seed", 4, "--exp_name", name, "--n_epochs", 1)
    # With other processes too: they are no part of what is computed.
    workers = ("--num_workers", 0) if trained == "ours" else ()
    place.run("main_geom_drugs.py", "--resume", f"outputs/{name}", "--n_epochs", 2, "--no-cuda", *workers)
    whole, parts = (torch.load(place.output(run) / "checkpoint.pt", weights_only=True) for run in (trained, name))
    assert [key for key in whole if key != "args" and not equal(whole[key], parts[key])] == []
    losses = [[row["loss"] for row in read_rows(place.output(run) / "train_loss.jsonl")] for run in (trained, name)]
    assert losses[0] == losses[1]


def test_eval_analyze(place: Workplace, trained: str) -> None:
    printed = place.run("eval_analyze.py", "--model_path", f"outputs/{trained}", "--n_samples", 2)
    assert math.isfinite(float(re.search(r"Final test nll (\S+)", printed)[1]))


def test_pictures_are_of_real_atoms(place: Workplace) -> None:
    place.run(
        "main_geom_drugs.py", *MODELS["egnn_dynamics"], *QUICK, "--n_epochs", 1, "--diffusion_steps", 1,
        "--visualize_every_batch", 4, "--exp_name", "pictures", "--debug_checks", "--sequential",
    )  # fmt: skip
    folder = place.output("pictures") / "epoch_0_4"
    molecules = sorted(folder.glob("molecule_*.txt"))
    assert len(molecules) == len(list(folder.glob("molecule_*.png"))) == 5
    sizes = [int(path.read_text().split()[0]) for path in molecules]
    assert len(set(sizes)) > 1  # not 181 each
    assert (folder / "chain/output.gif").stat().st_size > 0


def test_a_data_file_elsewhere_and_a_filter(place: Workplace, tmp_path: Path) -> None:
    own = write(make_molecules(60)[:40], tmp_path, name="mine")
    place.run(
        "main_geom_drugs.py", *MODELS["symdiff_tiny"], *QUICK, "--data_file", own.data, "--filter_molecule_size", 40,
        "--n_epochs", 1, "--exp_name", "mine", "--batch_size", 8,
    )  # fmt: skip
    assert math.isfinite(read_rows(place.output("mine") / "history.jsonl")[0]["test_nll"])


def refused(place: Workplace, *flags: object) -> str:
    done = place.start("main_geom_drugs.py", *MODELS["egnn_dynamics"], *QUICK, "--exp_name", "refused", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert not place.output("refused").exists() or not (place.output("refused") / "checkpoint.pt").exists()
    return line


def test_a_mistake_is_one_line(place: Workplace, tmp_path: Path) -> None:
    own = write(make_molecules(60)[:40], tmp_path, name="mine")
    np.save(own.permutation, np.arange(1000))
    assert "is of 1,000 conformers" in refused(place, "--data_file", own.data)
    own.permutation.unlink()
    rows = np.load(own.data)
    rows[1::2, 1] = 34
    np.save(own.data, rows)
    line = refused(place, "--data_file", own.data, "--split", "molecule", "--num_workers", 2)
    assert re.search(r"error: .*mine.npy: conformer \d+ has an atom of Se \(atomic number 34\)", line)
