"""A data set in GEOM-Drugs' format, for evaluation: the loaders of training, and its molecules one by one."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from symdiff_plugin.data.geom.conformers import Conformers
from symdiff_plugin.data.geom.dataset_info import of_run
from symdiff_plugin.data.geom.flags import DATA_FILE
from symdiff_plugin.data.geom.loading import Loader, dataloaders
from symdiff_plugin.data.schema import DataError
from symdiff_plugin.edm import edm_directory, import_edm
from symdiff_plugin.edm.checkout import GEOM_PERMUTATION
from symdiff_plugin.molecules.molecule import Molecule

HASHED = 4096  # conformers, evenly taken, whose atoms go into the fingerprint


@dataclass(frozen=True)
class GeomData:
    """A data set and its split.

    Attributes:
        loaders: ``train``, ``val`` and ``test``, as in training but for ``--sequential`` and ``--num_workers``.
        dataset_info: EDM's description of the data set.
    """

    loaders: dict[str, Loader]
    dataset_info: dict[str, Any]

    @property
    def conformers(self) -> Conformers:
        """All of them."""
        return self.loaders["test"].dataset.conformers

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Indices of conformers by partition."""
        return {name: loader.dataset.indices for name, loader in self.loaders.items()}

    def fingerprint(self) -> str:
        """sha256 over sizes, split, atom types and the atoms of 4,096 conformers (or of all, if there are fewer).

        It depends on what the files hold, not on their place or date; on GEOM-Drugs it reads 60 MB of 13 GB.

        Raises:
            DataError: an atom has no finite coordinates.
        """
        digest = hashlib.sha256(np.ascontiguousarray(self.conformers.sizes, dtype="<i8").tobytes())
        for index in np.unique(np.linspace(0, len(self.conformers) - 1, HASHED).round().astype(np.int64)):
            digest.update(np.ascontiguousarray(self.conformers[index], dtype="<f8").tobytes())
        for name in sorted(self.parts):
            digest.update(name.encode() + np.ascontiguousarray(self.parts[name], dtype="<i8").tobytes())
        description = {key: self.dataset_info[key] for key in ("name", "atomic_nb", "n_nodes")}
        digest.update(json.dumps(description, sort_keys=True).encode())
        return digest.hexdigest()

    def molecules(self, indices: np.ndarray) -> Iterator[Molecule]:
        """The conformers with these indices, see :func:`read_molecules`."""
        return read_molecules(self.conformers, self.dataset_info, indices)

    def record(self) -> dict[str, Any]:
        """What ``metrics.json`` says of it: ``data_set``, None for GEOM-Drugs, and ``data_conformers``, in all."""
        return {"data_set": self.dataset_info.get("data_set"), "data_conformers": len(self.conformers)}


def read_molecules(conformers: Conformers, dataset_info: dict[str, Any], indices: np.ndarray) -> Iterator[Molecule]:
    """The conformers with these indices as EDM's samples are: centred, coordinates in float32.

    Raises:
        DataError: one has an element that is not among the atom types of ``dataset_info``.
    """
    symbols = dict(zip(dataset_info["atomic_nb"], dataset_info["atom_decoder"], strict=True))
    for index in indices:
        atoms = conformers[index]
        try:
            names = tuple(symbols[int(number)] for number in atoms[:, 0])
        except KeyError as error:
            raise DataError(
                f"{conformers.path}: conformer {index} has atomic number {error}, which its description lacks: make "
                "the data set again"
            ) from None
        yield Molecule(names, (atoms[:, 1:] - atoms[:, 1:].mean(axis=0)).astype(np.float32))


def load_geom(args: argparse.Namespace) -> GeomData:
    """The data of a run.

    Args:
        args: of ``main_geom_drugs.py``; ``data_file``, ``split`` and ``split_seed`` may be missing from older ones.

    Raises:
        DataError: the data set or its split is missing, damaged or of other data.
        EdmError: EDM is missing or unpatched.
    """
    default = import_edm("configs.datasets_config").get_dataset_info("geom", False)
    info = of_run(args, default)
    plain = argparse.Namespace(**{**vars(args), "sequential": False, "num_workers": 0})
    return GeomData(dataloaders(plain, info, edm_directory() / GEOM_PERMUTATION), info)


def data_arguments(
    data_file: str | Path | None = None, split: str = "official", split_seed: int = 0
) -> argparse.Namespace:
    """The arguments of :func:`load_geom` for data without a run, all sizes included."""
    return argparse.Namespace(
        dataset="geom", data_file=str(data_file or DATA_FILE), split=split, split_seed=split_seed,
        filter_molecule_size=None, include_charges=False, batch_size=1,
    )  # fmt: skip
