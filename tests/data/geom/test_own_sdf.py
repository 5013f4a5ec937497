"""SDF files into GEOM's format, against RDKit's own reading of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from own_molecules import atoms, block, conformers_of, each_conformer, flat_smiles, lines_of, make, write_sdf
from rdkit import Chem, RDConfig

FILES = ["mine.npy", "mine_conformers.npy", "mine_info.json", "mine_n.npy", "mine_smiles.txt"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def records(mols: tuple[Chem.Mol, ...]) -> list[Chem.Mol]:
    return each_conformer(mols)


def test_what_is_written_is_what_rdkit_reads(tmp_path, records, mols):
    path = write_sdf(tmp_path / "in.sdf", records)
    assert make(path, "--name", "mine", "--out", tmp_path / "out") == 0
    assert sorted(os.listdir(tmp_path / "out")) == FILES
    expected = [atoms(mol) for mol in Chem.SDMolSupplier(str(path), removeHs=False)]
    data = np.load(tmp_path / "out" / "mine.npy")
    assert (data.dtype, data.shape) == (np.float64, (sum(map(len, expected)), 5))
    sizes = np.load(tmp_path / "out" / "mine_n.npy")
    assert sizes.dtype == np.int64
    np.testing.assert_array_equal(sizes, [len(one) for one in expected])
    np.testing.assert_array_equal(data[:, 0], np.repeat(np.arange(len(records)), sizes))
    np.testing.assert_array_equal(data[:, 1:], np.concatenate(expected))
    kept = np.load(tmp_path / "out" / "mine_conformers.npy")
    assert kept.dtype == np.int64
    assert kept.tolist() == [3] * len(mols)
    assert (tmp_path / "out" / "mine_smiles.txt").read_text().splitlines() == [flat_smiles(mol) for mol in mols]


def test_the_writing_of_the_file_does_not_matter(tmp_path, records, capsys):
    """Gzipped, in two files, with Windows' line ends, as V3000, without the last $$$$: the same data."""
    ours = ("--name", "mine", "--out")
    plain = write_sdf(tmp_path / "in" / "a.sdf", records)
    assert make(plain, *ours, tmp_path / "plain") == 0
    text = plain.read_text()
    write_sdf(tmp_path / "gz.sdf.gz", [text])
    write_sdf(tmp_path / "two" / "1.sdf", records[:5])
    write_sdf(tmp_path / "two" / "deeper" / "2.SDF.gz", records[5:])
    (tmp_path / "dos.sdf").write_bytes(text.replace("\n", "\r\n").encode())
    (tmp_path / "last.sdf").write_text(text.removesuffix("$$$$\n"))
    expected = contents(tmp_path / "plain")
    for given in ("gz.sdf.gz", "two", "dos.sdf", "last.sdf"):
        assert make(tmp_path / given, *ours, tmp_path / f"of {given}") == 0
        assert contents(tmp_path / f"of {given}") == expected
    third = write_sdf(tmp_path / "v3000.sdf", records, v3000=True)
    assert make(third, *ours, tmp_path / "v3000") == 0
    for one, other in zip(conformers_of(tmp_path / "v3000"), conformers_of(tmp_path / "plain"), strict=True):
        np.testing.assert_allclose(one, other, atol=5.1e-5)  # V2000 has four decimals
    assert "24 conformers, 8 lines of molecules" in capsys.readouterr().out


def test_a_molecule_is_known_again_wherever_its_conformers_are(tmp_path, mols, records):
    """In any order of records and atoms, with or without stereo: one text a molecule, and another for another."""
    random = np.random.RandomState(3)
    of_record = np.repeat(np.arange(len(mols)), 3)
    order = random.permutation(len(records))
    shuffled = [Chem.RenumberAtoms(records[i], random.permutation(records[i].GetNumAtoms()).tolist()) for i in order]
    assert make(write_sdf(tmp_path / "in.sdf", shuffled), "--name", "mine", "--out", tmp_path / "out") == 0
    lines = lines_of(tmp_path / "out")
    assert len(np.load(tmp_path / "out" / "mine_conformers.npy")) > len(mols)  # so that some do come again
    assert lines == [flat_smiles(mols[of_record[i]]) for i in order]
    assert len(set(lines)) == len(mols)


