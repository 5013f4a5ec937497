"""XYZ files into GEOM's format: RDKit writes them and reads them back."""

from __future__ import annotations

import numpy as np
import pytest
from own_molecules import conformers_of, each_conformer, flat_smiles, lines_of, make, write_sdf, write_text
from rdkit import Chem

OURS = ("--name", "mine", "--out")


def frame(mol: Chem.Mol, comment: str = "") -> str:
    count, _, atoms = Chem.MolToXYZBlock(mol, precision=8).split("\n", 2)
    return f"{count}\n{comment}\n{atoms}"


def read_by_rdkit(text: str) -> np.ndarray:
    mol = Chem.MolFromXYZBlock(text)
    return np.column_stack([[a.GetAtomicNum() for a in mol.GetAtoms()], mol.GetConformer().GetPositions()])


@pytest.fixture(scope="module")
def frames(mols: tuple[Chem.Mol, ...]) -> list[str]:
    return [frame(mol) for mol in each_conformer(mols)]


def test_a_folder_of_files_and_one_file_of_frames_are_the_same_data(tmp_path, frames):
    for index, text in enumerate(frames):
        write_text(tmp_path / "in" / f"{index:03d}.xyz", text)
    (tmp_path / "in" / "README.txt").write_text("not a molecule")
    (tmp_path / "in" / ".hidden.xyz").write_text("nor this")
    write_text(tmp_path / "all.xyz", "".join(frames))
    write_text(tmp_path / "loose.xyz.gz", "\n\n".join(frames).replace("\n", "\r\n") + "\n\n")
    expected = [read_by_rdkit(text) for text in frames]
    for given in ("in", "all.xyz", "loose.xyz.gz"):
        assert make(tmp_path / given, *OURS, tmp_path / f"of {given}") == 0
        found = conformers_of(tmp_path / f"of {given}")
        assert len(found) == len(expected) == 24
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
        assert np.load(tmp_path / f"of {given}" / "mine_n.npy").tolist() == [len(one) for one in expected]


