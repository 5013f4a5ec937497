"""A data set in GEOM-Drugs' format, for evaluation: its split, its molecules one by one, EDM's batches of them.

Nothing is read but what is asked for: the conformers stay in their memory map. Which conformers belong to a partition
is said by :func:`symdiff_plugin.data.geom.split.split`, as in training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from symdiff_plugin.data.geom.conformers import Conformers
from symdiff_plugin.data.geom.dataset_info import load as load_dataset_info
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.geom.split import split
from symdiff_plugin.data.schema import DataError
from symdiff_plugin.edm import edm_directory, import_edm
from symdiff_plugin.edm.checkout import GEOM_PERMUTATION
from symdiff_plugin.evaluate.molecules import Molecule

DEFAULT_FILE = "data/geom/geom_drugs_30.npy"
HASHED = 4096  # conformers, evenly taken, whose atoms go into the fingerprint


@dataclass(frozen=True)
class GeomData:
    """A data set and its split.

    Attributes:
        conformers: all of them.
        parts: indices of conformers by partition: ``train``, ``val`` and ``test``.
        dataset_info: EDM's description of the data set.
        own: what a data set other than GEOM-Drugs is called; None for GEOM-Drugs.
    """

    conformers: Conformers
    parts: dict[str, np.ndarray]
    dataset_info: dict[str, Any]
    own: str | None

    def fingerprint(self) -> str:
        """sha256 over all sizes, the atoms of 4,096 conformers (of all, if there are fewer), the split, the description.

        It depends on what the files hold, not on their place or date; on GEOM-Drugs it reads 60 MB of 13 GB.

        Raises:
            DataError: an atom has no finite coordinates.
        """
        digest = hashlib.sha256(np.ascontiguousarray(self.conformers.sizes, dtype="<i8"))
        for index in np.unique(np.linspace(0, len(self.conformers) - 1, HASHED).round().astype(np.int64)):
            digest.update(np.ascontiguousarray(self.conformers[index], dtype="<f8"))
        for name in sorted(self.parts):
            digest.update(name.encode() + np.ascontiguousarray(self.parts[name], dtype="<i8").tobytes())
        description = {key: value for key, value in self.dataset_info.items() if key != "datadir"}
        digest.update(json.dumps(description, sort_keys=True).encode())
        return digest.hexdigest()

    def molecules(self, indices: np.ndarray) -> Iterator[Molecule]:
        """The conformers with these indices as EDM's samples are: centred, coordinates in float32.

        Raises:
            DataError: one has an element that is not among the data set's atom types.
        """
        symbols = dict(zip(self.dataset_info["atomic_nb"], self.dataset_info["atom_decoder"], strict=True))
        for index in indices:
            atoms = self.conformers[index]
            try:
                names = tuple(symbols[int(number)] for number in atoms[:, 0])
            except KeyError as error:
                raise DataError(
                    f"{self.conformers.path}: conformer {index} has atomic number {error}, which its description "
                    "lacks: make the data set again"
                ) from None
            yield Molecule(names, (atoms[:, 1:] - atoms[:, 1:].mean(axis=0)).astype(np.float32))

    def record(self) -> dict[str, Any]:
        """What ``metrics.json`` says of the data set: ``data_set`` (None: GEOM-Drugs) and ``data_conformers``."""
        return {"data_set": self.own, "data_conformers": len(self.conformers)}


def load_geom(args: argparse.Namespace) -> GeomData:
    """The data of a run.

    Args:
        args: ``data_file``, ``split`` and ``split_seed`` of ``main_geom_drugs.py``, and ``filter_molecule_size``; what
            is missing has the flag's default.

    Raises:
        DataError: the data set or its split is missing, damaged or of other data.
        EdmError: EDM is missing or unpatched.
    """
    files = GeomFiles(Path(getattr(args, "data_file", None) or DEFAULT_FILE))
    conformers = Conformers(files.data)
    parts = split(
        getattr(args, "split", None) or "official", files, len(conformers), getattr(args, "split_seed", None) or 0,
        permutation=edm_directory() / GEOM_PERMUTATION,
    )  # fmt: skip
    largest = getattr(args, "filter_molecule_size", None)
    if largest is not None:
        parts = {name: rows[conformers.sizes[rows] <= largest] for name, rows in parts.items()}
    info = load_dataset_info(files)
    own = None if info is None else str(info.get("data_set") or files.data.stem)
    if info is None:
        info = import_edm("configs.datasets_config").get_dataset_info("geom", False)
    return GeomData(conformers, parts, dict(info), own)


class Partition(Dataset):
    """Conformers as EDM's ``GeomDrugsTransform`` hands them to its batches, by size, the smallest first.

    Args:
        data: from :func:`load_geom`.
        indices: which conformers.
        include_charges: whether the model has charges.
    """

    def __init__(self, data: GeomData, indices: np.ndarray, include_charges: bool = False) -> None:
        self.conformers = data.conformers
        self.indices = indices[np.argsort(data.conformers.sizes[indices], kind="stable")]
        transform = import_edm("build_geom_dataset").GeomDrugsTransform
        self._transform = transform(data.dataset_info, include_charges, torch.device("cpu"), False)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One conformer: ``positions`` (n, 3), ``one_hot`` (n, types), ``charges``, ``atom_mask`` (n,)."""
        return self._transform(np.array(self.conformers[self.indices[index]]))


def held_out_loaders(data: GeomData, batch_size: int, include_charges: bool = False) -> dict[str, DataLoader]:
    """EDM's batches of the validation and the test partition, ``val`` and ``test``.

    Their edge masks leave the diagonal out, whatever ``--sequential`` said in training.
    """
    collate = import_edm("build_geom_dataset").collate_fn
    return {
        name: DataLoader(Partition(data, data.parts[name], include_charges), batch_size, collate_fn=collate)
        for name in ("val", "test")
    }
