"""Several evaluation runs of one model, killed and gone on with; and the data's own metrics."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from torch.nn.modules.module import register_module_forward_pre_hook

from symdiff_plugin.data import load_split
from symdiff_plugin.evaluate.__main__ import main
from symdiff_plugin.evaluate.data_split import evaluate_split
from symdiff_plugin.evaluate.repetitions import evaluate_runs
from symdiff_plugin.evaluate.trained_run import load_run
from symdiff_plugin.molecules.molecule import read_xyz

pytestmark = pytest.mark.edm

SMALL = ("--n_samples", 6, "--nll_molecules", 20)


@pytest.fixture(autouse=True, scope="module")
def small_pictures() -> None:
    """None here: those of the evaluation that is killed, another process's, are of the usual size."""


def evaluate(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def untimed(path: Path) -> dict:
    """A summary without what a clock says and without the name of its folder."""
    record = json.loads(path.read_text())
    for one in (record, *record["runs"]):
        assert one.pop("seconds_per_sample") > 0
        del one["run"]
    record["std"].pop("seconds_per_sample")
    return record


def results(folder: Path) -> dict[str, object]:
    """All that an evaluation has left in a run's folder, by path."""
    names = ["molecules.xyz", "molecules.sdf", "samples.png"]
    paths = [folder / name for name in names] + sorted((folder / "xyz").iterdir())
    paths += [path for path in sorted((folder / "evaluation").rglob("*")) if path.is_file()]
    found: dict[str, object] = {
        str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != "metrics.json"
    }
    return {**found, "metrics.json": untimed(folder / "metrics.json")}


@pytest.fixture(scope="module")
def unbroken(workplace, trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    shutil.copytree(workplace.output(trained), folder)
    assert evaluate(folder, "--runs", 3, "--seed", 4, *SMALL) == 0
    return folder


def test_the_summary_is_of_the_runs_it_lists(unbroken):
    metrics = json.loads((unbroken / "metrics.json").read_text())
    folders = [unbroken / "evaluation" / f"run_{seed}" for seed in (4, 5, 6)]
    records = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    assert metrics["n_runs"] == 3
    assert metrics["runs"] == records
    assert [record["seed"] for record in records] == [4, 5, 6]
    for name in ("atom_stability", "validity", "test_nll", "seconds_per_sample"):
        values = [record[name] for record in records]
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-12)
        assert metrics["std"][name] == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-15)
    assert metrics["std"]["test_nll"] > 0
    assert metrics["test_nll_standard_error"] > 0  # from the spread over molecules: 20 are one batch
    frames = [(folder / "molecules.xyz").read_text() for folder in folders]
    assert len(set(frames)) == 3
    assert (unbroken / "molecules.xyz").read_text() == frames[0]
    for folder in folders:
        molecules = read_xyz(folder / "molecules.xyz")[0]
        supplier = Chem.SDMolSupplier(str(folder / "molecules.sdf"), sanitize=False, removeHs=False)
        for mol, molecule in zip(supplier, molecules, strict=True):
            np.testing.assert_allclose(mol.GetConformer().GetPositions(), molecule.positions, atol=6e-5)


def test_a_run_of_several_is_that_seeds_own(unbroken, copied):
    assert evaluate(copied, "--seed", 5, *SMALL) == 0
    alone, second = (
        json.loads(path.read_text())
        for path in (copied / "metrics.json", unbroken / "evaluation" / "run_5" / "metrics.json")
    )
    for name in ("test_nll", "atom_stability", "validity", "batch_size"):
        assert alone[name] == second[name]
    assert (copied / "molecules.xyz").read_text() == (unbroken / "evaluation/run_5/molecules.xyz").read_text()


