"""A data set in GEOM-Drugs' format from conformers that RDKit makes of real drug-like molecules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geom_conformers
import numpy as np
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import AllChem

SMILES_FILE = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
GEOM_NUMBERS = {1, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 33, 35, 53, 80, 83}


@dataclass(frozen=True)
class Drug:
    """One molecule: its SMILES, atomic numbers (N,) and conformers (n_conformers, N, 3) in Angstrom."""

    smiles: str
    numbers: np.ndarray
    positions: np.ndarray


def drugs(n_molecules: int, n_conformers: int = 2, smallest: int = 20, largest: int = 80) -> list[Drug]:
    """Neutral, connected molecules of the NCI's first 5,000 with ETKDG's conformers, relaxed by MMFF94."""
    found: list[Drug] = []
    lines = SMILES_FILE.read_text().splitlines()
    with rdBase.BlockLogs():
        for line in lines[:: len(lines) // (5 * n_molecules)]:
            mol = Chem.MolFromSmiles(line.split()[0])
            if mol is None or len(found) == n_molecules:
                continue
            smiles = Chem.MolToSmiles(mol)
            mol = Chem.AddHs(mol)
            numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
            plain = "." not in smiles and "+" not in smiles and "-" not in smiles and set(numbers) <= GEOM_NUMBERS
            if not plain or not smallest <= len(numbers) <= largest:
                continue
            if len(AllChem.EmbedMultipleConfs(mol, n_conformers, randomSeed=1, maxAttempts=50)) < n_conformers:
                continue
            if not AllChem.MMFFHasAllMoleculeParams(mol):
                continue
            AllChem.MMFFOptimizeMoleculeConfs(mol)
            found.append(Drug(smiles, numbers, np.array([c.GetPositions() for c in mol.GetConformers()])))
    assert len(found) == n_molecules
    return found


def write_geom(path: Path, molecules: list[Drug], seed: int = 0) -> Path:
    """EDM's array at ``path`` with its side files, ours, and a permutation of the right length; returns ``path``."""
    conformers = [(drug.smiles, [np.column_stack([drug.numbers, x]) for x in drug.positions]) for drug in molecules]
    return geom_conformers.write(conformers, path.parent, path.stem, seed).data
