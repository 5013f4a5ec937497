"""Conformers that RDKit makes of real, drug-like molecules, and the files that it writes of them."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import AllChem

from symdiff_plugin.data.geom.__main__ import main

SMILES = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
KNOWN = {"H", "B", "C", "N", "O", "F", "Al", "Si", "P", "S", "Cl", "As", "Br", "I", "Hg", "Bi"}


@functools.cache
def molecules(count: int = 8, conformers: int = 3, least: int = 20, most: int = 60) -> tuple[Chem.Mol, ...]:
    """Molecules with all hydrogens and ``conformers`` conformers each, of the NCI's compounds."""
    found: dict[str, Chem.Mol] = {}
    with rdBase.BlockLogs():
        for line in SMILES.read_text().splitlines():
            smiles = line.split()[0]
            mol = Chem.MolFromSmiles(smiles)
            if mol is None or "." in smiles or not {atom.GetSymbol() for atom in mol.GetAtoms()} <= KNOWN:
                continue
            mol = Chem.AddHs(mol)
            if not least <= mol.GetNumAtoms() <= most:
                continue
            if len(AllChem.EmbedMultipleConfs(mol, conformers, randomSeed=7, maxAttempts=5)) == conformers:
                mol.SetProp("_Name", line.split()[1])
                found.setdefault(flat_smiles(mol), mol)
            if len(found) == count:
                return tuple(found.values())
    raise AssertionError("the NCI's list is too short")


def flat_smiles(mol: Chem.Mol) -> str:
    """Canonical SMILES without stereo, by way of a new molecule without coordinates."""
    bare = Chem.MolFromSmiles(Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False))
    return Chem.MolToSmiles(bare)


def each_conformer(mols: Iterable[Chem.Mol]) -> list[Chem.Mol]:
    """A molecule of one conformer for every conformer."""
    return [Chem.Mol(mol, False, conformer.GetId()) for mol in mols for conformer in mol.GetConformers()]


def write_sdf(path: Path, records: Iterable[Chem.Mol | str], v3000: bool = False) -> Path:
    """An SDF file: molecules by RDKit's writer, or the text of a record."""
    text = "".join(
        record if isinstance(record, str) else block(record, v3000) + "$$$$\n" for record in records
    )  # fmt: skip
    return write_text(path, text)


def block(mol: Chem.Mol, v3000: bool = False) -> str:
    return Chem.MolToMolBlock(mol, forceV3000=v3000)


def write_text(path: Path, text: str) -> Path:
    content = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def make(*flags: object) -> int:
    """The exit status of ``python -m symdiff_plugin.data.geom own FLAGS``."""
    return main(["own", *map(str, flags)])


def conformers_of(folder: Path, name: str = "mine") -> list[np.ndarray]:
    """The conformers of a data set as EDM's loader cuts them, (n, 4) each: by where the ids change."""
    data = np.load(folder / f"{name}.npy")
    ids = data[:, 0].astype(int)
    return np.split(data[:, 1:], np.nonzero(ids[:-1] - ids[1:])[0] + 1)


def atoms(mol: Chem.Mol) -> np.ndarray:
    """(n, 4): atomic number, x, y, z."""
    numbers = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    return np.column_stack([numbers, mol.GetConformer().GetPositions()])


def lines_of(folder: Path) -> list[str]:
    """The text that tells its molecule, for every conformer of the data set ``mine``."""
    lines = (folder / "mine_smiles.txt").read_text().splitlines()
    return list(np.repeat(lines, np.load(folder / "mine_conformers.npy")))
