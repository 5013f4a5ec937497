"""Molecules as symbols and coordinates, and the XYZ files that hold them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from symdiff_plugin.common.files import replacing
from symdiff_plugin.data.schema import CHARGES


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule.

    Attributes:
        symbols: N element symbols.
        positions: (N, 3) coordinates in Angstrom; a sampler that diverged leaves NaN or infinities here.
    """

    symbols: tuple[str, ...]
    positions: np.ndarray

    def __post_init__(self) -> None:
        if np.shape(self.positions) != (len(self.symbols), 3):
            raise ValueError(
                f"positions of {len(self.symbols)} atoms must be ({len(self.symbols)}, 3), "
                f"not {np.shape(self.positions)}"
            )

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def is_finite(self) -> bool:
        """Whether every coordinate is a number."""
        return bool(np.isfinite(self.positions).all())

    @property
    def formula(self) -> str:
        """Sum formula in Hill's order: carbon, hydrogen, then the others by name; by name without carbon."""
        count = Counter(self.symbols)
        first = [symbol for symbol in ("C", "H") if symbol in count] if "C" in count else []
        order = first + sorted(symbol for symbol in count if symbol not in first)
        return "".join(symbol + (str(count[symbol]) if count[symbol] > 1 else "") for symbol in order)


def from_padded(
    positions: np.ndarray, types: np.ndarray, mask: np.ndarray, atom_decoder: Sequence[str]
) -> list[Molecule]:
    """Molecules from a padded batch.

    Args:
        positions: (B, N, 3) coordinates in Angstrom.
        types: (B, N) integers, each an index of ``atom_decoder``.
        mask: (B, N), non-zero on real atoms.
        atom_decoder: the symbol of every type.
    """
    real = np.asarray(mask) != 0
    return [
        Molecule(tuple(atom_decoder[int(kind)] for kind in one_types[one_real]), np.asarray(one[one_real]))
        for one, one_types, one_real in zip(positions, types, real, strict=True)
    ]


def from_qm9(arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> list[Molecule]:
    """Molecules of a split of QM9, from :func:`symdiff_plugin.data.load_split`.

    Args:
        arrays: of the split.
        rows: which molecules.
    """
    charges = arrays["charges"][rows]
    # Padding, charge 0, comes before the first type; it is masked away.
    types = np.searchsorted(list(CHARGES.values()), charges)
    return from_padded(arrays["positions"][rows], types, charges, list(CHARGES))


def format_frame(molecule: Molecule, comment: str) -> str:
    """One frame of an XYZ file: coordinates with nine decimals, in Angstrom; the comment on one line."""
    lines = [str(len(molecule)), " ".join(comment.split())]
    for symbol, (x, y, z) in zip(molecule.symbols, molecule.positions, strict=True):
        lines.append(f"{symbol:2s} {x:16.9f} {y:16.9f} {z:16.9f}")
    return "\n".join(lines) + "\n"


def write_xyz(
    path: str | os.PathLike[str], molecules: Sequence[Molecule], comments: Sequence[str] | None = None
) -> None:
    """Write all ``molecules`` as the frames of one XYZ file, whole or not at all.

    Args:
        path: the file; it is replaced if it exists.
        molecules: the frames, in order.
        comments: the second line of every frame; the formula if not given.

    Raises:
        ValueError: not one comment a molecule.
        OSError: the file cannot be written.
    """
    if comments is None:
        comments = [molecule.formula for molecule in molecules]
    if len(comments) != len(molecules):
        raise ValueError(f"{len(comments)} comments for {len(molecules)} molecules")
    with replacing(path) as file:
        file.writelines(format_frame(*frame) for frame in zip(molecules, comments, strict=True))


def read_xyz(path: str | os.PathLike[str]) -> tuple[list[Molecule], list[str]]:
    """All frames of an XYZ file and their comment lines.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no XYZ file, or is cut short; the message names the file and the line.
    """
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    molecules, comments = [], []
    start = 0
    while start < len(lines):
        if not lines[start].strip() and not any(line.strip() for line in lines[start:]):
            break  # blank lines at the end
        try:
            n_atoms = int(lines[start])
            atoms = [line.split() for line in lines[start + 2 : start + 2 + n_atoms]]
            if n_atoms < 0 or len(lines) < start + 2 + n_atoms or min(map(len, atoms), default=4) < 4:
                raise ValueError
            positions = np.array([[float(value) for value in atom[1:4]] for atom in atoms]).reshape(-1, 3)
        except ValueError:
            raise ValueError(f"{path}: the frame at line {start + 1} is not XYZ, or is cut short") from None
        molecules.append(Molecule(tuple(atom[0] for atom in atoms), positions))
        comments.append(lines[start + 1])
        start += 2 + n_atoms
    return molecules, comments
