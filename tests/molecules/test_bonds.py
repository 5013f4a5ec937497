"""Bonds by distance, against the graphs that QM9's SMILES describe."""

from __future__ import annotations

import numpy as np
import pytest
from molecules import MOLECULES
from rdkit import Chem

from symdiff_plugin.molecules.bonds import bonded_pairs, count_pieces, covalent_radius
from symdiff_plugin.molecules.molecule import Molecule

REAL = [Molecule(tuple(m["symbols"]), np.array(m["positions"])) for m in MOLECULES]


def skeleton(graph: Chem.Mol) -> str:
    """A canonical name of a graph of elements, whatever the order of atoms and of bonds."""
    bare = Chem.RWMol()
    for atom in graph.GetAtoms():
        new = Chem.Atom(atom.GetSymbol())
        new.SetNoImplicit(True)
        bare.AddAtom(new)
    for bond in graph.GetBonds():
        bare.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    return Chem.MolToSmiles(bare)


def graph_of(molecule: Molecule, tolerance: float) -> Chem.Mol:
    graph = Chem.RWMol()
    for symbol in molecule.symbols:
        graph.AddAtom(Chem.Atom(symbol))
    for i, j in bonded_pairs(molecule, tolerance):
        graph.AddBond(int(i), int(j), Chem.BondType.SINGLE)
    return graph


@pytest.mark.parametrize("number", range(len(MOLECULES)), ids=[m["smiles"] for m in MOLECULES])
def test_bonds_are_those_of_the_smiles(number):
    molecule, record = REAL[number], MOLECULES[number]
    wanted = skeleton(Chem.AddHs(Chem.MolFromSmiles(record["smiles"])))
    assert skeleton(graph_of(molecule, 1.15)) == wanted
    assert count_pieces(len(molecule), bonded_pairs(molecule)) == 1


def test_a_wrong_tolerance_finds_other_bonds():
    wanted = [skeleton(Chem.AddHs(Chem.MolFromSmiles(m["smiles"]))) for m in MOLECULES]
    for tolerance in (0.95, 1.6):
        assert [skeleton(graph_of(m, tolerance)) for m in REAL] != wanted


def test_bonds_do_not_depend_on_the_order_or_place_of_the_atoms():
    molecule, order = REAL[-1], np.random.RandomState(0).permutation(len(REAL[-1]))
    moved = Molecule(tuple(molecule.symbols[i] for i in order), molecule.positions[order] @ np.diag([1, -1, 1]) + 7)
    found = {frozenset((int(order[i]), int(order[j]))) for i, j in bonded_pairs(moved)}
    assert found == {frozenset((int(i), int(j))) for i, j in bonded_pairs(molecule)}


def test_a_shattered_molecule_is_in_pieces():
    for molecule in REAL:
        apart = Molecule(molecule.symbols, 5 * molecule.positions)
        assert count_pieces(len(apart), bonded_pairs(apart)) == len(molecule)
    twice = Molecule(2 * REAL[-1].symbols, np.concatenate([REAL[-1].positions, REAL[-1].positions + 40.0]))
    assert count_pieces(len(twice), bonded_pairs(twice)) == 2
    assert count_pieces(len(twice), np.insert(bonded_pairs(twice), 2, 1, axis=1)) == 2  # with the orders, as EDM's


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_atom_nowhere_has_no_bonds(value):
    positions = REAL[5].positions.copy()
    positions[0] = value
    pairs = bonded_pairs(Molecule(REAL[5].symbols, positions))
    assert 0 not in pairs
    assert len(pairs) > 0
    assert count_pieces(len(positions), pairs) > 1
    everywhere = bonded_pairs(Molecule(REAL[5].symbols, np.full_like(positions, value)))
    assert everywhere.shape == (0, 2)


def test_the_smallest_molecules():
    assert type(count_pieces(1, np.zeros((0, 2), dtype=int))) is int
    assert count_pieces(1, np.zeros((0, 2), dtype=int)) == 1
    assert count_pieces(0, np.zeros((0, 2), dtype=int)) == 0
    assert bonded_pairs(Molecule(("H",), np.zeros((1, 3)))).shape == (0, 2)


def test_an_unknown_element_is_named():
    assert covalent_radius("C") == pytest.approx(0.76, abs=0.02)
    with pytest.raises(ValueError, match="no element is called 'Xx'"):
        covalent_radius("Xx")


def test_a_pair_at_the_very_limit_has_no_bond():
    limit = 1.15 * (covalent_radius("H") + covalent_radius("H"))
    for length, count in ((limit, 0), (np.nextafter(limit, 0), 1)):
        pair = Molecule(("H", "H"), np.array([[0.0, 0, 0], [length, 0, 0]]))
        assert len(bonded_pairs(pair)) == count
