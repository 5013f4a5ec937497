"""Runs of main_geom_drugs.py evaluated: by EDM's own analysis and test loop, on conformers in GEOM-Drugs' format."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from edm_analysis import edms_own
from geom_conformers import info_of, save_info
from geom_data import drugs, write_geom
from rdkit import Chem

from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.__main__ import main
from symdiff_plugin.evaluate.likelihood import negative_log_likelihood
from symdiff_plugin.evaluate.sampling import sample_molecules
from symdiff_plugin.evaluate.trained_run import load_run
from symdiff_plugin.molecules.molecule import Molecule, read_xyz

pytestmark = pytest.mark.edm
TENTH = 8  # of the 80 conformers of geom_file


def evaluate(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def metrics_of(folder: Path, name: str = "metrics.json") -> dict:
    return json.loads((folder / name).read_text(), parse_constant=pytest.fail)


def test_a_run_is_evaluated(copied_geom, capsys):
    partitions = ("--partition", "test", "val")
    assert evaluate(copied_geom, "--n_samples", 5, "--batch_size", 2, "--nll_draws", 2, *partitions) == 0
    found = metrics_of(copied_geom)
    assert found["dataset"] == "geom"
    assert found["data_set"] is None
    assert found["data_conformers"] == 80
    assert found["test_nll_molecules"] == found["val_nll_molecules"] == TENTH
    assert found["test_nll_gain"] > -1e-3 * abs(found["test_nll"])
    assert found["batch_sizes"] == [[2, 2], [1, 1]]
    assert found["novelty"] is None
    assert "Novelty" not in capsys.readouterr().out
    molecules, comments = read_xyz(copied_geom / "molecules.xyz")
    assert len(molecules) == len(comments) == 5
    supplier = Chem.SDMolSupplier(str(copied_geom / "molecules.sdf"), sanitize=False, removeHs=False)
    assert [mol.GetNumAtoms() for mol in supplier] == list(map(len, molecules))
    assert len(list((copied_geom / "xyz").iterdir())) == 5
    assert (copied_geom / "samples.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "change", [{"model": "egnn_dynamics", "nf": 16, "n_layers": 1}, {"sequential": True}, {"include_charges": True}]
)
def test_other_settings_are_evaluated(change, copied_geom):
    config = json.loads((copied_geom / "config.json").read_text())
    config["args"].update(change)
    (copied_geom / "config.json").write_text(json.dumps(config))
    assert evaluate(copied_geom, "--untrained", "--n_samples", 2) == 0
    found = metrics_of(copied_geom, "metrics_untrained.json")
    assert math.isfinite(found["test_nll"])
    assert found["test_nll_molecules"] == TENTH


@pytest.mark.parametrize("partition", ["test", "val"])
def test_the_nll_is_that_of_edms_test_loop(partition, copied_geom):
    run = load_run(copied_geom, batch_size=3)
    torch.manual_seed(3)
    found = negative_log_likelihood(run, partition)
    torch.manual_seed(3)
    wanted = import_edm("eval_analyze").test(
        run.args, run.model, run.nodes_dist, run.device, torch.float32, run.loaders[partition], num_passes=1
    )
    assert found["nll"] == pytest.approx(wanted, rel=1e-6)
    assert found["nll_molecules"] == TENTH


def test_the_held_out_molecules_are_those_of_the_permutation(copied_geom, geom_file):
    """Told by their coordinates, read without any of our readers."""
    atoms = np.load(geom_file)
    permutation = np.load(geom_file.with_name("geom_permutation.npy"))
    run = load_run(copied_geom)
    for partition, rows in (("val", permutation[:TENTH]), ("test", permutation[TENTH : 2 * TENTH])):
        wanted = sorted(atoms[atoms[:, 0] == row, 2:].tobytes() for row in rows)
        dataset = run.loaders[partition].dataset
        assert sorted(dataset[i]["positions"].numpy().tobytes() for i in range(len(dataset))) == wanted


def test_the_standard_error_is_over_molecules(copied_geom):
    """In batches sorted by size the spread over batches would be many times as large."""
    run = load_run(copied_geom)
    torch.manual_seed(0)
    found = negative_log_likelihood(run, "test", batch_size=1)  # each value is then its batch's
    torch.manual_seed(0)
    losses = import_edm("qm9.losses")
    values = []
    with torch.no_grad():
        for one in torch.utils.data.DataLoader(run.loaders["test"].dataset, collate_fn=run.loaders["test"].collate_fn):
            mask = one["atom_mask"][..., None]
            x = import_edm("equivariant_diffusion.utils").remove_mean_with_mask(one["positions"].float(), mask)
            h = {"categorical": one["one_hot"].float(), "integer": torch.zeros(0)}
            values.append(losses.compute_loss_and_nll(
                run.args, run.model, run.nodes_dist, x, h, mask, one["edge_mask"], None
            )[0].item())  # fmt: skip
    assert found["nll"] == pytest.approx(np.mean(values), rel=1e-5)
    assert found["nll_standard_error"] == pytest.approx(np.std(values, ddof=1) / math.sqrt(TENTH), rel=1e-4)


def test_molecules_of_all_sizes_are_sampled(copied_geom):
    run = load_run(copied_geom)
    run.nodes_dist = import_edm("qm9.models").DistributionNodes({181: 2, 3: 1, 46: 1})
    torch.manual_seed(0)
    found = sample_molecules(run, 8, 3)
    assert {len(molecule) for molecule in found.molecules} == {3, 46, 181}
    assert all(molecule.is_finite for molecule in found.molecules)


def test_runs_are_reused_wherever_the_data_lie_and_not_with_other_data(copied_geom, geom_file, tmp_path, capsys):
    def printed(*arguments: object) -> str:
        assert evaluate(copied_geom, "--runs", 2, "--n_samples", 2, "--batch_size", 2, *arguments) == 0
        return capsys.readouterr().out

    assert "reused from" not in printed()
    elsewhere = Path(shutil.copytree(geom_file.parent, tmp_path / "elsewhere")) / geom_file.name
    assert printed("--data_file", elsewhere).count("reused from") == 2
    atoms = np.load(elsewhere)
    atoms[len(atoms) // 2, 3] += 0.01
    np.save(elsewhere, atoms)
    assert printed("--data_file", elsewhere).count("computed anew") == 2
    permutation = np.load(geom_file.with_name("geom_permutation.npy"))
    np.save(elsewhere.with_name("geom_permutation.npy"), permutation[::-1])
    shutil.copyfile(geom_file, elsewhere)
    assert printed("--data_file", elsewhere).count("other data") == 2


def test_posebusters_goes_with_an_evaluation_and_its_settings(copied_geom, geom_file, tmp_path, capsys):
    pytest.importorskip("posebusters", reason="NO POSEBUSTERS: pip install posebusters")

    def printed(*arguments: object) -> str:
        assert evaluate(copied_geom, "--runs", 2, "--n_samples", 3, "--nll_molecules", 2, *arguments) == 0
        return capsys.readouterr().out

    printed()
    assert "posebusters" not in metrics_of(copied_geom)
    assert printed("--posebusters", 2).count("computed anew") == 2
    found = metrics_of(copied_geom)
    assert found["posebusters"]["n_molecules"] == 2
    assert found["posebusters"]["passes_all"] == 0  # after one epoch
    assert found["std"]["posebusters"]["checks"]["sanitization"] == 0
    assert printed("--posebusters", 2).count("reused from") == 2
    where = ("--data", "train", "--dataset", "geom", "--data_file", geom_file, "--out", tmp_path / "out")
    assert evaluate(*where, "--n_molecules", 3, "--posebusters", 1) == 0
    assert metrics_of(tmp_path / "out")["posebusters"]["passes_all"] == 1
    assert "PoseBusters" in capsys.readouterr().out


def of_rows(atoms: np.ndarray, rows: np.ndarray, info: dict) -> dict[str, float]:
    """EDM's analysis of conformers, centred in float32 as its samples are; it measures no novelty on GEOM-Drugs."""
    molecules = []
    for molecule in (atoms[atoms[:, 0] == row, 1:] for row in rows):
        symbols = tuple(info["atom_decoder"][info["atomic_nb"].index(int(z))] for z in molecule[:, 0])
        molecules.append(Molecule(symbols, molecule[:, 1:] - molecule[:, 1:].mean(axis=0)))
    found = edms_own(molecules, info)
    del found["novelty"]
    return found


