"""QM9 from the CSV files of the package ``qm9pack``, read without importing it.

``qm9pack`` ships the 130,831 characterised molecules with every property of the original archive. Importing
it needs pandas and pkg_resources; its files need neither.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from symdiff_plugin.common.progress import bar
from symdiff_plugin.data.schema import CHARGES, N_MOLECULES, DataError, ResourceError
from symdiff_plugin.data.splits import QM9Molecule, make_molecule

# The columns of PROPERTIES, in that order ("Enthalphy" is qm9pack's spelling).
PROPERTY_COLUMNS = (
    "RotA_GHz", "RotB_GHz", "RotC_GHz", "Dipole_debye", "Polarizability_bohr3", "HOMO_au", "LUMO_au",
    "HOMO_LUMO_gap_au", "R2_bohr2", "ZPVE_au", "InternalEnergy_0K_au", "InternalEnergy_298K_au",
    "Enthalphy_298K_au", "GibbsFreeEnergy_298K_au", "Heatcapacity_Cv_cal_mol_K",
)  # fmt: skip
COLUMNS = ("Index", "Elements", "XYZ_Ang", "Harmonic_Freq_cmi", *PROPERTY_COLUMNS)
REMEDY = "reinstall qm9pack"

# The lists are Python's notation, with numbers such as `0.` and `1.e-6` that JSON does not know: drop the
# brackets and quotes, split at the commas.
_NO_BRACKETS = str.maketrans("", "", "[]' \"")


def find_qm9pack() -> Path | None:
    """The folder of qm9pack's CSV files, or None where the package is not installed."""
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def require_qm9pack() -> Path:
    """The folder of qm9pack's CSV files.

    Raises:
        ResourceError: the package is not installed.
    """
    folder = find_qm9pack()
    if folder is None:
        raise ResourceError("qm9pack is not installed: pip install qm9pack")
    return folder


def _rows(folder: Path, description: str) -> Iterator[tuple[str, list[str]]]:
    """(where, values of ``COLUMNS``) of every row of the parts, in file order, under a progress bar."""
    parts = sorted(folder.glob("qm9_part*.csv"))
    if not parts:
        raise DataError(f"{folder} holds no qm9_part*.csv: {REMEDY}")
    with bar(description, N_MOLECULES, " molecules", unit_scale=True) as shown:
        for part in parts:
            try:
                with part.open(newline="", encoding="utf-8") as file:
                    reader = csv.reader(file)
                    header = next(reader, [])
                    missing = [name for name in COLUMNS if name not in header]
                    if missing:
                        raise DataError(f"{part} has no column {missing[0]}: {REMEDY}")
                    columns = [header.index(name) for name in COLUMNS]
                    for row in reader:
                        if len(row) != len(header):
                            raise DataError(f"{part}, line {reader.line_num} is cut short: {REMEDY}")
                        yield f"{part}, line {reader.line_num}", [row[column] for column in columns]
                        shown.update()
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise DataError(f"{part} cannot be read ({error}): {REMEDY}") from error


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.translate(_NO_BRACKETS).split(",")]


def read_qm9pack(folder: Path, wanted: Container[int] | None = None) -> Iterator[QM9Molecule]:
    """The molecules of qm9pack, in the order of its files.

    Args:
        folder: qm9pack's folder of CSV files.
        wanted: the ``index`` of the molecules to read; all where None. The others are not parsed.

    Raises:
        DataError: a file that is missing, cut short or not qm9pack's.
    """
    for where, (index, elements, positions, frequencies, *properties) in _rows(folder, "Reading qm9pack"):
        try:
            number = int(index)
            if wanted is not None and number not in wanted:
                continue
            yield make_molecule(
                number,
                elements.translate(_NO_BRACKETS).split(","),
                _numbers(positions),
                [float(value) for value in properties],
                _numbers(frequencies),
            )
        except ValueError as error:  # DataError is one
            raise DataError(f"{where}: {error}: {REMEDY}") from error


def read_catalogue(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Which molecules there are, and which elements each has, without parsing the rest.

    Returns:
        ``index`` (B,) int64, ascending, and ``presence`` (B, 5) bool: does H, C, N, O, F occur?

    Raises:
        DataError: a file that is missing, cut short or not qm9pack's.
    """
    quoted = [f"'{symbol}'" for symbol in CHARGES]
    index, presence = [], []
    for where, (number, elements, *_) in _rows(folder, "Listing qm9pack"):
        try:
            index.append(int(number))
        except ValueError as error:
            raise DataError(f"{where}: {error}: {REMEDY}") from error
        presence.append([symbol in elements for symbol in quoted])
    order = np.argsort(index)
    return np.array(index, dtype=np.int64)[order], np.array(presence, dtype=bool)[order]
