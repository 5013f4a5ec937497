"""What EDM's diffusion model does and tells its network while it samples.

The weights and the masks stay the same meanwhile, no dropout is drawn, and all molecules share the time of a step: a
network sees that in the time's shape in memory, one number expanded to the batch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


def sampling(method: Callable[..., T]) -> Callable[..., T]:
    """Decorate a method of EDM's diffusion model that samples: it runs in evaluation mode, and the network is told.

    The network is told by entering its context manager ``sampling()``, if it has one.
    """

    @functools.wraps(method)
    def during(diffusion: Any, *args: Any, **kwargs: Any) -> T:
        training = [module for module in diffusion.modules() if module.training]
        diffusion.eval()
        diffusion.is_sampling = True
        try:
            with getattr(diffusion.dynamics, "sampling", contextlib.nullcontext)():
                return method(diffusion, *args, **kwargs)
        finally:
            diffusion.is_sampling = False
            for module in training:
                module.training = True

    return during


def step_time(diffusion: nn.Module, t: Tensor) -> Tensor:
    """The time that the network is given: while sampling one element, expanded to the batch; else ``t`` itself.

    Args:
        diffusion: EDM's diffusion model.
        t: (B, 1); while sampling all elements are equal.
    """
    return t[:1].expand_as(t) if getattr(diffusion, "is_sampling", False) else t
