"""Diverged molecules: noted, and kept from spoiling the batch they are in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from symdiff_plugin.process.sampling_step import told

# Beyond this a float32 sampler overflows within some steps, and no molecule is meant.
DIVERGED = 1e8


class DivergenceGuard(nn.Module):
    """A dynamics whose diverged molecules are noted and silenced: the noise predicted for them is zero.

    One molecule with NaN would fail EDM's assertion that positions are centred (``--debug_checks``) for its whole
    batch.

    Args:
        dynamics: the network.
        tick: called after every call.

    Attributes:
        diverged: (B,) bool, the molecules for which the network once returned, or was given, something not
            finite or absurdly large; None before the first call.
        calls: how many there were, a call that failed not counted.
    """

    def __init__(self, dynamics: Any, tick: Callable[[], Any]) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.tick = tick
        self.diverged: Tensor | None = None
        self.calls = 0

    def _forward(self, t: Tensor, xh: Tensor, node_mask: Tensor, edge_mask: Tensor, context: Tensor | None) -> Tensor:
        """As EDM calls it; see :meth:`symdiff_plugin.model.dynamics.DiTDynamics._forward`."""
        out = self.dynamics._forward(t, xh, node_mask, edge_mask, context)
        lost = ~((out.abs() < DIVERGED) & (xh.abs() < DIVERGED)).all(dim=(1, 2))
        self.diverged = lost if self.diverged is None else self.diverged | lost
        self.calls += 1
        self.tick()
        return torch.where(self.diverged[:, None, None], torch.zeros_like(out), out)

    def marked(self, positions: Tensor) -> np.ndarray:
        """Sampled positions (B, N, 3) on the host, those of diverged molecules NaN."""
        assert self.diverged is not None  # there was a call
        return positions.masked_fill(self.diverged[:, None, None], torch.nan).cpu().numpy()

    def sampling(self, hold_frame: bool = False) -> AbstractContextManager[Any]:
        """The network's own, if it has one."""
        return told(self.dynamics, hold_frame)
