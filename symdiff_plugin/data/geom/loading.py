"""EDM's batches of GEOM-Drugs from the array on the disk.

Same items, order and random numbers as upstream's ``GeomDrugsDataset`` and ``GeomDrugsDataLoader``
(build_geom_dataset.py), without their copy of all molecules; ``--sequential`` is
:class:`~symdiff_plugin.data.geom.batches.SizeBucketedBatches` in training. Everything is made on the CPU: the
training loop moves it, and the processes of ``--num_workers`` must not touch the GPU.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from symdiff_plugin.common.workers import DataLoader
from symdiff_plugin.data.geom.batches import SizeBucketedBatches
from symdiff_plugin.data.geom.conformers import Conformers
from symdiff_plugin.data.geom.flags import DATA_FILE
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.geom.split import split
from symdiff_plugin.data.schema import DataError


class GeomDataset(Dataset[dict[str, Tensor]]):
    """Some of the conformers, smallest first, as EDM's model takes them.

    Args:
        conformers: all of the data set.
        indices: (n,) of those to take.
        atomic_nb: atomic number of each atom type.
        include_charges: whether there is a column of charges; they are 0, as upstream.

    Attributes:
        sizes: (n,) int64, the atoms of each.
    """

    def __init__(
        self, conformers: Conformers, indices: np.ndarray, atomic_nb: Sequence[int], include_charges: bool
    ) -> None:
        order = np.argsort(conformers.sizes[indices])  # upstream's sort, not a stable one: equal sizes stand as there
        self.conformers = conformers
        self.indices = indices[order]
        self.sizes = conformers.sizes[self.indices]
        self.include_charges = include_charges
        self._atomic_nb = torch.tensor(atomic_nb, dtype=torch.float64)[None]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """``positions`` (n, 3) float64 in Angstrom, ``one_hot`` (n, types) bool, ``charges``, ``atom_mask`` (n,).

        Raises:
            DataError: an element that is none of the atom types, or an atom without coordinates.
        """
        conformer = int(self.indices[index])
        atoms = torch.from_numpy(self.conformers[conformer].copy())
        one_hot = atoms[:, :1] == self._atomic_nb
        if not one_hot.any(dim=1).all():
            number = atoms[~one_hot.any(dim=1), 0][0]
            raise DataError(
                f"{self.conformers.path}: conformer {conformer} has an atom of {_element(float(number))}, which is not "
                "among the data set's atom types: leave such molecules out, or make the data with types of their own "
                "with `python -m symdiff_plugin.data.geom own`"
            )
        return {
            "positions": atoms[:, 1:],
            "one_hot": one_hot,
            "charges": torch.zeros(len(atoms), 1) if self.include_charges else torch.zeros(0),
            "atom_mask": torch.ones(len(atoms)),
        }


def collate(molecules: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Pad molecules to the largest of them, N atoms; ``edge_mask`` (B N N, 1) has all pairs but each atom's own."""
    batch = {key: pad_sequence([m[key] for m in molecules], batch_first=True) for key in molecules[0]}
    mask = batch["atom_mask"]
    edges = mask[:, None] * mask[:, :, None] * ~torch.eye(mask.size(1), dtype=torch.bool)
    return {**batch, "edge_mask": edges.view(-1, 1)}


class Loader(DataLoader):
    """A loader whose processes' errors are one line too.

    Args:
        refuse: called with a :class:`DataError` met while reading; it must not return.
    """

    dataset: GeomDataset

    def __init__(self, *args: Any, refuse: Callable[[DataError], NoReturn] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._refuse = refuse

    def __iter__(self) -> Any:
        return self._batches(super().__iter__())  # which draws from torch's generator, now as upstream does

    def _batches(self, batches: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        try:
            yield from batches
        except DataError as error:
            # From another process it comes with that process's traceback, the message at the end.
            clean = DataError(str(error).strip().splitlines()[-1].split(f"{DataError.__name__}: ", 1)[-1])
            if self._refuse is not None:
                self._refuse(clean)
            raise clean from None


def dataloaders(
    args: Namespace,
    dataset_info: Mapping[str, Any],
    permutation: Path | None = None,
    refuse: Callable[[DataError], NoReturn] | None = None,
) -> dict[str, Loader]:
    """EDM's loaders, ``train``, ``val`` and ``test``.

    Args:
        args: of the run: ``batch_size``, ``include_charges``, ``filter_molecule_size``, ``sequential``,
            ``num_workers`` and, where they are not upstream's, ``data_file``, ``split``, ``split_seed``.
        dataset_info: EDM's, of which the atom types and the numbers of atoms are taken.
        permutation: EDM's, where it does not lie beside the data.
        refuse: see :class:`Loader`.

    Raises:
        DataError: data or split cannot be used.
    """
    files = GeomFiles(Path(getattr(args, "data_file", DATA_FILE)))
    conformers = Conformers(files.data)
    kind, seed = getattr(args, "split", "official"), getattr(args, "split_seed", 0)
    parts = split(kind, files, len(conformers), seed, permutation)
    _check_sizes(conformers, args.filter_molecule_size, dataset_info)
    loaders = {}
    for name, indices in parts.items():
        if args.filter_molecule_size is not None:
            # After the split, so that it is the same split whatever the filter.
            indices = indices[conformers.sizes[indices] <= args.filter_molecule_size]
        if not len(indices):
            raise DataError(
                f"--filter_molecule_size {args.filter_molecule_size} leaves no molecule of {files.data} for {name}: "
                "raise it"
            )
        dataset = GeomDataset(conformers, indices, dataset_info["atomic_nb"], args.include_charges)
        options = {"collate_fn": collate, "num_workers": args.num_workers, "refuse": refuse}
        if name == "train" and args.sequential:
            batches = SizeBucketedBatches(dataset.sizes, args.batch_size)
            loaders[name] = Loader(dataset, batch_sampler=batches, **options)
        else:
            loaders[name] = Loader(dataset, args.batch_size, shuffle=name == "train", **options)
    return loaders


def _check_sizes(conformers: Conformers, largest: int | None, dataset_info: Mapping[str, Any]) -> None:
    """Refuse numbers of atoms that the data set's description, from which EDM samples them, does not know."""
    found = set(np.flatnonzero(np.bincount(conformers.sizes)).tolist())
    unknown = sorted(n for n in found - set(dataset_info["n_nodes"]) if largest is None or n <= largest)
    if not unknown:
        return
    known = max(dataset_info["n_nodes"])
    remedy = "make the data with their own description with `python -m symdiff_plugin.data.geom own`"
    if unknown[0] > known:
        remedy = f"leave them out with --filter_molecule_size {known}, or {remedy}"
    raise DataError(
        f"{conformers.path} has molecules of {', '.join(map(str, unknown[:5]))}{' ...' if unknown[5:] else ''} atoms, "
        f"of which the data set's description (n_nodes) has none: {remedy}"
    )


def _element(number: float) -> str:
    from rdkit import Chem

    if number == int(number) and 1 <= number <= 118:
        return f"{Chem.GetPeriodicTable().GetElementSymbol(int(number))} (atomic number {int(number)})"
    return f"atomic number {number:g}"
