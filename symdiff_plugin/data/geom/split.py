"""Which conformers are for training, validation and test.

``official``: EDM's split of GEOM-Drugs. EDM drew a permutation of the 6,922,516 conformers without a seed and
keeps it as ``geom_permutation.npy``; its first tenth is for validation, its second for test. It is a split of
conformers, so the conformers of one molecule are found in all three.

``molecule``: the same tenths, of the molecules. No molecule is in two parts. For data of one's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.schema import DataError

SPLITS = ("official", "molecule")
PARTITIONS = ("train", "val", "test")  # EDM's names, in the order of its loaders
_REMEDY = "or split by molecule with --split molecule"


def split(
    kind: str, files: GeomFiles, n_conformers: int, seed: int = 0, permutation: Path | None = None
) -> dict[str, np.ndarray]:
    """The conformers of each part.

    Args:
        kind: ``official`` or ``molecule``.
        files: of the data set.
        n_conformers: how many it has.
        seed: of the split by molecule.
        permutation: where EDM's is looked for if it does not lie beside the data.

    Returns:
        Indices of conformers by partition, each (n_partition,) integers; disjoint, together all conformers.

    Raises:
        DataError: a file that the split needs is missing or not of this data set, or a part would be empty.
    """
    if kind == "official":
        found = _official(files, n_conformers, permutation)
    elif kind == "molecule":
        found = _by_molecule(files, n_conformers, seed)
    else:
        raise DataError(f"unknown split {kind!r}: choose one of {', '.join(SPLITS)}")
    for name, rows in found.items():
        if not len(rows):
            raise DataError(f"{files.data} is too small to split: nothing is left for {name}; it takes ten at least")
    return found


def _official(files: GeomFiles, n_conformers: int, elsewhere: Path | None) -> dict[str, np.ndarray]:
    path = next((p for p in (files.permutation, elsewhere) if p is not None and p.is_file()), None)
    if path is None:
        raise DataError(
            f"no {files.permutation}, which fixes EDM's split: get it with `python -m symdiff_plugin.edm get --geom`, "
            + _REMEDY
        )
    try:
        permutation = np.load(path, allow_pickle=False)
        if permutation.ndim != 1 or permutation.dtype.kind not in "iu":
            raise ValueError(f"{permutation.dtype} {permutation.shape}")
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged or no permutation ({error}): get it again, {_REMEDY}") from error
    if len(permutation) != n_conformers:
        raise DataError(
            f"{path} is of {len(permutation):,} conformers, {files.data} has {n_conformers:,}: EDM's split is that of "
            f"GEOM-Drugs with 30 conformers a molecule alone; put that data set there, {_REMEDY}"
        )
    seen = np.zeros(n_conformers, dtype=bool)
    seen[permutation[(permutation >= 0) & (permutation < n_conformers)]] = True
    if not seen.all():
        raise DataError(f"{path} is no permutation: it lacks conformer {seen.argmin()}; get it again, {_REMEDY}")
    return _cut(permutation)


def _by_molecule(files: GeomFiles, n_conformers: int, seed: int) -> dict[str, np.ndarray]:
    molecule = _molecules(files, n_conformers)
    shuffled = np.random.default_rng(seed).permutation(int(molecule.max()) + 1)
    parts = _cut(shuffled)
    partition = np.empty(len(shuffled), dtype=np.int8)
    for number, name in enumerate(PARTITIONS):
        partition[parts[name]] = number
    of_conformer = partition[molecule]
    return {name: np.flatnonzero(of_conformer == number) for number, name in enumerate(PARTITIONS)}


def _molecules(files: GeomFiles, n_conformers: int) -> np.ndarray:
    """(n_conformers,) int64: the molecule of each; lines of equal SMILES are one molecule."""
    remedy = (
        "write it with `python -m symdiff_plugin.data.geom convert` from the archive (or with `own` from your files)"
    )
    if not files.conformers.is_file():
        raise DataError(f"no {files.conformers}, which says what molecule a conformer is of: {remedy}")
    try:
        counts = np.load(files.conformers, allow_pickle=False)
        if counts.ndim != 1 or counts.dtype.kind not in "iu" or counts.min(initial=0) < 0:
            raise ValueError(f"{counts.dtype} {counts.shape}")
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise DataError(f"{files.conformers} is damaged ({error}): {remedy}") from error
    if counts.sum() != n_conformers:
        raise DataError(
            f"{files.conformers} is of {counts.sum():,} conformers, {files.data} has {n_conformers:,}: {remedy}"
        )
    try:
        with files.smiles.open(encoding="utf-8") as file:
            numbers: dict[str, int] = {}
            lines = [numbers.setdefault(line.strip(), len(numbers)) for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{files.smiles} cannot be read ({error}): {remedy}") from error
    if len(lines) != len(counts):
        raise DataError(f"{files.smiles} has {len(lines):,} molecules, {files.conformers} {len(counts):,}: {remedy}")
    of_line = np.array(lines, dtype=np.int64)[counts > 0]  # molecules without a conformer take no part
    _, of_line = np.unique(of_line, return_inverse=True)
    return np.repeat(of_line, counts[counts > 0])


def _cut(permutation: np.ndarray) -> dict[str, np.ndarray]:
    """EDM's cut: the first tenth for validation, the next for test, the rest for training."""
    tenth = int(len(permutation) * 0.1)
    return {"train": permutation[2 * tenth :], "val": permutation[:tenth], "test": permutation[tenth : 2 * tenth]}
