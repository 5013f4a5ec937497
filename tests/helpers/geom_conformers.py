"""A small data set in EDM's format: conformers that RDKit makes of drug-like molecules."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import AllChem

from symdiff_plugin.data.geom.dataset_info import DatasetStatistics, write_dataset_info
from symdiff_plugin.data.geom.layout import GeomFiles


@lru_cache(maxsize=2)
def make_molecules(n: int, smallest: int = 20, largest: int = 80) -> list[tuple[str, list[np.ndarray]]]:
    """SMILES and one to three conformers (atoms, 4) of the first ``n`` molecules of NCI's with these sizes.

    The last molecule repeats the first, as some lines of GEOM-Drugs' list do.
    """
    molecules: list[tuple[str, list[np.ndarray]]] = []
    elements = set("HBCNOF") | {"Al", "Si", "P", "S", "Cl", "As", "Br", "I"}
    with open(Path(RDConfig.RDDataDir) / "NCI/first_5K.smi") as file, rdBase.BlockLogs():
        for line in file:
            mol = Chem.MolFromSmiles(line.split()[0])
            if mol is None or "." in line.split()[0]:
                continue
            mol = Chem.AddHs(mol)
            if not smallest <= mol.GetNumAtoms() <= largest or {a.GetSymbol() for a in mol.GetAtoms()} - elements:
                continue
            ids = AllChem.EmbedMultipleConfs(mol, 1 + len(molecules) % 3, randomSeed=7, maxAttempts=5)
            if not len(ids):
                continue
            numbers = np.array([[atom.GetAtomicNum()] for atom in mol.GetAtoms()], dtype=float)
            conformers = [np.hstack([numbers, mol.GetConformer(i).GetPositions()]) for i in ids]
            molecules.append((Chem.MolToSmiles(Chem.RemoveHs(mol)), conformers))
            if len(molecules) == n - 1:
                break
    return [*molecules, molecules[0]]


def write(
    molecules: list[tuple[str, list[np.ndarray]]], folder: Path, name: str = "geom_drugs_30", seed: int = 3
) -> GeomFiles:
    """EDM's files and ours, with a permutation for the official split."""
    folder.mkdir(parents=True, exist_ok=True)
    files = GeomFiles(folder / f"{name}.npy")
    conformers = [conformer for _, of_molecule in molecules for conformer in of_molecule]
    rows = [np.hstack([np.full((len(c), 1), i), c]) for i, c in enumerate(conformers)]
    np.save(files.data, np.vstack(rows))
    np.save(files.n_atoms, np.array([len(c) for c in conformers]))
    np.save(files.conformers, np.array([len(of_molecule) for _, of_molecule in molecules]))
    files.smiles.write_text("".join(f"{smiles}\n" for smiles, _ in molecules))
    np.save(files.permutation, np.random.default_rng(seed).permutation(len(conformers)).astype(np.int32))
    return files


def info_of(conformers: Iterable[np.ndarray], data_set: str = "own data") -> dict[str, Any]:
    """EDM's dataset_info of all ``conformers``, each (n, 4): atomic number, x, y, z."""
    statistics = DatasetStatistics()
    for conformer in conformers:
        statistics.add(conformer[:, 0])
    return statistics.dataset_info(data_set)


def save_info(info: dict[str, Any], files: GeomFiles) -> None:
    files.info.parent.mkdir(parents=True, exist_ok=True)
    with open(files.info, "w") as file:
        write_dataset_info(info, file)
