"""The metrics of molecules against EDM's own analysis of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edm_analysis import edms_own

from symdiff_plugin.data import load_split
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.metrics import judge, summarise
from symdiff_plugin.evaluate.novelty import training_smiles
from symdiff_plugin.molecules.molecule import Molecule, from_padded

pytestmark = pytest.mark.edm


@pytest.fixture(scope="module")
def dataset_info(edm_path: Path, qm9_slice: Path) -> dict:
    return {**import_edm("configs.datasets_config").get_dataset_info("qm9", False), "datadir": str(qm9_slice)}


@pytest.fixture(scope="module")
def real(dataset_info, qm9_slice: Path) -> list[Molecule]:
    """The first 60 molecules of the slice's test split."""
    arrays = {name: values[:60] for name, values in load_split(qm9_slice, "test").items()}
    types = np.searchsorted([0, 1, 6, 7, 8, 9], arrays["charges"]) - 1
    return from_padded(arrays["positions"], types, arrays["charges"], dataset_info["atom_decoder"])


def spoilt(molecules: list[Molecule], kind: str) -> list[Molecule]:
    random = np.random.RandomState(0)
    if kind == "real":
        return molecules
    if kind == "shattered":
        return [Molecule(m.symbols, 20 * m.positions) for m in molecules]
    if kind == "nan":
        return [Molecule(m.symbols, np.full_like(m.positions, np.nan)) for m in molecules]
    if kind == "one inf":  # the others are real, and what they are bonded to is stable
        return [Molecule(m.symbols, np.where(np.arange(m.positions.size) == 4, np.inf, m.positions.ravel())
                         .reshape(-1, 3).astype(np.float32)) for m in molecules]  # fmt: skip
    scale = random.choice([0.03, 0.1], size=len(molecules))  # some stay stable, some do not
    return [
        Molecule(m.symbols, (m.positions + s * random.randn(*m.positions.shape)).astype(np.float32))
        for m, s in zip(molecules, scale, strict=True)
    ]


@pytest.mark.parametrize("kind", ["real", "noisy", "shattered", "nan", "one inf"])
def test_the_metrics_are_those_of_edms_own_analysis(kind, real, dataset_info):
    molecules = spoilt(real, kind)
    verdicts = judge(molecules, dataset_info)
    found = summarise(molecules, verdicts, training_smiles(dataset_info))
    wanted = edms_own(molecules, dataset_info)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
    if kind == "real":
        assert found["molecule_stability"] > 0.85
        assert found["connected"] == 1
    elif kind == "noisy":
        assert 0.05 < found["molecule_stability"] < 0.95  # or the comparison would say little
    elif kind == "shattered":  # what EDM's validity hides
        assert found["validity"] == 1
        assert found["connected"] == found["valid_connected"] == found["non_finite"] == 0
    else:  # nothing is said of such molecules but how many they are
        assert found.pop("non_finite") == 1
        assert set(found.values()) == {0}


def test_a_molecule_without_finite_coordinates_counts_as_nothing(real, dataset_info):
    """Among real ones: each metric is that of these, over all; a single atom is one piece, but not connected."""
    alone = Molecule(("F",), np.full((1, 3), np.nan, dtype=np.float32))
    given = [*real[:20], *spoilt(real[20:28], "nan"), *spoilt(real[28:36], "one inf"), alone]
    verdicts = judge(given, dataset_info)
    assert [verdict.words for verdict in verdicts[20:]] == 17 * ["not finite"]
    found, good = summarise(given, verdicts, {"C"}), summarise(real[:20], verdicts[:20], {"C"})
    share = 20 / len(given)
    for name in ("molecule_stability", "validity", "connected", "valid_connected", "validity_x_uniqueness"):
        assert found[name] == pytest.approx(share * good[name])
    atoms = sum(map(len, real[:20])) / sum(map(len, given))
    assert found["atom_stability"] == pytest.approx(atoms * good["atom_stability"])
    assert (found["uniqueness"], found["novelty"]) == (good["uniqueness"], good["novelty"])
    assert found["non_finite"] == pytest.approx(1 - share)


@pytest.mark.parametrize("dataset", ["qm9", "geom"])
def test_the_bonds_are_those_of_the_molecule_that_edm_builds(dataset, real, edm_path):
    """In GEOM-Drugs these are single bonds all."""
    info = import_edm("configs.datasets_config").get_dataset_info(dataset, False)
    build = import_edm("qm9.rdkit_functions").build_molecule
    orders = set()
    for molecule in spoilt(real[:20], "noisy"):
        kinds = torch.tensor([info["atom_decoder"].index(symbol) for symbol in molecule.symbols])
        mol = build(torch.from_numpy(molecule.positions), kinds, info)
        wanted = {(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), int(b.GetBondTypeAsDouble())) for b in mol.GetBonds()}
        found = set(map(tuple, judge([molecule], info)[0].bonds.tolist()))
        assert found == wanted
        orders |= {order for _, _, order in found}
    assert orders == ({1} if dataset == "geom" else {1, 2, 3})


def test_molecules_of_the_training_set_are_not_novel(dataset_info, qm9_slice):
    arrays = {name: values[:30] for name, values in load_split(qm9_slice, "train").items()}
    types = np.searchsorted([0, 1, 6, 7, 8, 9], arrays["charges"]) - 1
    molecules = from_padded(arrays["positions"], types, arrays["charges"], dataset_info["atom_decoder"])
    found = summarise(molecules, judge(molecules, dataset_info), training_smiles(dataset_info))
    assert found["novelty"] == 0
