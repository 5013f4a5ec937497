"""Numbers of atoms: the histogram of a run's training data, log p(N) on a batch's own device, the nearest size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from symdiff_plugin.training.debug_checks import checking

_sizes_said: set[int] = set()


def histogram(args: Any, n_nodes: Mapping[int, int]) -> dict[int, int]:
    """How many training molecules have how many atoms, as a run filtered its data.

    Args:
        args: the run's arguments, old ones without ``filter_n_atoms`` and ``filter_molecule_size`` included.
        n_nodes: the whole data set's histogram, of EDM's description; in whose order the result is.
    """
    exactly, at_most = getattr(args, "filter_n_atoms", None), getattr(args, "filter_molecule_size", None)
    if args.dataset != "geom" and exactly is not None:
        return {exactly: n_nodes.get(exactly, 1)}
    if args.dataset == "geom" and at_most is not None:
        return {size: count for size, count in n_nodes.items() if size <= at_most}
    return dict(n_nodes)


def commonest(n_nodes: Mapping[int, int]) -> int:
    """The number of atoms that most molecules have: 19 in QM9 (9 without hydrogen), 44 in GEOM-Drugs, as EDM has it."""
    return max(n_nodes, key=lambda size: (n_nodes[size], -size))


class NearestSize(dict[int, Any]):
    """EDM's distributions of one property by number of atoms: of one that the data lack, the nearest one's.

    Of two that are as near it is the smaller. Each number of atoms that is missing is reported once.
    """

    def __missing__(self, n_nodes: int) -> Any:
        nearest = min(self, key=lambda size: (abs(size - n_nodes), size))
        if n_nodes not in _sizes_said:
            _sizes_said.add(n_nodes)
            print(f"No training molecule has {n_nodes} atoms: its property is drawn from those with {nearest}")
        return self[nearest]


class LogProbabilities:
    """The logarithm of a histogram over numbers of atoms, as a table.

    Args:
        sizes: the numbers of atoms that the histogram has.
        log_p: (len(sizes),) the logarithm of their probabilities.
    """

    def __init__(self, sizes: Sequence[int] | Tensor, log_p: Tensor) -> None:
        self.sizes = [int(size) for size in sizes]
        rows = torch.full((max(self.sizes) + 2,), len(self.sizes))  # a size that is missing: the row after the last
        rows[self.sizes] = torch.arange(len(self.sizes))
        self._tables = {torch.device("cpu"): (rows, log_p)}

    def __call__(self, n_nodes: Tensor) -> Tensor:
        """(B,) log p of each number of atoms.

        Args:
            n_nodes: (B,) integers.

        Raises:
            SystemExit: status 1 and one line if the histogram lacks a number of atoms. On a GPU, where looking would
                make the host wait, only with ``--debug_checks``; else log p is then NaN.
        """
        rows, log_p = self._on(n_nodes.device)
        row = rows[n_nodes.clamp(-1, len(rows) - 1)]  # -1: the last row of all, a missing one
        if n_nodes.device.type != "cpu" and checking() and (row == len(self.sizes)).any():
            self._refuse(n_nodes)
        try:
            return log_p[row]
        except IndexError:
            self._refuse(n_nodes)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._tables:
            rows, log_p = self._tables[torch.device("cpu")]
            # Out of range is an error on the CPU alone; a GPU would be lost to the process.
            log_p = torch.cat([log_p, log_p.new_full((1,), float("nan"))])
            self._tables[device] = rows.to(device), log_p.to(device)
        return self._tables[device]

    def _refuse(self, n_nodes: Tensor) -> NoReturn:
        missing = sorted(set(n_nodes.tolist()) - set(self.sizes))
        raise SystemExit(
            f"error: the data hold molecules of {', '.join(map(str, missing))} atoms, of which EDM's histogram "
            "(n_nodes in configs/datasets_config.py) has none: leave them out, or put these data's histogram there"
        )