def test_without_bonds_the_formula_keeps_conformers_together(tmp_path, mols, frames):
    """Conformers of one molecule share a line wherever they are; what has other atoms has another line."""
    order = np.random.RandomState(1).permutation(len(frames))
    write_text(tmp_path / "all.xyz", "".join(frames[index] for index in order))
    assert make(tmp_path / "all.xyz", *OURS, tmp_path / "out") == 0
    lines = lines_of(tmp_path / "out")
    of_molecule: dict[int, set[str]] = {}
    for line, index in zip(lines, order, strict=True):
        of_molecule.setdefault(index // 3, set()).add(line)
    assert all(len(found) == 1 for found in of_molecule.values())
    formulas = {Chem.rdMolDescriptors.CalcMolFormula(mol) for mol in mols}
    assert len({line for found in of_molecule.values() for line in found}) == len(formulas)
    assert all(line.startswith("formula:") and Chem.MolFromSmiles(line) is None for line in lines)


@pytest.mark.parametrize("comment", ["{}", "smiles={}", "SMILES:{} energy=-12.5", "mol_1 -154.2 {} C1", '"{}"'])
def test_a_smiles_in_the_comment_is_believed_if_it_has_these_atoms(tmp_path, mols, comment):
    """In whatever spelling; with stereo left out."""
    text, expected = "", []
    for mol in mols:
        for one in each_conformer([mol]):
            spelling = Chem.MolToSmiles(Chem.RemoveHs(mol), doRandom=True)
            text += frame(one, comment.format(spelling))
            expected.append(flat_smiles(mol))
    write_text(tmp_path / "all.xyz", text)
    assert make(tmp_path / "all.xyz", *OURS, tmp_path / "out") == 0
    assert lines_of(tmp_path / "out") == expected


def test_a_comment_that_only_looks_like_a_smiles_is_none(tmp_path, mols):
    """``C`` and ``CO`` are SMILES, of other atoms: to believe them would call all these molecules one."""
    write_text(tmp_path / "all.xyz", "".join(frame(mol, "CO C energy 1.0") for mol in mols))
    assert make(tmp_path / "all.xyz", *OURS, tmp_path / "out") == 0
    assert all(line.startswith("formula:") for line in lines_of(tmp_path / "out"))


def test_molecules_known_in_two_ways_are_refused(tmp_path, mols, capsys):
    """One conformer with its SMILES and another without would be two molecules, and leak across the split."""
    one, two, three = each_conformer([mols[0]])
    smiles = flat_smiles(mols[0])
    write_text(tmp_path / "mixed.xyz", frame(one, smiles) + frame(two) + frame(three, smiles))
    assert make(tmp_path / "mixed.xyz", *OURS, tmp_path / "out") == 2
    said = capsys.readouterr().err
    line = 1 + frame(one).count("\n")
    assert f"mixed.xyz, frame 2 (line {line}): no smiles to tell its molecule by" in said, said
    assert make(tmp_path / "mixed.xyz", *OURS, tmp_path / "a", "--skip_bad") == 0
    assert lines_of(tmp_path / "a") == [smiles] * 2
    assert make(tmp_path / "mixed.xyz", *OURS, tmp_path / "b", "--molecules", "formula") == 0
    assert len(set(lines_of(tmp_path / "b"))) == 1
    assert make(tmp_path / "mixed.xyz", *OURS, tmp_path / "c", "--molecules", "title") == 2
    sdf = write_sdf(tmp_path / "first.sdf", [one])
    assert make(sdf, tmp_path / "mixed.xyz", *OURS, tmp_path / "d") == 2


def test_symbols_are_read_as_people_write_them(tmp_path):
    """Numbers, capitals, deuterium, more columns, tabs, a byte order mark."""
    carbon, chlorine = "6 0 0 0 0.12 0.3", "CL\t1.7 0 0"
    three = ["h -0.4 1.0 0.1", "D -0.4 -0.5 0.9", " H -0.4 -0.5 -9.E-1"]
    lines = ["\ufeff5", "", carbon, chlorine, *three]
    write_text(tmp_path / "a.xyz", "\n".join(lines))
    assert make(tmp_path / "a.xyz", *OURS, tmp_path) == 0
    found = conformers_of(tmp_path)[0]
    assert found[:, 0].tolist() == [6, 17, 1, 1, 1]
    assert found[4].tolist() == [1, -0.4, -0.5, -0.9]


def spoilt(text: str, how: str) -> str:
    lines = text.splitlines(keepends=True)
    if how == "text":
        return "these are the frames\n" + text
    if how == "none":
        return text.replace(lines[0], "0\n", 1)
    if how == "cut":
        return "".join(lines[:10])
    if how == "column":
        lines[4] = " ".join(lines[4].split()[:3]) + "\n"
    elif how == "symbol":
        lines[4] = "Q" + lines[4]
    elif how == "nan":
        lines[4] = lines[4].split()[0] + " 0.1 nan 0.2\n"
    elif how == "zero":
        lines[2:] = [f"{line.split()[0]} 0.0 0.0 0.0\n" for line in lines[2:]]
    elif how in ("far", "astray"):
        lines[4] = f"{lines[4].split()[0]} {1e6 if how == 'far' else 200} 0 0\n"
    elif how == "dummy":
        lines[4] = "X" + lines[4][1:]
    elif how == "sodium":
        lines[4] = "Na 100 100 100\n"
    return "".join(lines)


GOES_ON = {
    "column": "a line that is no atom (atom 3: ",
    "symbol": "a line that is no atom (atom 3: ",
    "nan": "not finite",
    "zero": "coinciding atoms or no coordinates",
    "far": "not finite (or beyond 10,000 Angstrom)",
    "astray": "an atom far from all others (atom 3 is 1",
    "dummy": "dummy atoms (atom 3)",
    "sodium": "EDM's analysis does not know Na",
}
ENDS = {
    "text": "no number of atoms where a frame should start ('these are the frames')",
    "none": "no number of atoms where a frame should start ('0')",
    "cut": "cut short (8 of 26 atoms)",
}


@pytest.mark.parametrize("how", [*GOES_ON, *ENDS])
def test_a_bad_frame_is_named_and_nothing_written_or_it_is_left_out(tmp_path, frames, capsys, how):
    after = frames[4:6] if how in GOES_ON else []  # of the others nobody can tell where they end
    write_text(tmp_path / "all.xyz", "".join([*frames[:2], spoilt(frames[3], how), *after]))
    write_text(tmp_path / "zz" / "next.xyz", "".join(frames[6:8]))
    given = (tmp_path / "all.xyz", tmp_path / "zz")
    assert make(*given, *OURS, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    line = 1 + "".join(frames[:2]).count("\n")
    assert f"{tmp_path}/all.xyz, frame 3 (line {line}): " in said
    assert (GOES_ON | ENDS)[how] in said
    assert list((tmp_path / "out").iterdir()) == []
    assert make(*given, *OURS, tmp_path / "out", "--skip_bad") == 0
    assert "1 records left out" in capsys.readouterr().out
    write_text(tmp_path / "good.xyz", "".join([*frames[:2], *after, *frames[6:8]]))
    assert make(tmp_path / "good.xyz", *OURS, tmp_path / "good") == 0
    for path in (tmp_path / "good").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_drawing_is_no_conformer_but_a_flat_molecule_is(tmp_path, capsys):
    """XYZ does not say which it is; a carbon with four neighbours in one plane does."""
    drawing = Chem.AddHs(Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O"))
    Chem.rdDepictor.Compute2DCoords(drawing)
    flat = Chem.AddHs(Chem.MolFromSmiles("c1ccc2ccccc2c1"))
    Chem.rdDistGeom.EmbedMolecule(flat, randomSeed=1)
    Chem.rdMolTransforms.CanonicalizeConformer(flat.GetConformer())
    lines = frame(flat).splitlines()
    in_plane = "".join(f"{' '.join(line.split()[:3])} 0.0\n" for line in lines[2:])
    write_text(tmp_path / "flat.xyz", f"{lines[0]}\n\n{in_plane}")
    write_text(tmp_path / "drawing.xyz", frame(drawing))
    assert make(tmp_path / "flat.xyz", *OURS, tmp_path / "flat") == 0
    assert make(tmp_path / "drawing.xyz", *OURS, tmp_path / "drawing") == 2
    assert "drawing.xyz, frame 1 (line 1): no 3D coordinates" in capsys.readouterr().err


def test_an_endless_frame_is_not_read_into_memory(tmp_path, capsys):
    write_text(tmp_path / "a.xyz", "99999999999\n\n" + "H 0 0 0\n" * 10)
    assert make(tmp_path / "a.xyz", *OURS, tmp_path / "out") == 2
    assert "no number of atoms" in capsys.readouterr().err


def test_data_without_any_hydrogen_are_told(tmp_path, mols, capsys):
    """XYZ cannot tell whether hydrogens are missing; EDM's rules of stability need them."""
    write_text(tmp_path / "a.xyz", "".join(frame(Chem.RemoveHs(mol)) for mol in mols[:3]))
    assert make(tmp_path / "a.xyz", *OURS, tmp_path / "out") == 0
    assert "no hydrogen at all" in capsys.readouterr().err
