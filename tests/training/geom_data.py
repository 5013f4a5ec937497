"""A data set in GEOM-Drugs' format from conformers that RDKit makes of real drug-like molecules."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

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
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, sizes = [], []
    for drug in molecules:
        for positions in drug.positions:
            n = len(drug.numbers)
            rows.append(np.column_stack([np.full(n, len(sizes)), drug.numbers, positions]))
            sizes.append(n)
    np.save(path, np.vstack(rows).astype(np.float64))
    counts = [len(drug.positions) for drug in molecules]
    folder = path.parent
    if path.name == "geom_drugs_30.npy":
        names = ("geom_drugs_n_30.npy", "geom_drugs_conformers_30.npy", "geom_drugs_smiles.txt")
    else:
        names = tuple(f"{path.stem}_{what}" for what in ("n.npy", "conformers.npy", "smiles.txt"))
    np.save(folder / names[0], np.array(sizes, dtype=np.int64))
    np.save(folder / names[1], np.array(counts, dtype=np.int64))
    (folder / names[2]).write_text("".join(drug.smiles + os.linesep for drug in molecules))
    np.save(folder / "geom_permutation.npy", np.random.RandomState(seed).permutation(len(sizes)).astype(np.int32))
    return path
