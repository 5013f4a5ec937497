"""What samples are set beside: sizes, atom types and bond lengths of QM9 and of GEOM-Drugs."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from symdiff_plugin.data import DataError, load_split
from symdiff_plugin.data.geom.conformers import Conformers
from symdiff_plugin.data.geom.dataset_info import of_run
from symdiff_plugin.edm import EdmError, import_edm
from symdiff_plugin.evaluate.geom_data import read_molecules
from symdiff_plugin.molecules.bonds import bonded_pairs
from symdiff_plugin.molecules.molecule import Molecule, from_qm9
from symdiff_plugin.report.folders import ReportError


@dataclass
class MoleculeStatistics:
    """Counts of molecule sizes and of atom types, and the bond lengths in Angstrom of every kind of bond (``C-H``)."""

    sizes: Counter[int] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    bonds: dict[str, list[float]] = field(default_factory=dict)


def count(molecules: Sequence[Molecule]) -> MoleculeStatistics:
    """Statistics of ``molecules``; bonds are judged by distance (:func:`bonded_pairs`), whatever their order."""
    found = MoleculeStatistics()
    for molecule in molecules:
        found.sizes[len(molecule)] += 1
        found.types.update(molecule.symbols)
        for i, j in bonded_pairs(molecule):
            kind = "-".join(sorted((molecule.symbols[i], molecule.symbols[j])))
            length = float(np.linalg.norm(molecule.positions[i] - molecule.positions[j]))
            found.bonds.setdefault(kind, []).append(length)
    return found


def qm9_reference(datadir: Path | None, at_most: int = 4000) -> tuple[MoleculeStatistics, str] | None:
    """Statistics of QM9 and what they are of.

    Args:
        datadir: as EDM's ``--datadir``, with ``qm9/test.npz``: up to ``at_most`` molecules, evenly over the test split
            (it is sorted, the smallest first). If None, EDM's own histograms of the training split, which have
            sizes and atom types but no bonds.

    Returns:
        None without a datadir and without EDM.

    Raises:
        ReportError: there is no readable test split in ``datadir``.
    """
    if datadir is not None:
        return count(_test_split(datadir, at_most)), "QM9, test split"
    try:
        info = import_edm("configs.datasets_config").qm9_with_h
    except EdmError:
        return None
    return _of_info(info), "QM9, training split"


def geom_reference(data_file: Path | None, at_most: int = 4000) -> tuple[MoleculeStatistics, str, str | None] | None:
    """Statistics of GEOM-Drugs or of data in its format, what they are of, and the name of a data set of one's own.

    Args:
        data_file: as ``--data_file`` of ``main_geom_drugs.py``: up to ``at_most`` conformers, evenly over all. If None,
            EDM's own histograms of GEOM-Drugs, which have sizes and atom types but no bonds.

    Returns:
        None without a file and without EDM. The name is None for GEOM-Drugs.

    Raises:
        ReportError: the file cannot be read.
    """
    try:
        info = import_edm("configs.datasets_config").geom_with_h
    except EdmError:
        if data_file is None:
            return None
        raise ReportError("--data_file needs EDM, which has the atom types of GEOM-Drugs: run ./run_tests.sh") from None
    if data_file is None:
        return _of_info(info), "GEOM-Drugs", None
    try:
        conformers = Conformers(data_file)
        info = of_run(Namespace(dataset="geom", data_file=str(data_file)), info)
        molecules = list(read_molecules(conformers, info, _evenly(len(conformers), at_most)))
    except DataError as error:
        raise ReportError(str(error)) from error
    name = info.get("data_set")
    return count(molecules), f"{name or 'GEOM-Drugs'}, {len(molecules):,} conformers", name


def _of_info(info: dict[str, Any]) -> MoleculeStatistics:
    """Sizes and atom types of EDM's description of a data set."""
    types = Counter({info["atom_decoder"][index]: number for index, number in info["atom_types"].items()})
    return MoleculeStatistics(Counter(info["n_nodes"]), types)


def total_variation(first: Counter, second: Counter) -> float:
    """Half the sum of |p - q| of two histograms: 0 when they agree, 1 when they have nothing in common."""
    totals = sum(first.values()), sum(second.values())
    return sum(abs(first[key] / totals[0] - second[key] / totals[1]) for key in {*first, *second}) / 2


def _test_split(datadir: Path, at_most: int) -> list[Molecule]:
    try:
        arrays = load_split(datadir, "test")
    except DataError as error:
        raise ReportError(str(error)) from error
    return from_qm9(arrays, _evenly(len(arrays["num_atoms"]), at_most))


def _evenly(total: int, at_most: int) -> np.ndarray:
    """``at_most`` of ``range(total)``, evenly; all if there are no more."""
    return np.linspace(0, total - 1, min(total, at_most)).round().astype(int)
