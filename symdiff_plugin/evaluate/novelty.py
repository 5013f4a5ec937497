"""SMILES of the training set, against which EDM measures novelty.

Upstream reads ``qm9/temp`` whatever ``--datadir`` says, keys its cache by the data set's name alone and takes
12.5 ms a molecule. Here the run's own data are read, the cache is keyed by their content, and a molecule takes
a fraction of a millisecond. The SMILES are EDM's: its table of bond lengths, its sanitisation, its order of bonds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from symdiff_plugin.common.files import write_json
from symdiff_plugin.common.progress import progress
from symdiff_plugin.data.integrity import content_hash
from symdiff_plugin.data.plausible import NEEDED
from symdiff_plugin.data.schema import CHARGES, split_path
from symdiff_plugin.data.store import load_split
from symdiff_plugin.molecules.edm_bonds import bond_orders, bond_thresholds, molecule_of

UPSTREAM_DATADIR = "qm9/temp"
_VERSION = 1


def training_smiles(dataset_info: dict[str, Any]) -> frozenset[str]:
    """SMILES of the molecules a QM9 model was trained on; those RDKit cannot sanitise are left out, as EDM does.

    They are computed once for each training set and kept as ``smiles_*.json`` beside it.

    Args:
        dataset_info: EDM's description of the data set, with the folder of the data under ``datadir``.

    Raises:
        OSError, DataError: the training split is missing or cannot be used.
    """
    path = split_path(dataset_info.get("datadir") or UPSTREAM_DATADIR, "train")
    state = path.stat()
    name = dataset_info["name"] + ("" if dataset_info["with_h"] else "_noH")
    return _smiles_of(path, state.st_mtime_ns, state.st_size, name, tuple(dataset_info["atom_decoder"]))


@lru_cache(maxsize=4)
def _smiles_of(path: Path, mtime: int, size: int, name: str, atom_decoder: Sequence[str]) -> frozenset[str]:
    loaded = load_split(path.parents[1], "train", NEEDED)
    arrays = {key: loaded[key] for key in NEEDED}
    key: dict[str, Any] = {"version": _VERSION, "dataset": name, "sha256": content_hash(arrays)}
    cache = path.parent / f"smiles_{name}_{key['sha256'][:16]}.json"
    known = _read_cache(cache, key)
    if known is not None:
        return known
    molecules = select(arrays, name)
    found = frozenset(smiles for smiles in smiles_of(molecules, atom_decoder) if smiles is not None)
    try:
        write_json(cache, {**key, "molecules": len(molecules), "smiles": sorted(found)})
    except OSError as error:
        print(f"The training set's SMILES are not kept: cannot write {cache} ({error.strerror})", file=sys.stderr)
    return found


def _read_cache(path: Path, key: dict[str, Any]) -> frozenset[str] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if {name: record[name] for name in key} != key:
            return None
        return frozenset(map(str, record["smiles"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def select(arrays: dict[str, np.ndarray], name: str) -> list[tuple[np.ndarray, torch.Tensor]]:
    """The molecules that EDM trains on under the data set ``name``.

    Args:
        arrays: ``charges`` (B, N) and ``positions`` (B, N, 3) of the training split.
        name: ``qm9``, ``qm9_first_half`` or ``qm9_second_half``; with ``_noH`` hydrogens are left out and what
            remains is centred, in the arithmetic of EDM's ``qm9/data/utils.py``.

    Returns:
        The atomic numbers (n,) and the coordinates (n, 3) of each molecule.
    """
    charges, positions = arrays["charges"], arrays["positions"]
    without_h = name.endswith("_noH")
    rows = np.arange(len(charges))
    if name.startswith("qm9_"):
        permutation = np.random.RandomState(42).permutation(len(charges))  # EDM's, without its global seed
        half = len(charges) // 2
        rows = {"first": permutation[:half], "second": permutation[half:]}.get(name.split("_")[1], rows)
    molecules = []
    for row in rows:
        kept = charges[row] > (1 if without_h else 0)
        coordinates = torch.from_numpy(positions[row][kept])
        if without_h:
            coordinates = coordinates - torch.mean(coordinates, dim=0)
        molecules.append((charges[row][kept], coordinates))
    return molecules


def smiles_of(
    molecules: Sequence[tuple[np.ndarray, torch.Tensor]], atom_decoder: Sequence[str]
) -> Iterator[str | None]:
    """EDM's SMILES of each molecule, or None where RDKit cannot sanitise it.

    Args:
        molecules: atomic numbers (n,) and coordinates (n, 3) of each.
        atom_decoder: the symbol of every atom type.
    """
    from qm9.rdkit_functions import mol2smiles  # EDM's
    from rdkit import rdBase

    thresholds = bond_thresholds(atom_decoder)
    types = {CHARGES[symbol]: index for index, symbol in enumerate(atom_decoder)}
    with rdBase.BlockLogs():
        for charges, positions in progress(molecules, "SMILES of the training set"):
            kinds = np.array([types[int(charge)] for charge in charges])
            order = bond_orders(positions, kinds, thresholds)
            bonds = np.column_stack([*np.nonzero(order), order[np.nonzero(order)]])
            yield mol2smiles(molecule_of(kinds, bonds, atom_decoder))
