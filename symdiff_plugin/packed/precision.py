"""Where the networks compute in bfloat16, and whether that is any use on this CPU."""

from __future__ import annotations

import functools
import sys
import time
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast(device_type: str, enabled: bool) -> AbstractContextManager[None]:
    """bfloat16 autocast on or off; nothing on devices that have none, such as ``meta``."""
    if not torch.amp.is_autocast_available(device_type):
        return nullcontext()
    return torch.autocast(device_type, torch.bfloat16, enabled=enabled)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type in which a Linear would compute on ``x``: autocast's where it is on, else that of ``x``."""
    kind = x.device.type
    if x.dtype == torch.float32 and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


# A product has to be slower by this factor before anything is said of it: less is within the noise of so short a time.
_SLOWER = 1.1


@functools.cache  # once a process
def tell_if_slower(precision: str, device_type: str, width: int) -> None:
    """Say on stderr, in one line, that ``bf16`` will cost time on this CPU, if a short measurement shows it.

    Args:
        precision: ``fp32``, for which nothing is measured, or ``bf16``.
        device_type: where the networks compute; nothing is measured but for ``cpu``.
        width: of the networks' tokens.
    """
    if precision != "bf16" or device_type != "cpu":
        return
    ratio = bfloat16_time(width)
    if ratio > _SLOWER:
        print(
            f"--precision bf16 will be slower than fp32: this CPU lacks the units for it (a product takes {ratio:.1f} "
            "times as long)",
            file=sys.stderr,
        )


def bfloat16_time(width: int, tokens: int = 1024, seconds: float = 0.3) -> float:
    """The time of a matrix product in bfloat16, in that of float32; no random numbers are drawn.

    Args:
        width: the product is that of an MLP's first layer, (tokens, width) by (width, 4 width).
        tokens: rows.
        seconds: how long to repeat it; the fastest of each precision counts.
    """
    rows, columns = (torch.linspace(-1, 1, n * width).view(n, width) for n in (tokens, 4 * width))
    operands = [(rows.to(dtype), columns.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    for pair in operands:  # the first call of a kind also prepares
        _seconds(*pair)
    best = [float("inf")] * 2
    end = time.perf_counter() + seconds
    while True:
        best = [min(least, _seconds(*pair)) for least, pair in zip(best, operands, strict=True)]
        if time.perf_counter() >= end:
            return best[1] / best[0]


def _seconds(rows: Tensor, columns: Tensor) -> float:
    start = time.perf_counter()
    torch.nn.functional.linear(rows, columns)
    return time.perf_counter() - start
