"""What a molecule must be before anything is computed with it, checked once, when its data are read.

One NaN among the coordinates and the loss of every batch with that molecule is NaN; two atoms in one place, or one far
from all others, are a slip in a unit or a column. Neither shows until much later, if at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from symdiff_plugin.data.schema import CHARGES, DataError

FARTHEST = 1e4  # Angstrom, from the origin, where float32 still tells 1e-3 apart; a wrong unit or bit goes beyond
CLOSEST = 0.3  # Angstrom, two atoms; the shortest bond there is, H2's, has 0.74
LONELIEST = 10.0  # Angstrom, from an atom to its next; the contacts of molecules that hardly touch have 4
#: The keys that every split must have.
NEEDED = ("num_atoms", "charges", "positions")
_AT_ONCE = 256  # molecules whose distances are held at a time, in a CPU's cache


def check_split(arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays that are no molecules of QM9's elements.

    Takes about a second for QM9's 100,000 training molecules.

    Args:
        arrays: of a split, in the layout of :mod:`symdiff_plugin.data.schema`; of the keys ``NEEDED`` must be there,
            others are checked for numbers and length.

    Raises:
        DataError: what is wrong, and in which molecule (counted from 0), in words to follow the name of the file.
    """
    _check_shapes(arrays)
    for bad, reason in _faults(arrays):
        if bad.any():
            raise DataError(f"molecule {int(bad.argmax())} (counted from 0) has {reason}")


def _check_shapes(arrays: Mapping[str, np.ndarray]) -> None:
    for key, values in arrays.items():
        if values.dtype.kind not in "biuf":
            raise DataError(f"{key!r} holds {values.dtype}, not numbers")
    counts, charges, positions = (arrays[key] for key in NEEDED)
    if counts.ndim != 1 or not len(counts):
        raise DataError("no molecules")
    for key, values in arrays.items():
        if not values.ndim or len(values) != len(counts):
            raise DataError(f"{key!r} of shape {values.shape} for {len(counts)} molecules")
    if charges.ndim != 2 or positions.shape != (*charges.shape, 3) or not charges.shape[1]:
        raise DataError(f"charges {charges.shape} and positions {positions.shape}, not (B, N) and (B, N, 3)")
    for key, kinds in zip(NEEDED, ("iu", "iu", "f"), strict=True):
        if arrays[key].dtype.kind not in kinds:
            raise DataError(f"{key!r} of {arrays[key].dtype}, not of {'floats' if kinds == 'f' else 'integers'}")


def _faults(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[np.ndarray, str]]:
    """(B,) which molecules have a fault, and its name; each relies on those before it being absent."""
    counts, charges, positions = (arrays[key] for key in NEEDED)
    real = charges > 0
    yield ~np.all(np.isin(charges, [0, *CHARGES.values()]), axis=1), f"an element other than {' '.join(CHARGES)}"
    yield counts != real.sum(axis=1), "another number of charges than its num_atoms"
    yield counts == 0, "no atoms"
    for key, values in arrays.items():
        if values.dtype.kind == "f":
            yield ~np.isfinite(values).reshape(len(counts), -1).all(axis=1), f"{key} that are not finite"
    yield ((positions != 0).any(axis=2) & ~real).any(axis=1), "coordinates of an atom without a charge"
    yield (np.abs(positions) > FARTHEST).any(axis=(1, 2)), f"coordinates beyond {FARTHEST:,.0f} Angstrom"
    closest, loneliest = _distances(positions, real)
    yield closest < CLOSEST, f"two atoms less than {CLOSEST} Angstrom apart"
    yield loneliest > LONELIEST, f"an atom more than {LONELIEST:g} Angstrom from all others"


def _distances(positions: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distances, (B,) each, of the two atoms closest to each other, and of the loneliest atom to its next.

    Args:
        positions: (B, N, 3), finite.
        real: (B, N), whether there is an atom.
    """
    closest, loneliest = np.full(len(real), np.inf), np.zeros(len(real))
    itself = np.where(np.eye(real.shape[1], dtype=bool), np.float32(np.inf), np.float32(0))
    absent = np.where(real, np.float32(0), np.float32(np.inf))
    for first in range(0, len(real), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        x = positions[part].astype(np.float32)
        squares = itself + absent[part, None]  # (b, N, N)
        for k in range(3):
            difference = x[:, :, None, k] - x[:, None, :, k]
            squares += difference * difference
        nearest = np.sqrt(squares.min(axis=2)) + absent[part]
        closest[part] = nearest.min(axis=1)
        loneliest[part] = np.where(np.isfinite(nearest), nearest, 0).max(axis=1)  # a single atom has no next
    return closest, loneliest