def test_the_data_row_is_edms_analysis_of_the_split(geom_file, tmp_path, capsys):
    where = ("--data", "train", "--dataset", "geom", "--data_file", geom_file)
    assert evaluate(*where, "--out", tmp_path / "a") == 0
    found = metrics_of(tmp_path / "a")
    assert "64 conformers" in capsys.readouterr().out
    assert (found["kind"], found["dataset"], found["partition"], found["n_samples"]) == ("data", "geom", "train", 64)
    assert (found["split"], found["data_set"], found["data_conformers"]) == ("official", None, 80)
    info = import_edm("configs.datasets_config").get_dataset_info("geom", False)
    rows = np.load(geom_file.with_name("geom_permutation.npy"))[2 * TENTH :]
    wanted = of_rows(np.load(geom_file), rows, info)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
    assert found["novelty"] is None
    other = of_rows(np.load(geom_file), rows[:20], info)  # the comparison can fail
    assert other["atom_stability"] != pytest.approx(found["atom_stability"], abs=1e-6)


def test_a_choice_of_the_data_is_the_seeds_own(geom_file, tmp_path):
    def atom_stability(seed: int) -> float:
        where = ("--data", "train", "--dataset", "geom", "--data_file", geom_file, "--n_molecules", 9, "--seed", seed)
        assert evaluate(*where, "--out", tmp_path / str(seed)) == 0
        found = metrics_of(tmp_path / str(seed))
        assert (found["n_samples"], found["seed"]) == (9, seed)
        return found["atom_stability"]

    assert atom_stability(1) == atom_stability(1)
    assert atom_stability(1) != atom_stability(2)


