"""EDM's ``dataset_info`` of a data set of conformers: atom types, their histogram and that of the sizes.

EDM has it for GEOM-Drugs alone (``geom_with_h``, configs/datasets_config.py), counted over all 6,922,516 conformers,
training or not. Ours is counted in the same way from any data set in its format. ``name`` is always ``geom``, by
which EDM chooses its rules of bonding; the data set's own name is under ``data_set``, which EDM does not read.

EDM's stability analysis (``allowed_bonds``, qm9/bond_analyze.py) knows the sixteen elements of GEOM-Drugs and raises
a KeyError for others, only when an epoch has been trained. Of these it has no bond lengths for Al, Hg and Bi, nor
for B with anything but H and Cl: such an atom never counts as stable.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from symdiff_plugin.data.geom.flags import DATA_FILE
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.schema import DataError

# Atomic number: symbol and colour, EDM's in every picture of GEOM-Drugs (matplotlib's names).
ELEMENTS = {
    1: ("H", "#FFFFFF99"), 5: ("B", "C2"), 6: ("C", "C7"), 7: ("N", "C0"), 8: ("O", "C3"), 9: ("F", "C1"),
    13: ("Al", "C5"), 14: ("Si", "C6"), 15: ("P", "C4"), 16: ("S", "C8"), 17: ("Cl", "C9"), 33: ("As", "C10"),
    35: ("Br", "C11"), 53: ("I", "C12"), 80: ("Hg", "C13"), 83: ("Bi", "C14"),
}  # fmt: skip
RADIUS_H, RADIUS = 0.3, 0.6  # of EDM's pictures


class DatasetStatistics:
    """Histograms of sizes and elements, counted conformer by conformer."""

    def __init__(self) -> None:
        self.sizes: Counter[int] = Counter()
        self.numbers: Counter[int] = Counter()

    def add(self, numbers: np.ndarray) -> None:
        """Count one conformer.

        Args:
            numbers: (n,) its atomic numbers, as integers or as whole floats.
        """
        self.sizes[len(numbers)] += 1
        found, counts = np.unique(numbers, return_counts=True)
        for number, count in zip(found, counts, strict=True):
            self.numbers[int(number)] += int(count)

    def dataset_info(self, data_set: str) -> dict[str, Any]:
        """EDM's dataset_info, its elements in the order of the atomic numbers.

        The order matters: EDM looks a bond up with the earlier type first, and its table of double bonds has C=S
        but not S=C.

        Args:
            data_set: what the data set is called.

        Raises:
            DataError: nothing was counted, or an element that EDM does not know.
        """
        unknown = sorted(set(self.numbers) - set(ELEMENTS))
        if unknown:
            raise DataError(f"{data_set}: EDM has no rules for the elements with atomic numbers {unknown}: leave "
                            "their molecules out")  # fmt: skip
        if not self.sizes:
            raise DataError(f"{data_set} holds no conformer")
        numbers = sorted(self.numbers)
        symbols = [ELEMENTS[number][0] for number in numbers]
        return {
            "name": "geom",
            "data_set": data_set,
            "atom_encoder": {symbol: index for index, symbol in enumerate(symbols)},
            "atomic_nb": numbers,
            "atom_decoder": symbols,
            "max_n_nodes": max(self.sizes),
            "n_nodes": dict(sorted(self.sizes.items())),
            "atom_types": {index: self.numbers[number] for index, number in enumerate(numbers)},
            "colors_dic": [ELEMENTS[number][1] for number in numbers],
            "radius_dic": [RADIUS_H if number == 1 else RADIUS for number in numbers],
            "with_h": True,
        }


def write_dataset_info(info: Mapping[str, Any], file: IO[str]) -> None:
    """Write ``info`` as JSON, which makes strings of its integer keys."""
    json.dump(info, file, indent=2)
    file.write("\n")


def load_dataset_info(files: GeomFiles) -> dict[str, Any] | None:
    """EDM's dataset_info of a data set; None where it has none, and EDM's own of GEOM-Drugs holds.

    Raises:
        DataError: the file is damaged, or belongs to other data than those beside it.
    """
    try:
        text = files.info.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {files.info} ({error})") from error
    remedy = "make the data set again with python -m symdiff_plugin.data.geom"
    try:
        info = json.loads(text)
        for key in ("n_nodes", "atom_types"):
            info[key] = {int(index): count for index, count in info[key].items()}
        fault = _fault(info)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise DataError(f"{files.info} is no dataset_info of EDM ({kind}: {error}): {remedy}") from error
    if fault:
        raise DataError(f"{files.info} is no dataset_info of EDM ({fault}): {remedy}")
    counted, there = sum(info["n_nodes"].values()), _conformers_beside(files)
    if there is not None and there != counted:
        raise DataError(f"{files.info} counts {counted} conformers, {files.n_atoms} has {there}: {remedy}")
    return info


def of_run(args: Any, default: dict[str, Any]) -> dict[str, Any]:
    """The dataset_info of a run, by its ``data_file`` if that is in GEOM's format.

    Args:
        args: the run's arguments, old ones without ``data_file`` included.
        default: EDM's own, for every other run and for data without a dataset_info of their own.

    Returns:
        A new dictionary, into which EDM writes.

    Raises:
        DataError: see :func:`load_dataset_info`.
    """
    found = None
    if getattr(args, "dataset", None) == "geom":
        found = load_dataset_info(GeomFiles(Path(getattr(args, "data_file", None) or DATA_FILE)))
    return dict(default if found is None else found)


def _fault(info: dict[str, Any]) -> str | None:
    """What is wrong with a dataset_info: everything in it follows from the two histograms and the atomic numbers."""
    numbers, sizes, types = info["atomic_nb"], info["n_nodes"], info["atom_types"]
    counts = [*numbers, *sizes, *sizes.values(), *types.values()]
    if not all(type(count) is int and count > 0 for count in counts):
        return "a count or a number that is not a positive integer"
    if sorted(types) != list(range(len(numbers))):
        return "atom_types does not count every element"
    statistics = DatasetStatistics()
    statistics.sizes.update(sizes)
    statistics.numbers.update({number: types[index] for index, number in enumerate(numbers)})
    expected = statistics.dataset_info(info["data_set"])
    if sum(size * count for size, count in sizes.items()) != sum(types.values()):
        return "n_nodes and atom_types count different numbers of atoms"
    return next((f"its {key} does not fit" for key in expected if info[key] != expected[key]), None)


def _conformers_beside(files: GeomFiles) -> int | None:
    """The number of conformers that the data set's own file of sizes holds; None where that cannot be told."""
    try:
        return len(np.load(files.n_atoms, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError, TypeError):  # missing or damaged: for who reads the data to say
        return None
