"""Archives of RDKit's conformers: GEOM-Drugs' format, chemistry that another route confirms, the seed's alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from geom_archives import ARCHIVE, assert_refused, command, contents, read_maps
from rdkit import Chem
from rdkit.Chem import AllChem
from rdkit.Geometry import Point3D

from symdiff_plugin.data.geom import rdkit_archive as module
from symdiff_plugin.data.geom.rdkit_archive import ELEMENTS, HARTREE, make_archive

# Of a conformer and of a molecule in GEOM-Drugs (learningmatter-mit/geom, tutorial 1), but for what assays found.
CONFORMER = {
    "xyz", "geom_id", "set", "degeneracy", "totalenergy", "relativeenergy", "boltzmannweight", "conformerweights",
}  # fmt: skip
MOLECULE = {
    "conformers", "totalconfs", "temperature", "uniqueconfs", "lowestenergy", "poplowestpct", "ensembleenergy",
    "ensembleentropy", "ensemblefreeenergy", "charge", "datasets",
}  # fmt: skip


def test_format(rdkit_archive: Path) -> None:
    maps = read_maps(rdkit_archive)
    assert [len(some) for some in maps] == [10, 10, 4]
    assert len({smiles for some in maps for smiles in some}) == 24
    ids = []
    for record in (record for some in maps for record in some.values()):
        assert set(record) == MOLECULE
        conformers = record["conformers"]
        assert 1 <= len(conformers) == record["totalconfs"] == record["uniqueconfs"] <= 5
        energies = np.array([conformer["totalenergy"] for conformer in conformers])
        assert record["lowestenergy"] == pytest.approx(energies.min(), abs=1e-5)
        weights = np.array([conformer["boltzmannweight"] for conformer in conformers])
        assert weights.sum() == pytest.approx(1, abs=1e-4)
        assert weights.argmax() == energies.argmin()
        assert record["ensemblefreeenergy"] == pytest.approx(-0.29815 * record["ensembleentropy"], abs=2e-3)
        for conformer in conformers:
            assert set(conformer) == CONFORMER
            assert all(len(row) == 4 and all(type(value) is float for value in row) for row in conformer["xyz"])
            assert 20 <= len(conformer["xyz"]) <= 120
            ids.append(conformer["geom_id"])
    assert len(set(ids)) == len(ids)


def test_energies_and_atoms_are_the_molecules(rdkit_archive: Path) -> None:
    """From the SMILES anew: the atoms in their order, MMFF94's energy at the coordinates, and a relaxed geometry."""
    steepest = []
    for smiles, record in ((smiles, record) for some in read_maps(rdkit_archive) for smiles, record in some.items()):
        molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
        numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
        assert set(numbers) <= ELEMENTS
        assert record["charge"] == Chem.GetFormalCharge(molecule)
        properties = AllChem.MMFFGetMoleculeProperties(molecule)
        for conformer in record["conformers"]:
            assert [row[0] for row in conformer["xyz"]] == numbers
            geometry = Chem.Conformer(len(numbers))
            for index, (_, *position) in enumerate(conformer["xyz"]):
                geometry.SetAtomPosition(index, Point3D(*position))
            molecule.RemoveAllConformers()
            molecule.AddConformer(geometry)
            field = AllChem.MMFFGetMoleculeForceField(molecule, properties)
            assert conformer["totalenergy"] == pytest.approx(field.CalcEnergy() / HARTREE, abs=1e-7)
            steepest.append(max(map(abs, field.CalcGrad())))
    assert np.median(steepest) < 1.0  # kcal/(mol Angstrom); hundreds before relaxation


def test_the_seed_decides(tmp_path: Path) -> None:
    made = []
    for number, seed in enumerate((0, 0, 1)):
        make_archive(tmp_path / str(number), molecules=3, conformers=2, seed=seed)
        made.append((tmp_path / str(number)).read_bytes())
    assert made[0] == made[1] != made[2]