def test_a_data_set_of_ones_own_is_called_by_its_name(tmp_path, copied_geom):
    """And has the atom types of its description, for its data row as for a run on it."""
    file = write_geom(tmp_path / "mine.npy", drugs(12))
    atoms = np.load(file)
    save_info(info_of([atoms[atoms[:, 0] == i, 1:] for i in range(24)], "mine"), GeomFiles(file))
    where = ("--data", "val", "--dataset", "geom", "--data_file", file, "--split", "molecule", "--split_seed", 3)
    assert evaluate(*where, "--out", tmp_path / "out") == 0
    found = metrics_of(tmp_path / "out")
    assert (found["data_set"], found["split"], found["split_seed"], found["n_samples"]) == ("mine", "molecule", 3, 2)
    config = json.loads((copied_geom / "config.json").read_text())
    config["args"].update(data_file=str(file), split="molecule")
    (copied_geom / "config.json").write_text(json.dumps(config))
    assert evaluate(copied_geom, "--untrained", "--n_samples", 3) == 0
    found = metrics_of(copied_geom, "metrics_untrained.json")
    assert (found["data_set"], found["data_conformers"]) == ("mine", 24)
    sampled, _ = read_xyz(copied_geom / "molecules_untrained.xyz")
    known = {Chem.GetPeriodicTable().GetElementSymbol(int(z)) for z in set(atoms[:, 1])}
    assert {symbol for molecule in sampled for symbol in molecule.symbols} <= known


def without_file(file: Path) -> None:
    file.unlink()


def with_short_permutation(file: Path) -> None:
    np.save(file.with_name("geom_permutation.npy"), np.arange(79))


def with_nan(file: Path) -> None:
    atoms = np.load(file)
    atoms[-1, 3] = np.nan
    np.save(file, atoms)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(without_file, "no "), (with_short_permutation, "79 conformers"), (with_nan, "coordinates that are not finite")],
)
def test_bad_data_are_one_line_and_write_nothing(spoil, message, copied_geom, geom_file, tmp_path, capsys):
    file = Path(shutil.copytree(geom_file.parent, tmp_path / "spoilt")) / geom_file.name
    spoil(file)
    before = sorted(path.name for path in copied_geom.iterdir())
    of_data = ["--data", "test", "--dataset", "geom", "--n_molecules", 8, "--out", tmp_path / "o"]
    for arguments in ([copied_geom, "--n_samples", 2], of_data):
        assert evaluate(*arguments, "--data_file", file) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert len(printed.err.strip().splitlines()) == 1
    assert sorted(path.name for path in copied_geom.iterdir()) == before
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "test", "--dataset", "geom", "--datadir", "x"], "--datadir goes with --dataset qm9"),
        (["--data", "test", "--split", "molecule"], "--split goes with --dataset geom"),
        (["--data", "test", "--dataset", "geom", "--runs", "2"], "--runs is of a run"),
        (["--data", "test", "--dataset", "geom", "--n_molecules", "0"], "--n_molecules must be a whole number from 1"),
        (["outputs/run", "--dataset", "geom"], "--dataset goes with --data"),
        (["outputs/run", "--n_molecules", "5"], "--n_molecules goes with --data"),
    ],
)
def test_wrong_options_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate(*arguments)
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    assert message in printed[0]
