"""How the memory of a denoising call grows with the molecules, and what padding costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from symdiff_plugin.benchmark.contenders import Contender, build
from symdiff_plugin.benchmark.floor import seconds
from symdiff_plugin.benchmark.workloads import WORKLOADS, denoising_call, molecules, padded
from symdiff_plugin.common.memory import peak_memory


@dataclass
class Scaling:
    """Attributes:
    contender: as :class:`Contender` prints it.
    memory_ratio: peak of a call with twice the atoms in each of the molecules, over the peak with theirs.
    padding_ratio: seconds of a call padded to the data set's largest molecule, over those padded to the batch's.
    longest, max_n_nodes: those two lengths.
    """

    contender: str
    memory_ratio: float
    padding_ratio: float
    longest: int
    max_n_nodes: int


def scaling(contender: Contender, datadir: Path, device: torch.device, rounds: int, seed: int = 0) -> Scaling:
    """Measured on the molecules of the ``geom_call`` workload."""
    workload = WORKLOADS["geom_call"]
    model = build(contender, workload.dataset, device, seed)
    info = model.dataset_info
    chosen = molecules(workload, datadir, info, seed)
    longest = max(map(len, chosen))

    def call(batch: list[np.ndarray], length: int) -> Callable[[], None]:
        return denoising_call(model, padded(batch, info, length, model.args.include_charges, device)).run

    doubled = [np.concatenate([m, m + np.array([0, 5, 0, 0])]) for m in chosen]
    peaks = []
    for batch in (chosen, doubled):
        step = call(batch, max(map(len, batch)))
        step()
        peaks.append(peak_memory(step, device))
    steps = [call(chosen, longest), call(chosen, info["max_n_nodes"])]
    for step in steps * 2:
        step()
    times = [[seconds(step, device) for step in steps] for _ in range(10 * rounds)]
    ratio = median(wide / narrow for narrow, wide in times)
    return Scaling(str(contender), peaks[1] / peaks[0], ratio, longest, info["max_n_nodes"])