def test_more_molecules_are_more_of_the_same(rdkit_archive: Path, tmp_path: Path) -> None:
    make_archive(tmp_path / ARCHIVE, molecules=2, conformers=5, seed=1)
    assert list(read_maps(tmp_path / ARCHIVE)[0].items()) == list(read_maps(rdkit_archive)[0].items())[:2]


def test_the_molecules_are_drug_like(rdkit_archive: Path) -> None:
    elements = Counter(row[0] for some in read_maps(rdkit_archive) for record in some.values()
                       for row in record["conformers"][0]["xyz"])  # fmt: skip
    share = {number: count / sum(elements.values()) for number, count in elements.items()}
    assert 0.3 < share[6.0] < 0.5  # 0.40 in GEOM-Drugs (EDM's datasets_config.py)
    assert 0.3 < share[1.0] < 0.6  # 0.44
    assert share[7.0] > 0.02
    assert share[8.0] > 0.02


def test_does_not_replace_an_archive(rdkit_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ARCHIVE).write_text("fifty gigabytes")
    kept = command("rdkit", "--out", tmp_path, capsys=capsys)
    assert kept.returncode == 0
    assert "is there already" in kept.stdout
    assert (tmp_path / ARCHIVE).read_text() == "fifty gigabytes"
    options = ["--molecules", 2, "--conformers", 1, "--overwrite"]
    made = command("rdkit", "--out", tmp_path, *options, capsys=capsys)
    assert made.returncode == 0, made.stderr
    assert "2 molecules in" in made.stdout
    assert len(read_maps(tmp_path / ARCHIVE)[0]) == 2


def test_takes_what_fits_and_says_what_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitting = ["CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C)C(=O)N2C", "CC(C)Cc1ccc(cc1)C(C)C(=O)O"]
    twice = "O=C(O)c1ccccc1OC(C)=O"
    small, salt, metal, wrong = "CCO", "CCCCCCCC(=O)[O-].[Na+]", "CCCCCCCC[Zn]CCCCCCCC", "c1cc"
    radical, unparametrised = "CCCCCCCC[CH2]", "OB(O)c1ccc(CCCC)cc1"
    lines = [*fitting, twice, small, salt, metal, wrong, radical, unparametrised]
    shipped = tmp_path / "shipped.smi"
    shipped.write_text("".join(f"{smiles}\t{number}\n" for number, smiles in enumerate(lines)))
    monkeypatch.setattr(module, "SOURCES", (str(shipped),))
    refused = command("rdkit", "--out", tmp_path / "out", "--molecules", 4, "--conformers", 1, capsys=capsys)
    assert_refused(refused, "rdkit", 2, "RDKit ships 3 fitting molecules", "--molecules")
    assert contents(tmp_path / "out") == {}
    for seed in range(3):  # one of them meets what MMFF94 lacks before the last that fits
        path = tmp_path / str(seed) / ARCHIVE
        assert make_archive(path, 3, 1, seed) in (0, 1)
        assert set(read_maps(path)[0]) == {Chem.CanonSmiles(smiles) for smiles in fitting}
    monkeypatch.setattr(module, "SOURCES", ("no such file",))
    refused = command("rdkit", "--out", tmp_path / "out", capsys=capsys)
    assert_refused(refused, "rdkit", 1, "ships none of no such file")


@pytest.mark.parametrize(
    "option", [["--molecules", 0], ["--conformers", 0], ["--seed", -1], ["--seed", 2**31], ["--molecules", "some"]]
)
def test_refuses_numbers_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[object]) -> None:
    refused = command("rdkit", "--out", tmp_path / "out", *option, capsys=capsys)
    assert_refused(refused, "rdkit", 2, str(option[0]))
    assert not (tmp_path / "out").exists()


def test_refuses_without_a_subcommand_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["unknown"], ["rdkit"]):
        result = command(*arguments, capsys=capsys)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
