"""Stability and validity, all pairs at once, against EDM's own loops over pairs of atoms."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from geom_data import drugs
from molecules import MOLECULES
from rdkit import rdBase

from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate import metrics
from symdiff_plugin.evaluate.metrics import judge
from symdiff_plugin.molecules.edm_rules import Rules, rules_of
from symdiff_plugin.molecules.molecule import Molecule

pytestmark = pytest.mark.edm


@pytest.fixture(scope="module")
def dataset_info(edm_path: Path) -> dict:
    return import_edm("configs.datasets_config").get_dataset_info("geom", False)


def molecules(dataset_info: dict, kind: str) -> list[Molecule]:
    """Drug-like molecules in float32 as samples are, with what is wrong with them; or random ones of all types."""
    symbols = dict(zip(dataset_info["atomic_nb"], dataset_info["atom_decoder"], strict=True))
    real = [
        Molecule(tuple(symbols[int(n)] for n in drug.numbers), (drug.positions[0] - 5).astype(np.float32))
        for drug in drugs(12, n_conformers=1)
    ]
    random = np.random.RandomState(0)
    if kind == "random":  # every pair of the sixteen types, at all lengths at which a table has an entry
        return [
            Molecule(
                tuple(random.choice(dataset_info["atom_decoder"], n)), (1.1 * random.randn(n, 3)).astype(np.float32)
            )
            for n in random.randint(2, 40, size=60)
        ]
    change = {
        "real": lambda m: m.positions,
        "float64": lambda m: m.positions.astype(np.float64),
        "noisy": lambda m: (m.positions + 0.05 * random.randn(*m.positions.shape)).astype(np.float32),
        "reversed": lambda m: m.positions,
        "shattered": lambda m: 20 * m.positions,
        "nan": lambda m: np.where(np.arange(len(m))[:, None] % 3 == 0, np.float32("nan"), m.positions),
    }[kind]
    found = [Molecule(m.symbols, change(m)) for m in real]
    return [Molecule(m.symbols[::-1], m.positions[::-1].copy()) for m in found] if kind == "reversed" else found


def edms_own(molecule: Molecule, dataset_info: dict) -> tuple[int, bool, str | None]:
    """Stable atoms, whether all are, and SMILES of the largest fragment."""
    kinds = np.array([dataset_info["atom_encoder"][symbol] for symbol in molecule.symbols])
    stable, stable_atoms, _ = import_edm("qm9.analyze").check_stability(molecule.positions, kinds, dataset_info)
    rdkit = import_edm("qm9.rdkit_functions").BasicMolecularMetrics(dataset_info, dataset_smiles_list=[])
    valid, _ = rdkit.compute_validity([(torch.from_numpy(molecule.positions), torch.from_numpy(kinds))])
    return int(stable_atoms), bool(stable), valid[0] if valid else None


def found_by_us(given: list[Molecule], dataset_info: dict) -> list[tuple[int, bool, str | None]]:
    return [(v.stable_atoms, v.stable, v.smiles) for v in judge(given, dataset_info)]


@pytest.mark.parametrize("kind", ["real", "float64", "noisy", "reversed", "shattered", "nan", "random"])
def test_each_molecule_is_judged_as_by_edm(kind: str, dataset_info: dict) -> None:
    given = molecules(dataset_info, kind)
    with rdBase.BlockLogs(), np.errstate(invalid="ignore"):
        wanted = [edms_own(molecule, dataset_info) for molecule in given]
    assert found_by_us(given, dataset_info) == wanted
    if kind == "real":
        fraction = sum(stable for stable, _, _ in wanted) / sum(map(len, given))
        assert 0.7 < fraction < 1  # as of GEOM-Drugs itself, 0.865: both verdicts occur
        assert 0 < sum(stable for _, stable, _ in wanted) < len(wanted)


def test_pairs_are_looked_up_in_the_order_of_their_types(dataset_info: dict) -> None:
    """EDM has a double bond of C with S, and none of S with C; it asks for the first whichever comes first."""
    thioformaldehyde = np.array([[0, 0, 0], [1.61, 0, 0], [-0.55, 0.93, 0], [-0.55, -0.93, 0]], dtype=np.float32)
    for order in ([0, 1, 2, 3], [1, 0, 2, 3]):
        molecule = Molecule(tuple(np.array(["C", "S", "H", "H"])[order]), thioformaldehyde[order])
        assert edms_own(molecule, dataset_info)[0] == 3  # carbon and hydrogens; EDM wants four bonds of sulfur
        assert found_by_us([molecule], dataset_info) == [edms_own(molecule, dataset_info)]


@pytest.mark.parametrize("fault", ["margin", "valence"])
def test_a_wrong_table_is_seen(fault: str, dataset_info: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    rules: Rules = rules_of(dataset_info)
    if fault == "margin":
        rules = dataclasses.replace(rules, thresholds=rules.thresholds - 4)
    else:
        allowed = rules.allowed.copy()
        allowed[dataset_info["atom_encoder"]["N"], 4] = True
        rules = dataclasses.replace(rules, allowed=allowed)
    monkeypatch.setattr(metrics, "rules_of", lambda info: rules)
    given = molecules(dataset_info, "random") + molecules(dataset_info, "noisy")
    with rdBase.BlockLogs():
        assert found_by_us(given, dataset_info) != [edms_own(molecule, dataset_info) for molecule in given]


@pytest.fixture(scope="module")
def qm9_info(edm_path: Path) -> dict:
    return import_edm("configs.datasets_config").get_dataset_info("qm9", False)


def test_real_molecules_of_qm9_and_their_bonds(qm9_info: dict) -> None:
    """Bonds of every order, as the SMILES have them; in float32 as samples are, and in float64."""
    orders = set()
    for record in MOLECULES:
        for dtype in (np.float32, np.float64):
            molecule = Molecule(tuple(record["symbols"]), np.array(record["positions"], dtype=dtype))
            (found,) = judge([molecule], qm9_info)
            assert (found.stable_atoms, found.stable, found.smiles) == edms_own(molecule, qm9_info)
            assert (found.pieces, found.bonds.dtype) == (1, np.int16)
            assert (found.bonds[:, 0] > found.bonds[:, 1]).all()
            assert found.bonds[:, :2].tolist() == sorted(found.bonds[:, :2].tolist())
            orders |= set(found.bonds[:, 2].tolist())
    assert orders == {1, 2, 3}


def test_a_bond_at_its_very_threshold_is_none(qm9_info: dict) -> None:
    rules = rules_of(qm9_info)
    h = np.array([qm9_info["atom_encoder"]["H"]] * 2)
    limit = float(rules.thresholds[0, h[0], h[0]])
    for length, bonded in ((limit, False), (limit - 1e-9, True)):
        positions = np.array([[0.0, 0, 0], [length / 100, 0, 0]])
        assert 100 * positions[1, 0] == length  # nothing is rounded here
        assert rules.stable_atoms(positions, h).tolist() == [bonded, bonded]
        assert rules.bonds(torch.from_numpy(positions), h).tolist() == ([[1, 0, 1]] if bonded else [])
        (found,) = judge([Molecule(("H", "H"), positions)], qm9_info)
        assert (found.stable_atoms, found.stable, found.smiles) == edms_own(Molecule(("H", "H"), positions), qm9_info)


@pytest.mark.parametrize(("decoder", "known"), [(["C", "S"], True), (["S", "C"], False), (["C", "H", "S"], True)])
def test_a_pairs_thresholds_are_those_of_its_lower_type_first(decoder: list[str], known: bool, edm_path: Path) -> None:
    thresholds = rules_of({"atom_decoder": decoder, "name": "geom"}).thresholds
    assert np.array_equal(thresholds, thresholds.swapaxes(1, 2))
    assert np.isfinite(thresholds[1, decoder.index("C"), decoder.index("S")]) == known


def test_a_double_bond_is_a_single_one_first(qm9_info: dict) -> None:
    """As in EDM, which asks for the next order only below the last; its tables happen to fall from order to order."""
    thresholds = np.array([1.0, 200.0, 300.0])[:, None, None] * np.ones((1, 5, 5))
    rules = dataclasses.replace(rules_of(qm9_info), thresholds=thresholds)
    positions, carbons = np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([1, 1])
    no_bonds = dataclasses.replace(rules, allowed=np.array([[True, False]] * 5))
    assert no_bonds.stable_atoms(positions, carbons).all()
    assert len(rules.bonds(torch.from_numpy(positions), carbons)) == 0


def test_what_has_no_atoms_has_an_empty_name(qm9_info: dict) -> None:
    rules = rules_of(qm9_info)
    assert rules.smiles(np.zeros(0, dtype=int), np.zeros((0, 3), dtype=int)) == ""
    assert rules.stable_atoms(np.zeros((1, 3)), np.array([0])).dtype == bool


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e30])
def test_a_diverged_molecule_is_judged_without_a_word(value: float, dataset_info: dict, capfd, recwarn) -> None:
    spoilt = [Molecule(m.symbols, m.positions.copy()) for m in molecules(dataset_info, "real")[:2]]
    for molecule in spoilt:
        molecule.positions[:4] = np.float32(value)
        molecule.positions[:2, 1] *= -1
    capfd.readouterr()
    verdicts = list(metrics.verdicts_of(spoilt, dataset_info))
    assert tuple(capfd.readouterr()) == ("", "")
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]
    assert judge(spoilt, dataset_info) == verdicts
    if not np.isfinite(value):  # nothing is bonded to anything
        assert [verdict.pieces for verdict in verdicts] == [len(molecule) for molecule in spoilt]
    for verdict in verdicts:
        assert (type(verdict.stable_atoms), type(verdict.stable)) == (int, bool)
        assert not verdict.stable
        assert verdict.finite == (abs(value) == 1e30)
