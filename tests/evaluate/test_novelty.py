"""The SMILES of the training set are EDM's, read from the run's own data and kept beside them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from symdiff_plugin.data import load_split
from symdiff_plugin.data.schema import CHARGES
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate import novelty

pytestmark = pytest.mark.edm


@pytest.fixture(scope="module")
def arrays(qm9_thousand: Path) -> dict[str, np.ndarray]:
    train = load_split(qm9_thousand, "train")
    return {key: train[key] for key in ("num_atoms", "charges", "positions")}


@pytest.fixture(scope="module")
def infos(edm_path: Path) -> dict[str, dict]:
    config = import_edm("configs.datasets_config")
    return {"qm9": dict(config.qm9_with_h), "qm9_noH": dict(config.qm9_without_h)}


@pytest.mark.parametrize(("name", "noise"), [("qm9", 0.0), ("qm9_noH", 0.0), ("qm9_noH", 0.1)])
def test_the_smiles_are_edms(arrays: dict[str, np.ndarray], infos: dict[str, dict], name: str, noise: float) -> None:
    """Over 2,000 molecules; with noise, bonds of every order lie on both sides of their thresholds."""
    rdkit_functions = import_edm("qm9.rdkit_functions")
    decoder = infos[name]["atom_decoder"]
    generator = torch.Generator().manual_seed(0)
    molecules = [
        (charges, positions + noise * torch.randn(positions.shape, generator=generator))
        for charges, positions in novelty.select(arrays, name)
    ]
    assert len(molecules) == 1300
    types = {CHARGES[symbol]: index for index, symbol in enumerate(decoder)}
    expected = [
        rdkit_functions.mol2smiles(
            rdkit_functions.build_molecule(positions, torch.tensor([types[int(z)] for z in charges]), infos[name])
        )
        for charges, positions in molecules
    ]
    found = list(novelty.smiles_of(molecules, decoder))
    assert found == expected
    assert len(set(found)) > 200
    if noise or name == "qm9_noH":
        assert None in found  # those that RDKit refuses are told apart


@pytest.mark.parametrize("without_h", [False, True])
@pytest.mark.parametrize("dataset", ["qm9", "qm9_first_half", "qm9_second_half"])
def test_the_molecules_are_those_edm_trains_on(
    qm9_slice: Path, infos: dict[str, dict], dataset: str, without_h: bool
) -> None:
    args = import_edm("qm9.data.args").init_argparse("qm9")
    _, datasets, _, _ = import_edm("qm9.data.utils").initialize_datasets(
        args, str(qm9_slice), dataset, remove_h=without_h
    )
    expected = datasets["train"].data
    train = load_split(qm9_slice, "train")
    molecules = novelty.select(train, dataset + ("_noH" if without_h else ""))
    assert [len(charges) for charges, _ in molecules] == expected["num_atoms"].tolist()
    for row, (charges, positions) in enumerate(molecules):
        assert np.array_equal(charges, expected["charges"][row, : len(charges)].numpy())
        assert torch.equal(positions, expected["positions"][row, : len(charges)])


@pytest.fixture
def info(qm9_slice: Path, infos: dict[str, dict], tmp_path: Path) -> dict:
    (tmp_path / "qm9").mkdir()
    (tmp_path / "qm9/train.npz").write_bytes((qm9_slice / "qm9/train.npz").read_bytes())
    return {**infos["qm9"], "datadir": str(tmp_path)}


def test_they_are_kept_by_content_and_draw_no_random_numbers(info: dict) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = novelty.training_smiles(info)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    (cache,) = Path(info["datadir"], "qm9").glob("smiles_*.json")
    record = json.loads(cache.read_text())
    assert record["molecules"] == 240
    assert set(record["smiles"]) == found

    # The cache is what is read next, and another training set does not meet it.
    cache.write_text(json.dumps({**record, "smiles": ["X"]}))
    novelty._smiles_of.cache_clear()
    assert novelty.training_smiles(info) == {"X"}
    path = Path(info["datadir"], "qm9/train.npz")
    with np.load(path) as file:
        shorter = {key: values[:100] for key, values in file.items()}
    np.savez_compressed(path, **shorter)
    again = novelty.training_smiles(info)
    assert "X" not in again
    assert again < found


def test_a_damaged_cache_is_made_again(info: dict) -> None:
    found = novelty.training_smiles(info)
    (cache,) = Path(info["datadir"], "qm9").glob("smiles_*.json")
    cache.write_text(cache.read_text()[:200])
    novelty._smiles_of.cache_clear()
    assert novelty.training_smiles(info) == found
    assert set(json.loads(cache.read_text())["smiles"]) == found


def test_a_model_without_hydrogens_has_smiles_of_its_own(info: dict, infos: dict[str, dict]) -> None:
    without = {**infos["qm9_noH"], "datadir": info["datadir"]}
    train = load_split(Path(info["datadir"]), "train")
    wanted = set(novelty.smiles_of(novelty.select(train, "qm9_noH"), without["atom_decoder"])) - {None}
    assert novelty.training_smiles(without) == wanted != novelty.training_smiles(info)
    assert len(list(Path(info["datadir"], "qm9").glob("smiles_qm9_noH_*.json"))) == 1
    assert len(list(Path(info["datadir"], "qm9").glob("smiles_qm9_*.json"))) == 2


def test_nothing_is_unpickled(info: dict) -> None:
    path = Path(info["datadir"], "qm9/train.npz")
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "charges": np.array([None, "run me"], dtype=object)})
    with pytest.raises(ValueError, match="never unpickled"):
        novelty.training_smiles(info)
