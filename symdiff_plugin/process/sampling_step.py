"""What EDM's diffusion model does and tells its network while it samples.

The weights and the masks stay the same meanwhile, no dropout is drawn, and all molecules share the time of a step: a
network sees that in the time's shape in memory, one number expanded to the batch.

With ``--hold_frame`` R0 and eta stay the same as well. R = R0 f_theta(R0^{-1} . z, eta) goes on changing
with z, and a molecule is R0 . Phi(R0^{-1} . noise), Phi the whole trajectory with R0 = I: of a deterministic solver one
ODE. R0 is Haar and the noise's law invariant, so that the molecules' law is invariant exactly, as with a new draw in
each call; but Phi is that of a network that is not symmetrised.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


def told(dynamics: Any, hold_frame: bool = False) -> AbstractContextManager[Any]:
    """Tell ``dynamics``, by entering its context manager ``sampling``, that a trajectory is sampled; if it has one.

    Args:
        dynamics: the network.
        hold_frame: whether what R is made of is drawn once for all calls.
    """
    tell = getattr(dynamics, "sampling", contextlib.nullcontext)
    return tell(hold_frame) if hold_frame else tell()


def sampling(method: Callable[..., T]) -> Callable[..., T]:
    """Decorate a method of EDM's diffusion model that samples: it runs in evaluation mode, and the network is told.

    What the network is told beside: see :func:`told`; ``diffusion.sampler`` says whether R is held.
    """

    @functools.wraps(method)
    def during(diffusion: Any, *args: Any, **kwargs: Any) -> T:
        training = [module for module in diffusion.modules() if module.training]
        diffusion.eval()
        diffusion.is_sampling = True
        try:
            with told(diffusion.dynamics, getattr(getattr(diffusion, "sampler", None), "hold_frame", False)):
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
