r"""The least time that a step can take on this machine, from its arithmetic and the memory it must move.

    floor = FLOPs of the matrix products / peak of a large matrix product  (+ bytes of the optimiser / bandwidth)

Both peaks are measured in the same run. The bytes of the optimiser's part are those of clipping (read twice, write
once), AdamW with amsgrad (read five tensors, write four) and the moving average (read two, write one), of parameters
in float32; no activation is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

_OPTIMISER_BYTES = 4 * (3 + 9 + 3)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told; nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one run of ``work``, with what it left to the device."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def gemm_peak(precision: str, device: torch.device, repeats: int = 10) -> float:
    """FLOP/s of a large matrix product, the best of ``repeats``; ``precision`` is ``fp32`` or ``bf16``."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(_DTYPES[precision]) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: a @ b, device) for _ in range(repeats))


def bandwidth(device: torch.device, repeats: int = 10) -> float:
    """Bytes/s of an addition of two large tensors in place, two read and one written; the best of ``repeats``."""
    a, b = (torch.zeros(1 << 26, device=device) for _ in range(2))
    return 3 * a.nbytes / min(seconds(lambda: a.add_(b), device) for _ in range(repeats))


def flops(step: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products of one run of ``step``."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def optimiser_bytes(parameters: int) -> int:
    """Bytes that clipping, AdamW with amsgrad and the moving average move at least."""
    return _OPTIMISER_BYTES * parameters
