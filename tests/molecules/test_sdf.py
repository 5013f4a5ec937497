"""SDF files, read back by RDKit."""

from __future__ import annotations

import os

import numpy as np
import pytest
from molecules import MOLECULES
from rdkit import Chem

from symdiff_plugin.evaluate.metrics import Verdict
from symdiff_plugin.molecules.bonds import bonded_pairs
from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.sdf import write_sdf

REAL = [Molecule(tuple(m["symbols"]), np.array(m["positions"])) for m in MOLECULES]


def single_bonds(molecule: Molecule) -> np.ndarray:
    pairs = bonded_pairs(molecule)
    return np.column_stack([pairs, np.ones(len(pairs), dtype=int)])


def verdict(molecule: Molecule, smiles: str | None = None) -> Verdict:
    finite = molecule.is_finite
    return Verdict(len(molecule), smiles is not None, smiles, 1, finite, bonds=single_bonds(molecule))


def read(path) -> list[Chem.Mol]:
    return list(Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False))


def test_atoms_bonds_coordinates_and_properties_are_read_back(tmp_path):
    verdicts = [verdict(m, record["smiles"]) for m, record in zip(REAL, MOLECULES, strict=True)]
    assert write_sdf(tmp_path / "new" / "all.sdf", REAL, verdicts) == 0
    found = read(tmp_path / "new" / "all.sdf")
    assert len(found) == len(REAL) > 10
    for index, (mol, molecule, one) in enumerate(zip(found, REAL, verdicts, strict=True)):
        assert tuple(atom.GetSymbol() for atom in mol.GetAtoms()) == molecule.symbols
        np.testing.assert_allclose(mol.GetConformer().GetPositions(), molecule.positions, atol=5.01e-5)
        bonds = {(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), int(b.GetBondTypeAsDouble())) for b in mol.GetBonds()}
        assert bonds == set(map(tuple, one.bonds.tolist()))
        assert mol.GetProp("_Name") == str(index)
        assert (mol.GetProp("verdict"), mol.GetProp("SMILES")) == ("stable", MOLECULES[index]["smiles"])


def test_every_order_of_bond_gives_back_the_molecule(tmp_path):
    """Hydrogen cyanide and formaldehyde, whose SMILES RDKit then writes."""
    cyanide = Molecule(("H", "C", "N"), np.array([[-1.07, 0, 0], [0, 0, 0], [1.16, 0, 0]]))
    aldehyde = Molecule(("C", "O", "H", "H"), np.array([[0, 0, 0], [0, 1.2, 0], [0.94, -0.5, 0], [-0.94, -0.5, 0]]))
    bonds = [np.array([[1, 0, 1], [2, 1, 3]]), np.array([[1, 0, 2], [2, 0, 1], [3, 0, 1]])]
    write_sdf(tmp_path / "m.sdf", [cyanide, aldehyde], [Verdict(0, False, None, 1, True, b) for b in bonds])
    found = [Chem.MolToSmiles(mol) for mol in Chem.SDMolSupplier(str(tmp_path / "m.sdf"))]
    assert found == ["C#N", "C=O"]


def test_what_rdkit_cannot_sanitise_is_written_and_what_is_not_finite_is_counted(tmp_path, capfd):
    random = np.random.RandomState(0)
    crowded = Molecule(("C", *"HHHHH"), random.randn(6, 3))
    star = np.array([[i, 0, 1] for i in range(1, 6)])
    nowhere = Molecule(("C", "H"), np.array([[0, 0, np.nan], [1, 1, 1]]))
    far = Molecule(("O", "H"), np.array([[0.5, -2.5e7, 1.0], [0, 0, 1e5]]))
    molecules = [nowhere, crowded, far, nowhere]
    verdicts = [verdict(nowhere), Verdict(0, False, None, 1, True, star), verdict(far), verdict(nowhere)]
    assert write_sdf(tmp_path / "m.sdf", molecules, verdicts) == 2
    found = read(tmp_path / "m.sdf")
    assert [mol.GetProp("_Name") for mol in found] == ["1", "2"]
    np.testing.assert_allclose(found[0].GetConformer().GetPositions(), crowded.positions, atol=5.01e-5)
    np.testing.assert_allclose(found[1].GetConformer().GetPositions(), far.positions, rtol=1e-6, atol=1e-6)
    assert found[0].GetNumBonds() == 5
    assert not found[0].HasProp("SMILES")
    with pytest.raises(Chem.AtomValenceException):
        Chem.SanitizeMol(found[0])  # so that the case is the one meant


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_sdf(tmp_path / "m.sdf", REAL[:1], [verdict(REAL[0])])
    before = (tmp_path / "m.sdf").read_bytes()
    impossible = Molecule(("Qq",), np.zeros((1, 3)))
    with pytest.raises(RuntimeError, match="Qq"):
        write_sdf(tmp_path / "m.sdf", [REAL[1], impossible], [verdict(REAL[1]), Verdict(0, False, None, 1, True)])
    with pytest.raises(ValueError, match="shorter"):
        write_sdf(tmp_path / "m.sdf", REAL[:2], [verdict(REAL[0])])
    assert (tmp_path / "m.sdf").read_bytes() == before
    assert os.listdir(tmp_path) == ["m.sdf"]


def test_more_atoms_than_the_old_format_holds(tmp_path):
    positions = np.stack([1.2 * np.arange(1200), np.zeros(1200), np.zeros(1200)], axis=1)
    chain = np.stack([np.arange(1, 1200), np.arange(1199), np.ones(1199, dtype=int)], axis=1)
    long = Molecule(("C",) * 1200, positions)
    assert (
        write_sdf(tmp_path / "m.sdf", [long, REAL[0]], [Verdict(0, False, None, 1, True, chain), verdict(REAL[0])]) == 0
    )
    first, second = read(tmp_path / "m.sdf")
    assert (first.GetNumAtoms(), first.GetNumBonds(), second.GetNumAtoms()) == (1200, 1199, len(REAL[0]))
    np.testing.assert_allclose(first.GetConformer().GetPositions(), positions, atol=5.01e-5)


def test_a_tetrahedron_of_one_hand_stays_as_it_is(tmp_path):
    """Nothing is said of its chirality, which the coordinates have: a reader takes it from them."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    molecule = Molecule(("C", "F", "Cl", "Br", "H"), np.vstack([np.zeros((1, 3)), corners]))
    star = np.array([[i, 0, 1] for i in range(1, 5)])
    mirrored = Molecule(molecule.symbols, -molecule.positions)
    write_sdf(tmp_path / "m.sdf", [molecule, mirrored], [Verdict(0, False, None, 1, True, star)] * 2)
    hands = {Chem.MolToSmiles(mol) for mol in Chem.SDMolSupplier(str(tmp_path / "m.sdf"))}
    assert hands == {"F[C@H](Cl)Br", "F[C@@H](Cl)Br"}