def test_stereoisomers_and_deuterated_ones_are_one_molecule(tmp_path):
    forms = ["C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "[2H]C[C@@H](N)C(=O)O", "CC(N)C([2H])=O", "CC(N)C=O"]
    found = []
    for smiles in forms:
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        Chem.rdDistGeom.EmbedMolecule(mol, randomSeed=1)
        found.append(mol)
    assert make(write_sdf(tmp_path / "in.sdf", found), "--name", "mine", "--out", tmp_path / "out") == 0
    assert lines_of(tmp_path / "out") == ["CC(N)C(=O)O"] * 3 + ["CC(N)C=O"] * 2


@pytest.mark.parametrize("kind", ["smiles", "formula", "title", "file"])
def test_what_tells_molecules_apart_is_for_the_user_to_say(tmp_path, mols, records, kind):
    write_sdf(tmp_path / "in" / "a.sdf", records[:12])
    write_sdf(tmp_path / "in" / "b.sdf", records[12:])
    assert make(tmp_path / "in", "--name", "mine", "--out", tmp_path / "out", "--molecules", kind) == 0
    lines = lines_of(tmp_path / "out")
    truth = {
        "smiles": [flat_smiles(mol) for mol in mols for _ in range(3)],
        "title": [f"title:{mol.GetProp('_Name')}" for mol in mols for _ in range(3)],
        "file": ["file:a"] * 12 + ["file:b"] * 12,
    }
    if kind == "formula":
        formulas = [Chem.rdMolDescriptors.CalcMolFormula(mol).rstrip("+-") for mol in records]
        assert len(set(formulas)) == len(set(lines)) == len(set(zip(formulas, lines, strict=True)))
    else:
        assert lines == truth[kind]
    if kind != "smiles":
        assert all(Chem.MolFromSmiles(line) is None for line in lines)  # nobody takes them for SMILES


def spoilt(mol: Chem.Mol, how: str) -> Chem.Mol | str:
    lines = block(mol).splitlines()
    if how == "hydrogens":
        return Chem.RemoveHs(mol)
    if how == "some hydrogens":
        part = Chem.RWMol(mol)
        part.RemoveAtom(mol.GetNumAtoms() - 1)
        return part.GetMol()
    if how == "2D":
        flat = Chem.Mol(mol)
        flat.RemoveAllConformers()
        Chem.rdDepictor.Compute2DCoords(flat)
        return flat
    if how == "zero":
        still = Chem.Mol(mol)
        for index in range(still.GetNumAtoms()):
            still.GetConformer().SetAtomPosition(index, (0.0, 0.0, 0.0))
        return still
    if how == "coinciding":
        double = Chem.Mol(mol)
        double.GetConformer().SetAtomPosition(4, double.GetConformer().GetAtomPosition(1))
        return double
    if how == "dummy":
        lines[4] = lines[4][:31] + "*  " + lines[4][34:]
    elif how == "selenium":
        lines[4] = lines[4][:31] + "Se " + lines[4][34:]
    elif how == "nan":
        lines[4] = "       nan" + lines[4][10:]
    elif how == "cut":
        lines = lines[: len(lines) // 3]
    elif how == "empty":
        lines = ["", "", "", "  0  0  0  0  0  0  0  0  0  0999 V2000", "M  END"]
    elif how == "valence":
        return block(crowded()) + "$$$$\n"
    return "\n".join([*lines, "$$$$", ""])


def crowded() -> Chem.Mol:
    """A carbon with five hydrogens."""
    mol = Chem.RWMol()
    positions = np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1.0]])
    for symbol in "CHHHHH":
        mol.AddAtom(Chem.Atom(symbol))
    for index in range(1, 6):
        mol.AddBond(0, index, Chem.BondType.SINGLE)
    conformer = Chem.Conformer(6)
    conformer.Set3D(True)
    for index, position in enumerate(positions):
        conformer.SetAtomPosition(index, position)
    mol.AddConformer(conformer)
    return mol.GetMol()


