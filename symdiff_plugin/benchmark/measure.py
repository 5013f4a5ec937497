"""Measures contenders in turn, so that a change in the machine's speed hits all of them alike."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

from symdiff_plugin.benchmark.contenders import Contender, Model, build
from symdiff_plugin.benchmark.floor import flops, optimiser_bytes, seconds
from symdiff_plugin.benchmark.synchronisations import count_synchronisations
from symdiff_plugin.benchmark.workloads import Step, Workload, molecules, prepare
from symdiff_plugin.common.memory import peak_memory
from symdiff_plugin.common.progress import progress

# A round runs the work of a contender again until this many seconds are full, and takes the median.
SECONDS_A_ROUND = 2.0
_WARM_UP = 2


@dataclass
class Result:
    """What was measured of one contender at one workload.

    Attributes:
        workload: its name in ``WORKLOADS``.
        contender: as :class:`Contender` prints it.
        parameters: trained parameters.
        molecules, atoms, length: of the batch: molecules, real atoms, atoms of a padded molecule.
        rounds: seconds of the whole step, a number a round.
        network_rounds: seconds of the loss and its gradients alone; of a call the same as ``rounds``.
        ratios, network_ratios: the first EGNN's seconds over these, round by round; empty without an EGNN.
        memory: peak above the state before, in bytes.
        synchronisations: how often the host waits for the device, by operation.
        flops: of the matrix products of one step.
        floor: least seconds of one step on this machine; see :mod:`symdiff_plugin.benchmark.floor`.
    """

    workload: str
    contender: str
    parameters: int
    molecules: int
    atoms: int
    length: int
    memory: int
    synchronisations: dict[str, int]
    flops: int
    floor: float
    rounds: list[float] = field(default_factory=list)
    network_rounds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    network_ratios: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return median(self.rounds)


@dataclass(frozen=True)
class Peaks:
    """What the device reaches: FLOP/s of matrix products by precision, bytes/s of memory."""

    gemm: dict[str, float]
    bandwidth: float


def measure(
    name: str,
    workload: Workload,
    contenders: Sequence[Contender],
    datadir: Path,
    device: torch.device,
    rounds: int,
    peaks: Peaks,
    seed: int = 0,
) -> list[Result]:
    """All contenders at one workload, on the same molecules.

    Raises:
        ValueError: no data.
        EdmError: no EDM.
    """
    results: list[Result] = []
    steps: list[Step] = []
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))  # EDM reports each gradient that it clips
        for contender in progress(contenders, f"{workload.label}: memory"):
            model = build(contender, workload.dataset, device, seed)
            _randomise(model)
            chosen = molecules(workload, datadir, model.dataset_info, seed)
            step, batch = prepare(workload, model, chosen, device)
            if not workload.training:  # within a sampling run, where the bfloat16 weights are made once
                stack.enter_context(getattr(model.diffusion.dynamics, "sampling", nullcontext)())
            for _ in range(1 if contender.is_egnn else _WARM_UP):
                step.run()
            work = flops(step.run)
            floor = work / peaks.gemm[contender.precision]
            if workload.training:
                floor += optimiser_bytes(model.parameters) / peaks.bandwidth
            results.append(
                Result(
                    name, str(contender), model.parameters, workload.molecules, batch.atoms, batch.length,
                    peak_memory(step.run, device), count_synchronisations(step.run), work, floor,
                )
            )  # fmt: skip
            steps.append(step)
        turns = [pair for _ in range(rounds) for pair in zip(results, steps, strict=True)]
        for result, step in progress(turns, f"{workload.label}: time"):
            result.rounds.append(_round(step.run, device))
            separate = step.network is not step.run
            result.network_rounds.append(_round(step.network, device) if separate else result.rounds[-1])
    _compare(results, contenders)
    return results


def _round(work: Callable[[], object], device: torch.device) -> float:
    first = seconds(work, device)
    more = min(20, math.ceil(SECONDS_A_ROUND / first) - 1)
    return median([first, *(seconds(work, device) for _ in range(more))])


def _compare(results: list[Result], contenders: Sequence[Contender]) -> None:
    baseline = next((r for r, c in zip(results, contenders, strict=True) if c.is_egnn), None)
    if baseline is None:
        return
    for result in results:
        result.ratios = [b / a for a, b in zip(result.rounds, baseline.rounds, strict=True)]
        result.network_ratios = [b / a for a, b in zip(result.network_rounds, baseline.network_rounds, strict=True)]


def _randomise(model: Model) -> None:
    """Weights that are not zero: a fresh DiT multiplies by many zeros, and zeros may be faster than numbers."""
    with torch.no_grad():
        for p in model.diffusion.dynamics.parameters():
            if not p.any():
                torch.nn.init.normal_(p, std=0.02)
