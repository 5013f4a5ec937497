"""EDM's array of atoms as a sequence of conformers, left on the disk.

GEOM-Drugs with 30 conformers a molecule is 322 million atoms, 13 GB. What is held in memory is where each of its
6.9 million conformers begins; their atoms are views of a memory map, which processes share.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from symdiff_plugin.common.progress import bar
from symdiff_plugin.data.geom.layout import COLUMNS, GeomFiles
from symdiff_plugin.data.plausible import FARTHEST
from symdiff_plugin.data.schema import DataError

_ROWS_AT_ONCE = 1 << 20  # 40 MiB of atoms
_SAMPLED = 1000  # conformers whose ids are held against the file of atoms counts


class Conformers(Sequence[np.ndarray]):
    """The conformers of a data set, read where they lie.

    Where they begin comes from the file of atoms counts beside the data if that agrees with them, else from one pass
    over the ids. Pickling leaves the data out: a copy opens the file again.

    Args:
        path: ``NAME.npy``, see :class:`~symdiff_plugin.data.geom.layout.GeomFiles`.

    Attributes:
        sizes: (n,) int64, the atoms of each conformer.

    Raises:
        DataError: the file is missing, cut short or no such array.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows = _open(self.path)
        starts = _starts_beside(GeomFiles(self.path).n_atoms, self._rows)
        self._starts = _starts_in(self.path, self._rows) if starts is None else starts
        self.sizes = np.diff(self._starts)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        """(n_i, 4) float64, a read-only view: atomic number, x, y, z in Angstrom.

        Raises:
            DataError: an atom has no finite coordinates, or absurd ones.
        """
        atoms = self._rows[self._slice(index), 1:]
        if not (np.abs(atoms) <= FARTHEST).all():  # nor is NaN
            raise DataError(
                f"{self.path}: conformer {index} has coordinates that are not finite or beyond {FARTHEST:,.0f} "
                "Angstrom: make the file again"
            )
        return atoms

    def _slice(self, index: int) -> slice:
        i = operator.index(index)
        i += len(self) if i < 0 else 0
        if not 0 <= i < len(self):
            raise IndexError(f"conformer {index} of {len(self)}")
        return slice(self._starts[i], self._starts[i + 1])

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_starts": self._starts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self._starts = state["path"], state["_starts"]
        self._rows = _open(self.path)
        self.sizes = np.diff(self._starts)


def _open(path: Path) -> np.ndarray:
    """The array of atoms, (n_atoms_total, 5) float64, not read; a plain array, whose views are cheaper to make."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"no {path}: make it with `python -m symdiff_plugin.data.geom convert`") from None
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is cut short or no array of atoms ({error}): make it again") from error
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float64 or rows.ndim != 2 or rows.shape[1] != COLUMNS:
        found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "an archive"
        raise DataError(
            f"{path} is {found}, not float64 (atoms, {COLUMNS}) with id, atomic number, x, y, z of each: make it again"
        )
    if not len(rows) or not rows.flags.c_contiguous:
        raise DataError(f"{path} has {'its rows not in one piece' if len(rows) else 'no atoms'}: make it again")
    return np.asarray(rows)


def _starts_beside(path: Path, rows: np.ndarray) -> np.ndarray | None:
    """(n + 1,) int64 from the file of atoms counts, the number of rows last; None where it is not of these data."""
    if not path.is_file():
        return None
    try:
        sizes = np.load(path, allow_pickle=False)
        if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or not len(sizes) or sizes.min() < 1:
            raise ValueError
        starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        sampled = np.unique(np.linspace(0, len(sizes) - 1, _SAMPLED).astype(np.int64))
        agree = starts[-1] == len(rows) and all(
            np.array_equal(rows[starts[sampled + end] - end, 0], sampled) for end in (0, 1)
        )
        if not agree:
            raise ValueError
    except (OSError, EOFError, ValueError, AttributeError):
        print(f"{path} is not of the data beside it: it is left aside", file=sys.stderr)
        return None
    return starts


def _starts_in(path: Path, rows: np.ndarray) -> np.ndarray:
    """(n + 1,) int64 from the ids, in one pass of bounded memory.

    Raises:
        DataError: they are not 0, 1, 2, ... ascending.
    """
    offset, found, previous = _header_length(path), [np.zeros(1, dtype=np.int64)], 0.0
    with bar("Conformers", len(rows), "atom", unit_scale=True) as shown:
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, len(rows) - first)
            # A map of its own, given up at once: pages that were read of a map count as the process's memory.
            chunk = np.memmap(path, np.float64, "r", offset + first * COLUMNS * 8, (count, COLUMNS))
            steps = np.diff(chunk[:, 0], prepend=previous)
            odd = (steps != 0) & (steps != 1)  # NaN too
            if odd.any():
                raise DataError(
                    f"{path}: the ids of its conformers are not 0, 1, 2, ... ascending (row {first + odd.argmax()}): "
                    "make it again"
                )
            found.append(first + np.flatnonzero(steps))
            previous = float(chunk[-1, 0])
            del chunk
            shown.update(count)
    starts = np.concatenate([*found, [len(rows)]])
    if len(starts) > 2 and starts[1] == 0:
        raise DataError(f"{path}: the ids of its conformers begin with 1, not 0: make it again")
    return starts


def _header_length(path: Path) -> int:
    return int(np.load(path, mmap_mode="r", allow_pickle=False).offset)
