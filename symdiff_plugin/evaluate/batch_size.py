"""How many molecules to sample at once: as many as fit into memory, by measurement, up to where more is no faster.

One denoising step of a few molecules of the data set's largest size is run, its peak of memory taken, and scaled
linearly in the number of molecules. As no molecule is larger, every batch of that many fits, whatever its sizes and
whatever the model; and it is one number, so that an evaluation can be repeated with it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.common.memory import free_memory, peak_memory
from symdiff_plugin.evaluate.sampling import guarded
from symdiff_plugin.evaluate.trained_run import TrainedRun

MEASURED = 4  # molecules: enough for what does not grow with their number to count for little
SHARE = 0.5  # of the free memory: the rest is for others, and for what PyTorch's allocator cannot fill
AT_MOST = {"cpu": 100, "cuda": 1000}
# On a CPU a batch whose tensors leave the caches, and are fetched from the system anew at every step, is slower than a
# small one: on one core EGNN samples QM9 3.3 times as fast 10 at once (50 MiB) as 100, and GEOM-Drugs 3 times as fast
# singly (190 MiB) as 16 at once. With 64 MiB it, symdiff and symdiff_tiny come within 10% of their fastest on both.
FASTEST_ON_CPU = 64 * 2**20


def choose_batch_size(run: TrainedRun, free: int | None = None) -> int:
    """The number of molecules to sample at once, from 1 to ``AT_MOST`` of the device.

    It depends on the model, the data set and the memory, not on what is sampled. It draws random numbers.

    Args:
        run: the run.
        free: bytes of memory that can be had; measured if not given.

    Raises:
        EvaluationError: memory cannot be measured on the run's device.
    """
    return fitting(lambda n_molecules: denoise(run, n_molecules), run.device, free)


def fitting(denoise: Callable[[int], None], device: torch.device, free: int | None = None) -> int:
    """The number of molecules to sample at once, from 1 to ``AT_MOST`` of the device.

    Args:
        denoise: does one step for that many molecules of the largest size; called with 1 and ``MEASURED``.
        device: where.
        free: bytes of memory that can be had; measured if not given.

    Raises:
        EvaluationError: memory cannot be measured on that device.
    """
    if device.type not in AT_MOST:
        raise EvaluationError(f"--batch_size auto needs a cpu or cuda device, not {device}: give a number")
    try:
        if device.type == "cuda":
            denoise(1)  # the first call allocates the workspaces of cuBLAS and its like
        needed = peak_memory(lambda: denoise(MEASURED), device) / MEASURED
    except torch.cuda.OutOfMemoryError:
        return 1
    budget = SHARE * (free_memory(device) if free is None else free)
    if device.type == "cpu":
        budget = min(budget, FASTEST_ON_CPU)
    return max(1, min(AT_MOST[device.type], int(budget / needed)))


@torch.no_grad()
def denoise(run: TrainedRun, n_molecules: int) -> None:
    """The first step of EDM's sampler, for molecules of the largest size of the data set, and all its inputs."""
    diffusion, device = run.model, run.device
    size = run.dataset_info["max_n_nodes"]
    node_mask = torch.ones(n_molecules, size, 1, device=device)
    edge_mask = (1 - torch.eye(size, device=device)).repeat(n_molecules, 1, 1).view(-1, 1)
    context = None
    if run.prop_dist is not None:
        context = torch.zeros(n_molecules, size, run.args.context_node_nf, device=device)
    z = diffusion.sample_combined_position_feature_noise(n_molecules, size, node_mask)
    t = torch.ones(n_molecules, 1, device=device)
    with guarded(diffusion, lambda: None):
        diffusion.sample_p_zs_given_zt(t - 1 / diffusion.T, t, z, node_mask, edge_mask, context)
