"""PoseBusters' checks: real molecules pass, and what is broken fails where it is broken."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from molecules import MOLECULES
from rdkit import Chem
from rdkit.Chem import AllChem

from symdiff_plugin.data.schema import ResourceError
from symdiff_plugin.evaluate.__main__ import main
from symdiff_plugin.evaluate.posebusters import Checks, bust, posebusters_lines, posebusters_version
from symdiff_plugin.molecules.molecule import Molecule
from symdiff_plugin.molecules.perception import perceive

GEOMETRY = ("bond_lengths", "bond_angles", "internal_steric_clash")


@pytest.fixture(scope="module")
def checks() -> Checks:
    pytest.importorskip("posebusters", reason="NO POSEBUSTERS: pip install posebusters")
    return Checks()


def of_smiles(smiles: str) -> Molecule:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(mol)
    return Molecule(tuple(atom.GetSymbol() for atom in mol.GetAtoms()), mol.GetConformer().GetPositions())


def moved(molecule: Molecule, atoms: list[int], by: np.ndarray) -> Molecule:
    positions = np.array(molecule.positions, dtype=float)
    positions[atoms] += by
    return Molecule(molecule.symbols, positions)


def failed(results: dict[str, bool | None]) -> set[str]:
    return {name for name, good in results.items() if good is not True}


def test_molecules_of_qm9_pass(checks: Checks) -> None:
    """Geometry of all; the energy of those that are not strained rings or of a handful of atoms, see below."""
    given = [Molecule(tuple(m["symbols"]), np.array(m["positions"])) for m in MOLECULES]
    chains = [m for m in given if (seen := perceive(m)).smiles and not seen.mol.GetRingInfo().NumRings()]
    found = bust(chains)
    assert found["n_molecules"] == len(chains) == 8
    assert found["bonds_perceived"] == 1
    assert all(value == 1 for name, value in found["checks"].items() if name != "internal_energy")
    # Conformers of water and CF4 have no energy, so that theirs is out of all proportion to it.
    assert found["passes_all"] == found["checks"]["internal_energy"] == 6 / 8


def test_a_drug_passes(checks: Checks) -> None:
    assert failed(checks.of(perceive(of_smiles("CC(=O)Nc1ccc(O)cc1")).mol)) == set()  # paracetamol


def test_random_blobs_fail(checks: Checks) -> None:
    random = np.random.RandomState(0)
    blobs = [Molecule(tuple(m["symbols"]), 1.2 * random.randn(len(m["symbols"]), 3)) for m in MOLECULES[-20:]]
    found = bust(blobs)
    assert found["passes_all"] == found["passes_all_computed"] == 0
    assert found["bonds_perceived"] < 0.2


def test_no_bonds_no_pass(checks: Checks) -> None:
    water = Molecule(("O", "H", "H"), np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    lost = moved(water, [1], np.array([5, 0, 0]))
    nowhere = moved(water, [1], np.array([np.nan, 0, 0]))
    found = bust([water, lost, nowhere])
    assert found["bonds_perceived"] == pytest.approx(1 / 3)
    assert all(value <= 1 / 3 + 1e-12 for value in found["checks"].values())
    assert found["checks"]["sanitization"] == pytest.approx(1 / 3)


def test_a_short_bond_fails_the_check_of_bonds(checks: Checks) -> None:
    """Perceived from the coordinates: bonds cannot be too long for that, or they are none."""
    ethanol = of_smiles("CCO")  # C C O, hydrogens of the first carbon, ...
    axis = ethanol.positions[1] - ethanol.positions[0]
    methyl = [0, *(i for i in range(3, 9) if np.linalg.norm(ethanol.positions[i] - ethanol.positions[0]) < 1.2)]
    assert len(methyl) == 4
    seen = perceive(moved(ethanol, methyl, 0.42 * axis / np.linalg.norm(axis)))
    assert seen.smiles == "CCO"
    assert "bond_lengths" in failed(checks.of(seen.mol))
    assert "bond_lengths" not in failed(checks.of(perceive(ethanol).mol))


def test_a_long_bond_fails_the_check_of_bonds(checks: Checks) -> None:
    ethanol = of_smiles("CCO")
    bonds = perceive(ethanol).mol
    conformer = bonds.GetConformer()
    axis = ethanol.positions[2] - ethanol.positions[1]
    for atom in (2, next(i for i in range(3, 9) if bonds.GetBondBetweenAtoms(2, i))):
        conformer.SetAtomPosition(atom, ethanol.positions[atom] + 0.7 * axis / np.linalg.norm(axis))
    assert "bond_lengths" in failed(checks.of(bonds))


def test_a_redirected_stderr_that_is_closed_is_forgotten() -> None:
    with io.TextIOWrapper(io.BytesIO()) as gone, contextlib.redirect_stderr(gone):
        bust([of_smiles("CCO")])
    assert bust([of_smiles("CCCN")])["passes_all"] == 1  # another one: PoseBusters remembers energies


def test_an_atom_within_another_is_a_clash(checks: Checks) -> None:
    """Two heavy atoms far apart in the graph, in one place; the bonds are those of the sound molecule."""
    hexane = of_smiles("CCCCCC")
    bonds = perceive(hexane).mol
    bonds.GetConformer().SetAtomPosition(5, bonds.GetConformer().GetPositions()[0] + [0.9, 0, 0])
    assert "internal_steric_clash" in failed(checks.of(bonds))
    assert failed(checks.of(perceive(hexane).mol)) == set()


def test_a_bent_ring_is_not_flat(checks: Checks) -> None:
    benzene = of_smiles("c1ccccc1")
    bonds = perceive(benzene).mol
    normal = np.linalg.svd(benzene.positions - benzene.positions.mean(axis=0))[2][2]
    bonds.GetConformer().SetAtomPosition(0, benzene.positions[0] + 0.8 * normal)
    assert "aromatic_ring_flatness" in failed(checks.of(bonds))
    assert "aromatic_ring_flatness" not in failed(checks.of(perceive(benzene).mol))


def test_what_cannot_be_computed_is_no_pass_and_is_said(checks: Checks) -> None:
    """RDKit's force field has no sulfur of six bonds: PoseBusters has no result, and its own tables make it a pass."""
    axes = 1.56 * np.concatenate([np.eye(3), -np.eye(3)])
    found = bust([Molecule(("S", *"FFFFFF"), np.concatenate([np.zeros((1, 3)), axes]))])
    assert found["bonds_perceived"] == 1
    assert (found["passes_all"], found["passes_all_computed"]) == (0, 1)
    assert found["not_computed"] == {name: float(name == "internal_energy") for name in checks.names}
    assert found["checks"] == {name: float(name != "internal_energy") for name in checks.names}
    assert "(no result for 100.00%)" in dict(posebusters_lines(found))["- internal energy"]


def test_the_table_names_every_check(checks: Checks) -> None:
    found = bust([of_smiles("CCO")])
    text = "\n".join(
        " ".join(pair) for pair in posebusters_lines(found, {"passes_all": 0.25, "checks": {"bond_angles": 0.125}})
    )
    assert "100.00% +- 25.00%" in text
    assert "bond angles 100.00% +- 12.50%" in text
    assert len(text.splitlines()) == 1 + len(checks.names)


def test_without_the_package_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "posebusters", None)  # as if it were not installed
    with pytest.raises(ResourceError, match="pip install posebusters"):
        posebusters_version()
    for arguments in ([str(tmp_path)], ["--data", "test", "--out", str(tmp_path / "out")]):
        assert main([*arguments, "--posebusters"]) == 1
        printed = capsys.readouterr().err.strip().splitlines()
        assert len(printed) == 1
        assert "pip install posebusters" in printed[0]
    assert list(tmp_path.iterdir()) == []