SPOILT = {
    "hydrogens": "hydrogens without coordinates",
    "some hydrogens": "hydrogens without coordinates (1 are implied",
    "2D": "no 3D coordinates",
    "zero": "coinciding atoms or no coordinates",
    "coinciding": "(atoms 2 and 5 are 0.00 Angstrom apart)",
    "dummy": "dummy atoms (atom 1)",
    "selenium": "EDM's analysis does not know Se",
    "nan": "RDKit cannot read it",
    "cut": "RDKit cannot read it",
    "empty": "fewer than two atoms",
    "valence": "RDKit cannot make sense of its bonds (Explicit valence for atom # 0 C, 5",
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_bad_record_is_named_and_nothing_written_or_it_is_left_out(tmp_path, records, capsys, how):
    good = records[:4]
    path = write_sdf(tmp_path / "in.sdf", [*good[:2], spoilt(records[6], how), *good[2:]])
    out = tmp_path / "out"
    assert make(path, "--name", "mine", "--out", out) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert f"{path}, record 3" in said
    assert SPOILT[how] in said
    assert "--skip_bad" in said
    assert list(out.iterdir()) == []
    assert make(path, "--name", "mine", "--out", out, "--skip_bad") == 0
    assert "1 records left out: 1 " in capsys.readouterr().out
    assert make(write_sdf(tmp_path / "good.sdf", good), "--name", "mine", "--out", tmp_path / "good") == 0
    assert contents(out) == contents(tmp_path / "good")


def test_bad_records_are_counted_by_their_reason_and_only_bad_ones_are_no_data_set(tmp_path, records, capsys):
    bad = [spoilt(records[0], how) for how in ("2D", "hydrogens", "2D", "selenium", "2D")]
    path = write_sdf(tmp_path / "in.sdf", bad)
    assert make(path, "--name", "mine", "--out", tmp_path / "out", "--skip_bad") == 2
    said = capsys.readouterr().err
    assert "no conformer can be taken; 5 records left out: 3 no 3D coordinates, first" in said
    assert "1 EDM's analysis does not know Se" in said
    assert list((tmp_path / "out").iterdir()) == []


def test_a_flat_molecule_is_taken_if_it_is_marked_as_3d(tmp_path, capsys):
    mol = Chem.AddHs(Chem.MolFromSmiles("c1ccccc1"))
    Chem.rdDepictor.Compute2DCoords(mol)
    mol.GetConformer().Set3D(True)
    assert make(write_sdf(tmp_path / "flat.sdf", [mol]), "--name", "mine", "--out", tmp_path) == 0
    assert "1 conformers" in capsys.readouterr().out


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(tmp_path, records, capsys):
    ours = ("--name", "mine", "--out", tmp_path / "out")
    first = write_sdf(tmp_path / "first.sdf", records[:3])
    broken = write_sdf(tmp_path / "broken.sdf", [records[3], spoilt(records[3], "2D")])
    assert make(first, *ours) == 0
    before = contents(tmp_path / "out")
    assert make(write_sdf(tmp_path / "second.sdf", records[3:6]), *ours) == 2
    assert "is there already" in capsys.readouterr().err
    assert make(broken, *ours, "--overwrite") == 2
    assert contents(tmp_path / "out") == before
    assert make(tmp_path / "second.sdf", *ours, "--overwrite") == 0
    assert make(tmp_path / "second.sdf", "--name", "mine", "--out", tmp_path / "new") == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "new") != before


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["missing.sdf"], "missing.sdf is not there"),
        (["notes.pdf"], "neither SDF nor XYZ"),
        (["empty"], "holds no .sdf"),
        (["good.sdf", "good.sdf"], "given twice"),
        (["good.sdf", "."], "given twice"),
        (["good.sdf", "--name", "a/b"], "use letters"),
        (["good.sdf", "--remove_h"], "cannot train on conformers without hydrogens"),
        (["good.sdf", "--molecules", "inchi"], "invalid choice"),
        (["binary.sdf"], "this is not text"),
        (["endless.sdf"], "this is not text"),
        (["cut.sdf.gz", "--skip_bad"], "gzip file is damaged"),
        (["plain.sdf.gz", "--skip_bad"], "gzip file is damaged"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, records, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    write_sdf(Path("good.sdf"), records[:3])
    whole = write_sdf(Path("work") / "whole.sdf.gz", records).read_bytes()
    Path("work", "whole.sdf.gz").unlink()
    Path("cut.sdf.gz").write_bytes(whole[: len(whole) // 2])
    Path("plain.sdf.gz").write_bytes(b"\n\n\n not gzipped\n")
    Path("binary.sdf").write_bytes(bytes(range(256)) * 20)
    Path("endless.sdf").write_bytes(b"C" * (1 << 21))
    Path("notes.pdf").write_text("1")
    Path("empty").mkdir()
    try:
        status = make(*(["--name", "mine"] if "--name" not in flags else []), *flags)
    except SystemExit as ended:  # argparse's own
        status = ended.code
    assert status == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(Path("data").rglob("*.*"))


def test_a_folder_that_cannot_be_written_is_one_line_and_status_1(tmp_path, records, capsys):
    (tmp_path / "file").write_text("in the way")
    path = write_sdf(tmp_path / "in.sdf", records[:2])
    assert make(path, "--name", "mine", "--out", tmp_path / "file") == 1
    assert "cannot write" in capsys.readouterr().err


FULL = """
import resource, signal, sys
from symdiff_plugin.data.geom.__main__ import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(["own", *sys.argv[2:]]))
"""


@pytest.mark.parametrize("room", [100, 20_000])
def test_without_room_the_old_data_set_stays_and_nothing_else(tmp_path, records, room):
    """No file may grow over ``room`` bytes: the data have 26 KB, a header 128 bytes."""
    path = write_sdf(tmp_path / "in.sdf", records)
    ours = (path, "--name", "mine", "--overwrite", "--out", tmp_path / "out")
    assert make(write_sdf(tmp_path / "first.sdf", records[:3]), *ours[1:]) == 0
    before = contents(tmp_path / "out")
    command = [sys.executable, "-c", FULL, str(room), *map(str, ours)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1
    assert "make room" in done.stderr
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["PBF/testData/egfr.sdf", "Fastcluster/testdata/cdk2.sdf"])
def test_real_files_of_ligands(tmp_path, name):
    path = Path(RDConfig.RDContribDir) / name
    if not path.is_file():
        pytest.skip(f"this RDKit does not ship {name}")
    assert make(path, "--name", "mine", "--out", tmp_path) == 0
    expected = [atoms(mol) for mol in Chem.SDMolSupplier(str(path), removeHs=False)]
    found = conformers_of(tmp_path)
    assert len(found) == len(expected) > 40
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


# Not getrusage: its maximum starts at that of the process that started this one.
RESIDENT = r"""
import re, sys
from symdiff_plugin.data.geom.__main__ import main
status = main(["own", sys.argv[1], "--name", "mine", "--out", sys.argv[2]])
print(status, re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells the most memory that was in use")
def test_memory_does_not_grow_with_the_file(tmp_path, records):
    """Ten times the records, 8 MB more on disk and 5 MB of coordinates: less than 2 MB more in memory."""
    resident = {}
    for copies in (14, 140):
        path = write_sdf(tmp_path / f"{copies}.sdf", ["".join(block(mol) + "$$$$\n" for mol in records) * copies])
        done = subprocess.run(
            [sys.executable, "-c", RESIDENT, path, tmp_path / f"of {copies}"],
            capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        status, kilobytes = done.stdout.splitlines()[-1].split()
        assert status == "0"
        resident[copies] = int(kilobytes)
    assert len(np.load(tmp_path / "of 140" / "mine_n.npy")) == 140 * len(records)
    grown = (tmp_path / "140.sdf").stat().st_size - (tmp_path / "14.sdf").stat().st_size
    assert grown > 7.5e6
    assert resident[140] - resident[14] < 2000
