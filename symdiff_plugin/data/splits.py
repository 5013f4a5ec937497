"""EDM's split of QM9, and molecules as EDM's arrays.

EDM numbers the 130,831 characterised molecules by ascending ``index``, draws a permutation with seed 0 and
takes the first 100,000 as train, the next 17,748 as valid, the last 13,083 as test; inside a split the
order is again ascending (e3_diffusion_for_molecules, qm9/data/prepare/qm9.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from symdiff_plugin.data.schema import (
    CHARGES,
    KEYS,
    MAX_ATOMS,
    N_MOLECULES,
    PROPERTIES,
    REFERENCE,
    SPLIT_SIZES,
    DataError,
)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class QM9Molecule:
    """One molecule as read from a source.

    Attributes:
        index: QM9's number of the molecule, from 1 to 133,885.
        charges: atomic numbers, n of them.
        positions: 3n coordinates in Angstrom, atom by atom.
        properties: the values of ``PROPERTIES``, in that order.
        omega1: the largest harmonic frequency, in 1/cm.
    """

    index: int
    charges: list[int]
    positions: list[float]
    properties: list[float]
    omega1: float


def make_molecule(
    index: int, elements: list[str], positions: list[float], properties: list[float], frequencies: list[float]
) -> QM9Molecule:
    """A molecule, its parts checked against one another.

    Raises:
        DataError: parts that do not belong together; the caller adds where they were read.
    """
    unknown = [symbol for symbol in elements if symbol not in CHARGES]
    if unknown:
        raise DataError(f"unknown element {unknown[0]!r}")
    if not 0 < len(elements) <= MAX_ATOMS:
        raise DataError(f"{len(elements)} atoms, where QM9 has 1 to {MAX_ATOMS}")
    if len(positions) != 3 * len(elements):
        raise DataError(f"{len(positions)} coordinates for {len(elements)} atoms")
    if len(properties) != len(PROPERTIES):
        raise DataError(f"{len(properties)} properties instead of {len(PROPERTIES)}")
    if not frequencies:
        raise DataError("no harmonic frequencies")
    return QM9Molecule(index, [CHARGES[symbol] for symbol in elements], positions, properties, max(frequencies))


def tabulate(molecules: Iterable[QM9Molecule], count: int) -> Arrays:
    """Molecules as one set of arrays under EDM's keys, in ascending order of ``index``.

    Args:
        molecules: exactly ``count`` of them, in any order.

    Returns:
        The arrays described in :mod:`symdiff_plugin.data.schema`, B = ``count``.

    Raises:
        DataError: more or fewer molecules than ``count``, or one twice.
    """
    num_atoms = np.zeros(count, dtype=np.int64)
    index = np.zeros(count, dtype=np.int64)
    charges = np.zeros((count, MAX_ATOMS), dtype=np.int64)
    positions = np.zeros((count, MAX_ATOMS, 3), dtype=np.float32)
    scalars = np.zeros((count, len(PROPERTIES) + 1), dtype=np.float32)
    found = 0
    for molecule in molecules:
        if found == count:
            raise DataError(f"more than the expected {count:,} molecules")
        n = len(molecule.charges)
        num_atoms[found] = n
        index[found] = molecule.index
        charges[found, :n] = molecule.charges
        positions[found, :n] = np.reshape(molecule.positions, (n, 3))
        scalars[found, :-1] = molecule.properties
        scalars[found, -1] = molecule.omega1
        found += 1
    if found < count:
        raise DataError(f"{found:,} molecules instead of {count:,}")
    order = np.argsort(index, kind="stable")
    index = index[order]
    if (np.diff(index) == 0).any():
        raise DataError(f"molecule {index[:-1][np.diff(index) == 0][0]} occurs twice")

    table: Arrays = {
        "num_atoms": num_atoms[order], "charges": charges[order], "positions": positions[order], "index": index,
    }  # fmt: skip
    table.update({name: scalars[order, column] for column, name in enumerate((*PROPERTIES, "omega1"))})
    table.update(reference_sums(table["charges"]))
    assert tuple(table) == KEYS
    return table


def reference_sums(charges: np.ndarray) -> Arrays:
    """Sums over the atoms of QM9's reference energies.

    Args:
        charges: (B, N) atomic numbers, 0 on padding.

    Returns:
        ``zpve_thermo``, ..., ``Cv_thermo``, each (B,) float64.
    """
    sums = {}
    for name, reference in REFERENCE.items():
        total = np.zeros(len(charges))
        # Ascending atomic number, one product an element: the order fixes the last bits.
        for charge, energy in reference.items():
            total += energy * (charges == charge).sum(axis=1)
        sums[f"{name}_thermo"] = total
    return sums


def split_rows() -> dict[str, np.ndarray]:
    """Rows of each split, ascending, among the characterised molecules in order of ``index``."""
    permutation = np.random.RandomState(0).permutation(N_MOLECULES)
    ends = np.cumsum(list(SPLIT_SIZES.values()))
    parts = np.split(permutation, ends[:-1])
    return {split: np.sort(part) for split, part in zip(SPLIT_SIZES, parts, strict=True)}


def take(table: Arrays, rows: np.ndarray) -> Arrays:
    """The given rows of every array, contiguous."""
    return {key: np.ascontiguousarray(values[rows]) for key, values in table.items()}


def split_table(table: Arrays) -> dict[str, Arrays]:
    """EDM's three splits of the whole table of 130,831 molecules."""
    return {split: take(table, rows) for split, rows in split_rows().items()}
