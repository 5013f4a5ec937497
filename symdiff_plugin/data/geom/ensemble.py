"""The conformers of lowest energy of one molecule of the archive, picked as EDM picks them."""

from __future__ import annotations

from typing import Any

import numpy as np

from symdiff_plugin.data.plausible import FARTHEST

HYDROGEN = 1.0
HEAVIEST = 118


def lowest(record: Any, count: int, remove_h: bool = False) -> list[np.ndarray]:
    """The conformers of lowest energy, in the order of their energies (build_geom_dataset.py:30-44).

    Ties fall as NumPy's default argsort lets them fall, which is not stable: the published set was made so.

    Args:
        record: what the archive holds of the molecule.
        count: how many to keep; all of them where there are fewer.
        remove_h: leave out the hydrogens.

    Returns:
        Arrays (n_atoms, 4) float64: atomic number, x, y, z in Angstrom.

    Raises:
        ValueError: the record is not of the archive's format, or holds numbers that no molecule has.
    """
    conformers = record.get("conformers") if isinstance(record, dict) else None
    if not isinstance(conformers, list):
        raise ValueError("a molecule without a list of conformers")
    energies = _energies(conformers)
    return [_atoms(conformers[index], remove_h) for index in np.argsort(energies)[:count]]


def _energies(conformers: list[Any]) -> np.ndarray:
    try:
        energies = np.array([conformer["totalenergy"] for conformer in conformers])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError("a conformer without totalenergy") from error
    if energies.ndim != 1 or energies.dtype.kind not in "fiu" or not np.isfinite(energies).all():
        raise ValueError("a totalenergy that is no finite number")
    return energies


def _atoms(conformer: dict[str, Any], remove_h: bool) -> np.ndarray:
    try:
        rows = np.array(conformer["xyz"])
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError("a conformer whose xyz is no table of numbers") from error
    if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "fiu":
        raise ValueError(f"a conformer whose xyz is no table of rows [Z, x, y, z] but of shape {rows.shape}")
    rows = rows.astype(float)
    numbers = rows[:, 0]
    if not ((numbers >= 1) & (numbers <= HEAVIEST) & (numbers == np.rint(numbers))).all():
        raise ValueError("an atomic number that no element has")
    if not (np.abs(rows[:, 1:]) <= FARTHEST).all():  # nor is NaN
        raise ValueError(f"a coordinate that is not finite or beyond {FARTHEST:,.0f} Angstrom")
    if remove_h:
        rows = rows[numbers != HYDROGEN]
    if not len(rows):
        raise ValueError("a conformer without atoms" + (" other than hydrogen" if remove_h else ""))
    return rows
