"""A split of the data under the metrics of the samples: the row "Data" of the paper's tables (Tables 1 and 4).

EDM's bonds are judged by distance, so not even the data's own molecules are all stable: they are what a perfect model
of the data would score.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.common.progress import progress
from symdiff_plugin.data import DataError, check_datadir, load_split
from symdiff_plugin.data.integrity import data_hash
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.geom_data import data_arguments, load_geom
from symdiff_plugin.evaluate.metrics import Verdict, fractions, verdicts_of
from symdiff_plugin.evaluate.novelty import UPSTREAM_DATADIR, training_smiles
from symdiff_plugin.evaluate.posebusters import bust
from symdiff_plugin.molecules.molecule import Molecule, from_qm9

DEFAULT_DATADIR = UPSTREAM_DATADIR
SPLIT_OF = {"test": "test", "val": "valid", "train": "train"}
_NO_BONDS = np.zeros((0, 3), dtype=np.int16)


def evaluate_split(
    datadir: str | Path, partition: str, n_molecules: int | None = None, seed: int = 0, posebusters: int | None = 0
) -> dict[str, Any]:
    """Judge the molecules of a split of QM9, with hydrogens, as samples are judged.

    Args:
        datadir: the folder that holds ``qm9/``.
        partition: ``test``, ``val`` or ``train``.
        n_molecules: take this many at random; all if None, or if there are no more.
        seed: of that choice.
        posebusters: put as many of them to PoseBusters' checks, at random too; all if None, none if 0.

    Returns:
        What ``metrics.json`` holds: ``kind`` (``data``), ``dataset``, ``partition``, ``n_samples`` (molecules),
        ``data_sha256`` and the metrics of :func:`~symdiff_plugin.evaluate.metrics.fractions`; ``novelty`` is None
        for the training split, against which it is measured; ``seed`` where anything was chosen.

    Raises:
        EvaluationError: there is no such partition, or the data are missing or corrupt.
        EdmError: EDM is missing or unpatched.
        ResourceError: PoseBusters is wanted, and not installed.
    """
    _check(partition)
    try:
        check_datadir(datadir)
        arrays = load_split(datadir, SPLIT_OF[partition])
    except DataError as error:
        raise EvaluationError(f"{error} (or name another folder with --datadir)") from error
    info = import_edm("configs.datasets_config").get_dataset_info("qm9", False)
    dataset_info = {**info, "datadir": str(datadir)}
    rows = _chosen(np.arange(len(arrays["charges"])), n_molecules, seed)

    def molecules(rows: np.ndarray) -> Sequence[Molecule]:
        return from_qm9(arrays, rows)

    known = None if partition == "train" else training_smiles(dataset_info)
    n_atoms = int(arrays["num_atoms"][rows].sum())
    return {
        "kind": "data", "dataset": "qm9", "partition": partition, "n_samples": len(rows),
        "data_sha256": data_hash(datadir),
        **_judged(molecules, rows, n_atoms, dataset_info, known),
        **_busted(molecules, rows, posebusters, seed),
        **_seeded(seed, n_molecules, posebusters),
    }  # fmt: skip


def evaluate_geom_split(
    data_file: str | Path | None,
    partition: str,
    split: str = "official",
    split_seed: int = 0,
    n_molecules: int | None = None,
    seed: int = 0,
    posebusters: int | None = 0,
) -> dict[str, Any]:
    """Judge the conformers of a split of GEOM-Drugs, or of data in its format, as samples are judged.

    They are read one at a time, so that memory is that of the verdicts, a few hundred bytes a conformer.

    Args:
        data_file, split, split_seed: as the flags of ``main_geom_drugs.py``.
        partition, n_molecules, seed, posebusters: see :func:`evaluate_split`.

    Returns:
        What ``metrics.json`` holds: that of :func:`evaluate_split`, without novelty, and ``data_file``, ``split``,
        ``split_seed``, ``data_set``, ``data_conformers``.

    Raises:
        EvaluationError, EdmError, ResourceError: see :func:`evaluate_split`.
    """
    _check(partition)
    args = data_arguments(data_file, split, split_seed)
    try:
        geom = load_geom(args)
        rows = _chosen(geom.parts[partition], n_molecules, seed)
        n_atoms = int(geom.conformers.sizes[rows].sum())
        return {
            "kind": "data", "dataset": "geom", "partition": partition, "n_samples": len(rows),
            "data_file": args.data_file, "split": split, "split_seed": split_seed, **geom.record(),
            "data_sha256": geom.fingerprint(),
            **_judged(geom.molecules, rows, n_atoms, geom.dataset_info),
            **_busted(geom.molecules, rows, posebusters, seed),
            **_seeded(seed, n_molecules, posebusters),
        }  # fmt: skip
    except DataError as error:
        if error.exit_status != EvaluationError.exit_status:
            raise
        raise EvaluationError(f"{error} (or name another file with --data_file)") from error


def _check(partition: str) -> None:
    if partition not in SPLIT_OF:
        raise EvaluationError(f"there is no partition {partition!r}: choose {', '.join(SPLIT_OF)}")


def _chosen(rows: np.ndarray, n_wanted: int | None, seed: int) -> np.ndarray:
    """``n_wanted`` of ``rows`` at random, in their order; all if None."""
    if n_wanted is None or n_wanted >= len(rows):
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), n_wanted, replace=False))]


def _judged(
    molecules: Callable[[np.ndarray], Iterable[Molecule]],
    rows: np.ndarray,
    n_atoms: int,
    dataset_info: dict[str, Any],
    known: frozenset[str] | None = None,
) -> dict[str, Any]:
    shown = progress(molecules(rows), f"Analysing {len(rows):,} molecules", len(rows))
    verdicts: list[Verdict] = [dataclasses.replace(v, bonds=_NO_BONDS) for v in verdicts_of(shown, dataset_info)]
    return fractions(n_atoms, verdicts, known)


def _busted(
    molecules: Callable[[np.ndarray], Iterable[Molecule]], rows: np.ndarray, n_wanted: int | None, seed: int
) -> dict[str, Any]:
    return {} if n_wanted == 0 else {"posebusters": bust(list(molecules(_chosen(rows, n_wanted, seed))))}


def _seeded(seed: int, n_molecules: int | None, posebusters: int | None) -> dict[str, int]:
    return {} if n_molecules is None and posebusters == 0 else {"seed": seed}
