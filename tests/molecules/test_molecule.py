"""XYZ files and sum formulas."""

from __future__ import annotations

import os

import numpy as np
import pytest
from molecules import MOLECULES
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from symdiff_plugin.molecules.molecule import Molecule, from_padded, read_xyz, write_xyz


def real_molecules() -> list[Molecule]:
    return [Molecule(tuple(m["symbols"]), np.array(m["positions"])) for m in MOLECULES]


def test_xyz_round_trip_keeps_symbols_coordinates_and_comments(tmp_path):
    written = real_molecules()
    write_xyz(tmp_path / "new" / "all.xyz", written, [m["smiles"] for m in MOLECULES])
    read, comments = read_xyz(tmp_path / "new" / "all.xyz")
    assert comments == [m["smiles"] for m in MOLECULES]
    assert [m.symbols for m in read] == [m.symbols for m in written]
    for before, after in zip(written, read, strict=True):
        np.testing.assert_allclose(after.positions, before.positions, atol=1e-9)


def test_rdkit_reads_the_same_coordinates(tmp_path):
    molecule = real_molecules()[10]
    write_xyz(tmp_path / "one.xyz", [molecule])
    other = Chem.MolFromXYZFile(str(tmp_path / "one.xyz"))
    assert tuple(atom.GetSymbol() for atom in other.GetAtoms()) == molecule.symbols
    np.testing.assert_allclose(other.GetConformer().GetPositions(), molecule.positions, atol=1e-6)


def test_coordinates_that_are_not_finite_survive(tmp_path):
    broken = Molecule(("C", "H"), np.array([[np.nan, 0.0, 1.0], [np.inf, -np.inf, 2.0]]))
    assert not broken.is_finite
    write_xyz(tmp_path / "broken.xyz", [broken])
    np.testing.assert_array_equal(read_xyz(tmp_path / "broken.xyz")[0][0].positions, broken.positions)


def test_a_comment_cannot_break_the_frame(tmp_path):
    write_xyz(tmp_path / "m.xyz", real_molecules()[:2], ["two\nlines", ""])
    assert read_xyz(tmp_path / "m.xyz")[1] == ["two lines", ""]


@pytest.mark.parametrize(
    "text", ["3\ncut short\nH 0 0 0\n", "many\n\nH 0 0 0\n", "1\nno coordinates\nH 0 0\n", "1\nword\nH 0 0 x\n", "-1\n"]
)
def test_what_is_not_xyz_is_refused_by_name(tmp_path, text):
    (tmp_path / "bad.xyz").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.xyz: the frame at line 1 "):
        read_xyz(tmp_path / "bad.xyz")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_xyz(tmp_path / "m.xyz", real_molecules()[:1])
    before = (tmp_path / "m.xyz").read_bytes()
    bad = Molecule(("H",), np.array([["a", "b", "c"]]))
    with pytest.raises(ValueError, match="format"):
        write_xyz(tmp_path / "m.xyz", [real_molecules()[1], bad])
    assert (tmp_path / "m.xyz").read_bytes() == before
    assert os.listdir(tmp_path) == ["m.xyz"]


def test_formulas_are_rdkits():
    for molecule, record in zip(real_molecules(), MOLECULES, strict=True):
        assert molecule.formula == CalcMolFormula(Chem.MolFromSmiles(record["smiles"]))
    assert Molecule(("H", "F"), np.zeros((2, 3))).formula == "FH"  # without carbon: by name


def test_padding_is_dropped_wherever_it_stands():
    molecules = from_padded(
        np.arange(24.0).reshape(2, 4, 3),
        np.array([[0, 1, 2, 0], [3, 0, 0, 4]]),
        np.array([[1, 1, 0, 0], [0, 1, 0, 1]]),
        ["H", "C", "N", "O", "F"],
    )
    assert [m.symbols for m in molecules] == [("H", "C"), ("H", "F")]
    np.testing.assert_array_equal(molecules[1].positions, [[15, 16, 17], [21, 22, 23]])


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"must be \(2, 3\)"):
        Molecule(("H", "H"), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="1 comments for 2"):
        write_xyz(os.devnull, real_molecules()[:2], ["one"])