def test_killed_in_its_second_run_it_goes_on_to_the_same_results(unbroken, copied, capsys):
    """Killed for good, by SIGKILL, once the first run is there; then the same command again."""
    command = [copied, "--runs", 3, "--seed", 4, *SMALL]
    arguments = [sys.executable, "-m", "symdiff_plugin.evaluate", *map(str, command)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    first, limit = copied / "evaluation" / "run_4", time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    text, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, text
    assert not (copied / "evaluation" / "run_6").exists()
    assert not (copied / "metrics.json").exists()
    inode = os.stat(first / "metrics.json").st_ino

    assert evaluate(*command) == 0
    printed = capsys.readouterr().out
    assert f"run 1 of 3: seed 4, reused from {first}" in printed
    assert os.stat(first / "metrics.json").st_ino == inode
    leftovers = [path for path in (copied / "evaluation").iterdir() if path.name.startswith(".")]
    for path in leftovers:  # of the killed process; what it had begun is in no result
        shutil.rmtree(path)
    assert results(copied) == results(unbroken)


def test_an_error_in_the_second_run_keeps_the_first(unbroken, copied, monkeypatch, capsys):
    from symdiff_plugin.evaluate import repetitions as runs

    whole = runs.evaluate
    seeds = []

    def failing(run, n_samples, batch_size, seed, *more):
        seeds.append(seed)
        if len(seeds) == 2:
            raise KeyboardInterrupt
        return whole(run, n_samples, batch_size, seed, *more)

    monkeypatch.setattr(runs, "evaluate", failing)
    command = [copied, "--runs", 3, "--seed", 4, *SMALL]
    assert evaluate(*command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert [path.name for path in (copied / "evaluation").iterdir()] == ["run_4"]
    # The batch size is the recorded one, whatever memory would suggest by now.
    monkeypatch.setattr(runs, "choose_batch_size", lambda run: pytest.fail("chosen anew"))
    assert evaluate(*command) == 0
    assert seeds == [4, 5, 5, 6]
    assert results(copied) == results(unbroken)


def reweigh(run: Path) -> None:
    path = run / "generative_model_ema.npy"
    weights = torch.load(path, weights_only=True)
    weights["dynamics.xh_embedder.weight"] *= 1.01
    torch.save(weights, path)


@pytest.mark.parametrize(
    ("change", "arguments", "reason"),
    [
        (lambda run: None, ["--n_samples", 6, "--nll_molecules", 21], "has nll_molecules 20, not 21"),
        (lambda run: None, [*SMALL, "--batch_size", 3], "has batch_size"),
        (reweigh, SMALL, "has other weights"),
    ],
)
def test_other_settings_are_computed_anew_and_said_so(change, arguments, reason, unbroken, tmp_path, capsys):
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    change(folder)
    before = (folder / "evaluation/run_4/metrics.json").read_bytes()
    assert evaluate(folder, "--runs", 2, "--seed", 4, *arguments) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert len(lines) == 2
    assert all("computed anew" in line and reason in line for line in lines)
    assert (folder / "evaluation/run_4/metrics.json").read_bytes() != before
    assert json.loads((folder / "metrics.json").read_text())["n_runs"] == 2


def test_data_and_run_may_be_elsewhere_by_now(unbroken, qm9_slice, tmp_path, capsys):
    folder = Path(shutil.copytree(unbroken, tmp_path / "moved"))
    datadir = Path(shutil.copytree(qm9_slice, tmp_path / "data"))
    assert evaluate(folder, "--runs", 3, "--seed", 4, *SMALL, "--datadir", datadir) == 0
    assert capsys.readouterr().out.count("reused from") == 3
    with np.load(datadir / "qm9/test.npz") as file:
        arrays = {key: values[:-1] for key, values in file.items()}
    np.savez_compressed(datadir / "qm9/test.npz", **arrays)
    assert evaluate(folder, "--runs", 2, "--seed", 4, *SMALL, "--datadir", datadir) == 0
    assert capsys.readouterr().out.count("has other data") == 2


@pytest.mark.parametrize("damage", ["", "{", '{"settings": 1}'])
def test_a_damaged_run_is_computed_again(damage, unbroken, tmp_path):
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (folder / "evaluation/run_5/metrics.json").write_text(damage)
    assert evaluate(folder, "--runs", 3, "--seed", 4, *SMALL) == 0
    assert results(folder) == results(unbroken)


@pytest.mark.parametrize("model", [None, "egnn_dynamics"])
def test_no_module_is_in_training_mode(model, copied):
    """Neither for the samples nor for the likelihood, in no run; dropout and its like are for training."""
    config = json.loads((copied / "config.json").read_text())
    if model:
        config["args"]["model"] = model
        (copied / "config.json").write_text(json.dumps(config))
    run = load_run(copied, untrained=model is not None)
    modes = []
    handle = register_module_forward_pre_hook(  # EDM's class alone may be: its training loss says what gamma is worth
        lambda module, inputs: modes.append(module.training and module is not run.model)
    )
    try:
        evaluate_runs(run, 2, n_samples=2, batch_size=2, nll_molecules=4)
        assert len(modes) > 100
        assert not any(modes)
        run.model.train().eval = lambda: None  # negative control: the hook would see it
        evaluate_runs(run, 1, n_samples=1, batch_size=1, nll_molecules=0)
        assert any(modes)
    finally:
        handle.remove()


@pytest.mark.parametrize("partition", ["test", "val", "train"])
def test_a_split_of_the_data_is_judged_as_samples_are(partition, qm9_slice, tmp_path, capsys, edm_path):
    assert evaluate("--data", partition, "--datadir", qm9_slice, "--out", tmp_path / "data") == 0
    metrics = json.loads((tmp_path / "data" / "metrics.json").read_text())
    text = capsys.readouterr().out
    count = {"test": 60, "val": 60, "train": 240}[partition]
    assert (metrics["kind"], metrics["partition"], metrics["n_samples"]) == ("data", partition, count)
    assert 0.85 < metrics["molecule_stability"] < metrics["atom_stability"] <= 1
    assert metrics["connected"] > 0.95
    assert metrics["non_finite"] == 0
    assert metrics["novelty"] is None if partition == "train" else metrics["novelty"] > 0.8
    assert f"{metrics['validity']:7.2%}" in text
    # EDM's own analysis, of its own loader of the split.
    from symdiff_plugin.edm import import_edm

    arrays = load_split(qm9_slice, {"val": "valid"}.get(partition, partition))
    analyze = import_edm("qm9.analyze").check_stability
    info = import_edm("configs.datasets_config").get_dataset_info("qm9", False)
    kinds = {1: 0, 6: 1, 7: 2, 8: 3, 9: 4}
    judged = []
    for charges, positions in zip(arrays["charges"][:60], arrays["positions"], strict=False):
        real = charges > 0
        judged.append(analyze(positions[real], np.array([kinds[int(z)] for z in charges[real]]), info))
    if partition != "train":
        assert metrics["molecule_stability"] == pytest.approx(np.mean([stable for stable, _, _ in judged]))
        assert metrics["atom_stability"] == pytest.approx(sum(a for _, a, _ in judged) / sum(n for _, _, n in judged))


def test_spoilt_data_are_noticed(qm9_slice, tmp_path):
    """Negative control: coordinates with noise score less."""
    datadir = Path(shutil.copytree(qm9_slice, tmp_path / "data"))
    with np.load(datadir / "qm9/test.npz") as file:
        arrays = copy.deepcopy(dict(file.items()))
    noise = 0.1 * np.random.RandomState(0).randn(*arrays["positions"].shape).astype(np.float32)
    arrays["positions"] += noise * (arrays["charges"] > 0)[..., None]
    np.savez_compressed(datadir / "qm9/test.npz", **arrays)
    assert evaluate_split(datadir, "test")["molecule_stability"] < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the folder of a run or --data SPLIT ("),
        (["outputs/run", "--data", "test"], "not both"),
        (["--data", "test", "--seed", "3"], "--seed is of a run"),
        (["--data", "all"], "invalid choice"),
    ],
)
def test_wrong_options_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_missing_data_are_one_line_and_write_nothing(tmp_path, capsys, edm_path):
    assert evaluate("--data", "test", "--datadir", tmp_path / "none", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "test.npz is missing" in error or "train.npz is missing" in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
