"""``python -m symdiff_plugin.data.geom rdkit --out FOLDER``: a small archive in the format of GEOM-Drugs.

For trying everything that GEOM-Drugs goes through without its 50 GB: drug-like molecules that RDKit ships,
embedded by ETKDGv3 and relaxed in MMFF94. Their conformers are no substitute for CREST's, and their energies are
MMFF94's in Hartree. Every number that GEOM-Drugs documents (learningmatter-mit/geom, tutorial 1) is there, as far
as a force field knows it.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import Descriptors, rdDistGeom
from rdkit.Chem.rdForceFieldHelpers import MMFFHasAllMoleculeParams, MMFFOptimizeMoleculeConfs

from symdiff_plugin.common.files import replacing
from symdiff_plugin.common.kinds import whole
from symdiff_plugin.common.progress import counting
from symdiff_plugin.data.geom import dataset_info
from symdiff_plugin.data.geom.archive import ARCHIVE_NAME
from symdiff_plugin.data.schema import DataError, ResourceError

ELEMENTS = frozenset(dataset_info.ELEMENTS)
SMALLEST, LARGEST = 20, 120  # atoms, hydrogens included
MAP_MOLECULES = 1_000  # in one map of the archive
EMBEDDING_ATTEMPTS = 10  # a limit that does not depend on the clock, so that a seed makes the same archive
RELAXATION_STEPS = 200
HARTREE = 627.5095  # kcal/mol
TEMPERATURE = 298.15  # K
GAS_CONSTANT = 1.987204e-3  # kcal/(mol K)
# Screening compounds of the Walter and Eliza Hall Institute, and the first molecules of NCI's collection.
SOURCES = ("Pains/test_data/wehi_mols.csv", "NCI/first_5K.smi")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=f"{ARCHIVE_NAME} goes there")
    parser.add_argument("--molecules", type=whole(), default=300, metavar="N", help="default: 300")
    parser.add_argument("--conformers", type=whole(1, 10_000), default=3, metavar="N", help="a molecule (default: 3)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of the choice and of the embedding (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an archive that is there")


def main(options: argparse.Namespace) -> list[Path]:
    """Make the archive, unless there is one; return its path."""
    path = options.out / ARCHIVE_NAME
    if path.exists() and not options.overwrite:
        print(f"{path} is there already; --overwrite replaces it")  # it may be GEOM's own
        return [path]
    skipped = make_archive(path, options.molecules, options.conformers, options.seed)
    print(f"{options.molecules:,} molecules in {path}; skipped {skipped:,} that RDKit could not embed")
    return [path]


def make_archive(path: Path, molecules: int, conformers: int, seed: int, map_molecules: int = MAP_MOLECULES) -> int:
    """Write an archive of RDKit's conformers, whole or not at all; the same for the same seed and RDKit.

    Args:
        path: of the archive.
        molecules: how many.
        conformers: of each, at most; RDKit may find fewer.
        seed: of the choice of molecules and of the embedding.
        map_molecules: how many go into one map of the archive.

    Returns:
        How many molecules were tried and skipped, as RDKit could not embed or parametrise them.

    Raises:
        DataError: numbers out of range, or more molecules than RDKit ships.
        ResourceError: RDKit ships no molecules, or the archive cannot be written.
    """
    if molecules < 1 or conformers < 1:
        raise DataError("--molecules and --conformers: ask for one at least")
    if not 0 <= seed < 2**31:  # RDKit takes -1 for "another one each time"
        raise DataError(f"--seed {seed}: give a number from 0 to {2**31 - 1:,}")
    candidates = _candidates(seed)
    packer = msgpack.Packer()
    skipped = written = 0
    try:
        with replacing(path, "wb") as file, counting("Embedding", molecules, "molecules") as advance:
            while written < molecules:
                count = min(map_molecules, molecules - written)
                file.write(packer.pack_map_header(count))
                while count:
                    smiles, molecule = next(candidates, (None, None))
                    if molecule is None:
                        raise DataError(f"RDKit ships {written:,} fitting molecules: ask for no more with --molecules")
                    record = _record(molecule, conformers, seed, written * conformers)
                    if record is None:
                        skipped += 1
                        continue
                    file.write(packer.pack(smiles))
                    file.write(packer.pack(record))
                    written += 1
                    count -= 1
                    advance(1)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(f"cannot write {path} ({reason}): make room or choose another --out") from error
    return skipped


def _candidates(seed: int) -> Iterator[tuple[str, Chem.Mol]]:
    """Drug-like molecules with hydrogens and their canonical SMILES, in the order of the seed."""
    lines = []
    for source in SOURCES:
        path = Path(RDConfig.RDDataDir) / source
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                lines += [row[0] for row in csv.reader(file, delimiter="," if path.suffix == ".csv" else "\t") if row]
    if not lines:
        raise ResourceError(f"this RDKit ships none of {', '.join(SOURCES)}: install rdkit from PyPI")
    random.Random(seed).shuffle(lines)
    seen: set[str] = set()
    for line in lines:
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(line)
            if molecule is None or len(Chem.GetMolFrags(molecule)) > 1 or Descriptors.NumRadicalElectrons(molecule):
                continue
            smiles = Chem.MolToSmiles(molecule)
            molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))  # atoms in the order that the SMILES has them
        fits = SMALLEST <= molecule.GetNumAtoms() <= LARGEST
        if fits and smiles not in seen and {atom.GetAtomicNum() for atom in molecule.GetAtoms()} <= ELEMENTS:
            seen.add(smiles)
            yield smiles, molecule


def _record(molecule: Chem.Mol, conformers: int, seed: int, first_id: int) -> dict[str, Any] | None:
    """What the archive holds of a molecule, or None where RDKit cannot embed or parametrise it."""
    parameters: Any = rdDistGeom.ETKDGv3()
    parameters.randomSeed = seed
    parameters.maxIterations = EMBEDDING_ATTEMPTS
    parameters.numThreads = 0  # draws are a conformer's own: any number of threads gives the same
    with rdBase.BlockLogs():
        if not MMFFHasAllMoleculeParams(molecule):
            return None
        ids = list(rdDistGeom.EmbedMultipleConfs(molecule, conformers, parameters))
        relaxed = []
        if ids:
            relaxed = MMFFOptimizeMoleculeConfs(molecule, numThreads=0, maxIters=RELAXATION_STEPS)
    energies = np.round([energy / HARTREE for _, energy in relaxed], 8)
    if not len(energies) or not np.isfinite(energies).all():
        return None
    relative = (energies - energies.min()) * HARTREE  # kcal/mol
    weights = np.exp(-relative / (GAS_CONSTANT * TEMPERATURE))
    weights /= weights.sum()
    entropy = -float((weights * np.log(np.maximum(weights, 1e-300))).sum()) * GAS_CONSTANT  # kcal/(mol K)
    numbers = [float(atom.GetAtomicNum()) for atom in molecule.GetAtoms()]
    return {
        "totalconfs": len(ids),
        "temperature": TEMPERATURE,
        "uniqueconfs": len(ids),
        "lowestenergy": round(float(energies.min()), 5),
        "poplowestpct": round(100 * float(weights.max()), 3),
        "ensembleenergy": round(float((weights * relative).sum()), 3),
        "ensembleentropy": round(1e3 * entropy, 3),
        "ensemblefreeenergy": round(-TEMPERATURE * entropy, 3),
        "charge": Chem.GetFormalCharge(molecule),
        "datasets": ["rdkit"],
        "conformers": [
            {
                "xyz": [
                    [number, *row]
                    for number, row in zip(
                        numbers, molecule.GetConformer(id_).GetPositions().round(10).tolist(), strict=True
                    )
                ],
                "geom_id": first_id + index,
                "set": 1,
                "degeneracy": 1,
                "totalenergy": float(energies[index]),
                "relativeenergy": round(float(relative[index]), 3),
                "boltzmannweight": round(float(weights[index]), 5),
                "conformerweights": [round(float(weights[index]), 5)],
            }
            for index, id_ in enumerate(ids)
        ],
    }
