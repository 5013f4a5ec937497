"""Small random subsets of QM9, for trying things out and for tests; results on one are not results on QM9.

EDM refuses a data set whose splits do not all hold the same elements, and fluorine is rare (1.5% of the
molecules). A slice therefore holds every element in every split, and in both halves of the training split
that ``--dataset qm9_first_half`` and ``qm9_second_half`` take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from symdiff_plugin.data.integrity import INDEX_HASH, index_hash, require_space
from symdiff_plugin.data.qm9pack_source import REMEDY, read_catalogue, read_qm9pack, require_qm9pack
from symdiff_plugin.data.schema import CHARGES, SPLITS, DataError
from symdiff_plugin.data.splits import Arrays, split_rows, tabulate, take
from symdiff_plugin.data.store import SliceSpec, is_made, load_split, open_folder, save_splits

# Molecules that must hold each of H, C, N, O, F; a train split has two halves to supply.
_AT_LEAST = {"train": (2, 2, 2, 2, 4), "valid": (1, 1, 1, 1, 2), "test": (1, 1, 1, 1, 2)}
_ATTEMPTS = 200


def write_slice(
    source_dir: str | Path,
    target_dir: str | Path,
    n_train: int,
    n_valid: int,
    n_test: int,
    seed: int = 0,
    force: bool = False,
) -> None:
    """Make ``target_dir/qm9`` a slice of the data set in ``source_dir/qm9``; nothing to do where it is one.

    Args:
        source_dir, target_dir: two folders as ``--datadir`` takes them.
        n_train, n_valid, n_test: how many molecules of each split.
        seed: of the draw.
        force: replace what is in ``target_dir`` if it is something else.

    Raises:
        DataError: either folder is not what it should be, or the sizes are too small or too large.
    """
    spec = SliceSpec((n_train, n_valid, n_test), seed)
    if Path(source_dir).resolve() == Path(target_dir).resolve():
        raise DataError(f"{target_dir} cannot be a slice of itself: choose another --datadir")
    if force or not is_made(target_dir, spec):
        save_slice({split: load_split(source_dir, split) for split in SPLITS}, target_dir, spec)


def make_slice_from_qm9pack(
    target_dir: str | Path, n_train: int, n_valid: int, n_test: int, seed: int = 0, force: bool = False
) -> None:
    """The same slice as :func:`write_slice` takes from the full set, but from qm9pack's files at once.

    Raises:
        DataError: qm9pack is missing or not what it should be, and the errors of :func:`write_slice`.
    """
    spec = SliceSpec((n_train, n_valid, n_test), seed)
    if not force and is_made(target_dir, spec):
        return
    source = require_qm9pack()
    with open_folder(target_dir) as folder:
        require_space(folder, slice_bytes(spec))
        index, presence = read_catalogue(source)
        if index_hash(index) != INDEX_HASH:
            raise DataError(f"{source} does not hold the 130,831 molecules of QM9: {REMEDY}")
        of_split = split_rows()
        drawn = draw_slice({split: presence[rows] for split, rows in of_split.items()}, spec.sizes, seed)
        wanted = {split: index[of_split[split]][rows] for split, rows in drawn.items()}
        everything = np.sort(np.concatenate(list(wanted.values())))
        table = tabulate(read_qm9pack(source, set(everything.tolist())), len(everything))
        splits = {split: take(table, np.searchsorted(everything, numbers)) for split, numbers in wanted.items()}
        save_splits(target_dir, splits, spec)


def save_slice(full: Mapping[str, Arrays], target_dir: str | Path, spec: SliceSpec) -> None:
    """Draw the slice ``spec`` of three splits in memory and write it.

    Raises:
        DataError: as :func:`write_slice`.
    """
    presence = {split: element_presence(arrays["charges"]) for split, arrays in full.items()}
    drawn = draw_slice(presence, spec.sizes, spec.seed)
    with open_folder(target_dir) as folder:
        require_space(folder, slice_bytes(spec))
        save_splits(target_dir, {split: take(full[split], rows) for split, rows in drawn.items()}, spec)


def slice_bytes(spec: SliceSpec) -> int:
    """Disk space that a slice needs, generously: a molecule takes about 300 bytes compressed."""
    return 1_000_000 + 500 * sum(spec.sizes)


def element_presence(charges: np.ndarray) -> np.ndarray:
    """Which of H, C, N, O, F occur in each molecule.

    Args:
        charges: (B, N) atomic numbers, 0 on padding.

    Returns:
        (B, 5) bool.
    """
    return np.stack([(charges == charge).any(axis=1) for charge in CHARGES.values()], axis=1)


def draw_slice(presence: Mapping[str, np.ndarray], sizes: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Draw the rows of a slice, the same for the same arguments on every machine.

    Each split's rows are the first ``size`` of a random permutation, save that molecules with an element
    that would be too rare come first.

    Args:
        presence: for each split, (B, 5) bool: which molecules hold which of the five elements.
        sizes: how many molecules of train, valid and test.
        seed: of the draw.

    Returns:
        For each split, its rows, ascending.

    Raises:
        DataError: a size that is too small to hold every element, or larger than the split.
    """
    random = np.random.RandomState(seed)  # its stream is frozen, unlike default_rng's
    return {split: _draw(presence[split], size, split, random) for split, size in zip(SPLITS, sizes, strict=True)}


def _draw(presence: np.ndarray, size: int, split: str, random: np.random.RandomState) -> np.ndarray:
    if size > len(presence):
        raise DataError(f"a slice cannot take {size:,} of the {len(presence):,} molecules of {split}")
    if size == len(presence):
        return np.arange(size)
    for _ in range(_ATTEMPTS):
        order = random.permutation(len(presence))
        first: list[int] = []
        # Fluorine first: its molecules hold most of the other elements too.
        for element in reversed(range(presence.shape[1])):
            lacking = _AT_LEAST[split][element] - int(presence[first, element].sum())
            if lacking > 0:
                bearing = order[presence[order, element]]
                first += [row for row in bearing if row not in first][:lacking]
        if len(first) > size:
            continue
        rest = order[~np.isin(order, first)]
        rows = np.sort(np.concatenate([np.array(first, dtype=np.int64), rest[: size - len(first)]]))
        if all(presence[part].any(axis=0).all() for part in _parts(rows, split)):
            return rows
    raise DataError(f"a slice of {size} molecules is too small for {split}: each element must occur in it; take more")


def _parts(rows: np.ndarray, split: str) -> list[np.ndarray]:
    """The parts of a split that EDM may use on their own: its halves are drawn with seed 42."""
    if split != "train":
        return [rows]
    order = np.random.RandomState(42).permutation(len(rows))
    half = len(rows) // 2
    return [rows[order[:half]], rows[order[half:]]]
