"""What RDKit makes of coordinates: real molecules of QM9 and spoilt ones, their SMILES and SDF."""

from __future__ import annotations

import numpy as np
import pytest
from molecules import MOLECULES
from rdkit import Chem

from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.perception import perceive, perceived_fractions, write_perceived

REAL = [Molecule(tuple(m["symbols"]), np.array(m["positions"])) for m in MOLECULES]
NOWHERE = Molecule(REAL[6].symbols, np.nan * REAL[6].positions)


def test_real_molecules_have_their_smiles_and_spoilt_ones_none():
    for molecule, record in zip(REAL, MOLECULES, strict=True):
        assert perceive(molecule).smiles == Chem.CanonSmiles(record["smiles"], useChiral=0)
        assert perceive(molecule).words == "valid"
        assert perceive(Molecule(molecule.symbols, 3 * molecule.positions)).words == "in pieces"
        without_an_atom = Molecule(molecule.symbols[:-1], molecule.positions[:-1])  # an H: a radical is left
        assert perceive(without_an_atom).smiles is None


def test_fractions_count_each_molecule_once():
    perceived = [perceive(molecule) for molecule in (REAL[4], REAL[4], REAL[5], NOWHERE)]
    wanted = {"validity": 0.75, "uniqueness": pytest.approx(2 / 3), "connected": 0.75, "non_finite": 0.25}
    assert perceived_fractions(perceived) == wanted
    assert perceived[3].words == "not finite"
    alone = perceive(Molecule(("C",), np.full((1, 3), np.inf)))  # in one piece, and no connected molecule
    assert perceived_fractions([alone]) == {"validity": 0, "uniqueness": 0, "connected": 0, "non_finite": 1}
    with pytest.raises(ValueError, match="no molecules"):
        perceived_fractions([])


def test_an_sdf_file_gives_the_molecules_back(tmp_path):
    radical = Molecule(REAL[4].symbols[:-1], REAL[4].positions[:-1])
    far = Molecule(REAL[4].symbols, 1e5 * REAL[4].positions)
    given = [*REAL, NOWHERE, radical, far]
    perceived = [perceive(molecule) for molecule in given]
    path = tmp_path / "molecules.sdf"
    assert write_perceived(path, perceived) == len(REAL) + 2
    read = list(Chem.SDMolSupplier(str(path), removeHs=False, sanitize=False))
    assert [int(mol.GetProp("_Name")) for mol in read] == [*range(len(REAL)), len(REAL) + 1, len(REAL) + 2]
    kinds = {bond.GetBondType() for mol in read for bond in mol.GetBonds()}
    assert kinds == {Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE}  # aromatic ones spelled out
    assert any(bond.GetIsAromatic() for one in perceived for bond in one.mol.GetBonds())
    for mol, molecule in zip(read, [*REAL, radical, far], strict=True):
        assert [atom.GetSymbol() for atom in mol.GetAtoms()] == list(molecule.symbols)
        np.testing.assert_allclose(mol.GetConformer().GetPositions(), molecule.positions, atol=1e-4)
    assert [mol.GetProp("verdict") for mol in read[-2:]] == ["not valid", "in pieces"]
    for mol, record in zip(Chem.SDMolSupplier(str(path)), MOLECULES, strict=False):  # sanitised: bond orders are right
        smiles = Chem.MolToSmiles(mol, isomericSmiles=False)
        assert smiles == mol.GetProp("SMILES") == Chem.CanonSmiles(record["smiles"], useChiral=0)


def test_what_is_not_valid_keeps_single_bonds_and_says_nothing(capfd):
    radical = Molecule(REAL[4].symbols[:-1], REAL[4].positions[:-1])
    helium = Molecule(("He", "H"), np.array([[0.0, 0, 0], [0.7, 0, 0]]))  # an impossible valence
    for molecule in (radical, helium, NOWHERE):
        found = perceive(molecule)
        assert found.smiles is None
        assert {bond.GetBondType() for bond in found.mol.GetBonds()} <= {Chem.BondType.SINGLE}
    assert len(perceive(radical).mol.GetBonds()) > 0
    assert perceived_fractions([perceive(radical)])["uniqueness"] == 0
    assert tuple(capfd.readouterr()) == ("", "")


def test_valid_molecules_are_sanitised_and_final():
    for molecule in REAL:
        mol = perceive(molecule).mol
        assert type(mol) is Chem.Mol
        assert all(atom.GetNumRadicalElectrons() == 0 for atom in mol.GetAtoms())
        assert mol.GetRingInfo().NumRings() >= 0  # raises where it was not sanitised


def test_what_is_lost_or_in_pieces_has_no_smiles():
    atom = perceive(Molecule(("H",), np.full((1, 3), np.nan)))  # in one piece
    assert (atom.smiles, atom.finite, atom.pieces, atom.words) == (None, False, 1, "not finite")
    pair = np.array([[0.0, 0, 0], [0.7, 0, 0]])
    two = perceive(Molecule(("H",) * 4, np.concatenate([pair, pair + 9])))  # each of them valid
    assert (two.smiles, two.finite, two.pieces, two.words) == (None, True, 2, "in pieces")
    one = perceive(Molecule(("H", "H"), pair))
    assert perceived_fractions([one]) == {"connected": 1, "validity": 1, "uniqueness": 1, "non_finite": 0}
