"""The exponential moving average of a model's parameters, updated in place and many tensors at a time.

    average <- beta average + (1 - beta) current

Both products are rounded before they are added, as upstream does it, so that the averages are upstream's to the last
bit; a fused multiply-add or ``lerp`` would round otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress

import torch
from torch import Tensor, nn

# Elements whose product with 1 - beta is in memory at once (4 MB in float32): chunks that stay in a CPU's cache.
_CHUNK = 1 << 20


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, beta: float) -> None:
    """Move the parameters of ``average`` towards those of ``model``; buffers are left alone.

    Parameters that require no gradient are averaged too, as upstream does it, except those that
    :func:`symdiff_plugin.training.init_from.freeze` froze: the average of equal numbers is off by a rounding.

    Args:
        average: changed in place.
        model: of the same architecture.
        beta: the weight of the old average, in [0, 1).
    """
    frozen: frozenset[str] = getattr(model, "frozen_parameters", frozenset())
    moving = [name not in frozen for name, _ in model.named_parameters()]
    pairs: list[list[Tensor]] = [list(compress(module.parameters(), moving)) for module in (average, model)]
    for averages, currents in _chunks(*pairs):
        if hasattr(torch, "_foreach_mul"):  # no public name yet; for a GPU, where every kernel counts
            scaled = torch._foreach_mul(currents, 1 - beta)  # noqa: SLF001
            torch._foreach_mul_(averages, beta)
            torch._foreach_add_(averages, scaled)
        else:
            for old, new in zip(averages, currents, strict=True):
                old.mul_(beta).add_(new * (1 - beta))


def _chunks(averages: list[Tensor], currents: list[Tensor]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    start = elements = 0
    for end, current in enumerate(currents):
        if elements + current.numel() > _CHUNK and end > start:
            yield averages[start:end], currents[start:end]
            start, elements = end, 0
        elements += current.numel()
    if currents:
        yield averages[start:], currents[start:]
