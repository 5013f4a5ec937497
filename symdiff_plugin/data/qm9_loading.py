"""What EDM's loaders of QM9 ask for where upstream reads, asserts and filters without a word of what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from symdiff_plugin.data.plausible import NEEDED
from symdiff_plugin.data.schema import CHARGES, DataError
from symdiff_plugin.data.store import load_split


def read_split(path: str | Path) -> dict[str, Tensor]:
    """The arrays of ``DIR/qm9/SPLIT.npz``, their content checked once.

    Raises:
        DataError: see :func:`~symdiff_plugin.data.store.load_split`.
    """
    path = Path(path)
    return {key: torch.from_numpy(values) for key, values in load_split(path.parents[1], path.stem, NEEDED).items()}


def species(datasets: Mapping[str, Mapping[str, Tensor]], remove_h: bool) -> Tensor:
    """(S,) the atomic numbers that EDM has types for, ascending; each split must hold all of them, as upstream asserts.

    Args:
        datasets: ``charges`` (B, N) of each split.
        remove_h: whether hydrogen is none of them.

    Raises:
        DataError: a split lacks an element.
    """
    wanted = {number: symbol for symbol, number in CHARGES.items() if number > remove_h}
    for split, data in datasets.items():
        found = data["charges"].flatten().bincount(minlength=max(wanted) + 1)
        lacking = [symbol for number, symbol in wanted.items() if not found[number]]
        if lacking:
            raise DataError(
                f"the molecules of {split} hold no {lacking[0]}: EDM wants {' '.join(wanted.values())} in each split; "
                "take more molecules, or divide them anew"
            )
    return torch.tensor(list(wanted), dtype=data["charges"].dtype)


def with_atoms(num_atoms: Tensor, wanted: int, split: str) -> Tensor:
    """(B,) bool, which molecules of a split ``--filter_n_atoms`` leaves.

    Args:
        num_atoms: (B,) of each.
        wanted: the flag's value.
        split: its name.

    Raises:
        DataError: it leaves none.
    """
    kept = num_atoms == wanted
    if not kept.any():
        sizes = ", ".join(map(str, num_atoms.unique().tolist()))
        raise DataError(f"--filter_n_atoms {wanted} leaves no molecule of {split}: choose one of its sizes, {sizes}")
    return kept


def property_column(properties: Sequence[str], wanted: str) -> int:
    """The column of EDM's context that holds the property ``wanted``.

    Args:
        properties: what the model is conditional on, in order.

    Raises:
        DataError: that is not among them.
    """
    if wanted not in properties:
        there = f"conditional on {', '.join(properties)}" if properties else "not conditional"
        raise DataError(f"--property {wanted}: the generator is {there}; give one that it was trained with")
    return list(properties).index(wanted)
