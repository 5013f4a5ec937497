"""Samples of a run, by EDM's own sampler."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.molecules import Molecule, from_padded
from symdiff_plugin.evaluate.run import TrainedRun
from symdiff_plugin.progress import progress

# Beyond this a float32 sampler overflows within some steps, and no molecule is meant.
DIVERGED = 1e8


class Watched(nn.Module):
    """A dynamics whose diverged molecules are noted and silenced: the noise predicted for them is zero.

    One molecule with NaN would fail EDM's assertion that positions are centred (``--debug_checks``) for its whole
    batch.

    Args:
        dynamics: the network.
        tick: called after every call.

    Attributes:
        diverged: (B,) bool, the molecules for which the network once returned, or was given, something not
            finite or absurdly large; None before the first call.
    """

    def __init__(self, dynamics: nn.Module, tick: Callable[[], Any]) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.tick = tick
        self.diverged: Tensor | None = None

    def _forward(self, t: Tensor, xh: Tensor, node_mask: Tensor, edge_mask: Tensor, context: Tensor | None) -> Tensor:
        """As EDM calls it; see :meth:`symdiff_plugin.dynamics.DiTDynamics._forward`."""
        out = self.dynamics._forward(t, xh, node_mask, edge_mask, context)
        lost = ~((out.abs() < DIVERGED) & (xh.abs() < DIVERGED)).all(dim=(1, 2))
        self.diverged = lost if self.diverged is None else self.diverged | lost
        self.tick()
        return torch.where(self.diverged[:, None, None], torch.zeros_like(out), out)

    def sampling(self) -> AbstractContextManager[Any]:
        """The network's own, if it has one; see :func:`symdiff_plugin.hooks.sampling`."""
        return getattr(self.dynamics, "sampling", contextlib.nullcontext)()


@contextlib.contextmanager
def watched(model: nn.Module, tick: Callable[[], Any]) -> Iterator[Watched]:
    """Put a :class:`Watched` in the place of ``model.dynamics`` for a while."""
    dynamics = model.dynamics
    model.dynamics = Watched(dynamics, tick)
    try:
        yield model.dynamics
    finally:
        model.dynamics = dynamics


def sample_molecules(run: TrainedRun, n_samples: int, batch_size: int) -> tuple[list[Molecule], float]:
    """Draw molecules, their sizes (and properties, for a conditional model) from EDM's distributions.

    Args:
        run: the run; its random numbers come from torch's global generator.
        n_samples: how many.
        batch_size: how many at once; the last batch may be smaller.

    Returns:
        The molecules, in Angstrom, and the seconds that one took. One for which the network returned something
        not finite has NaN for its coordinates.
    """
    sample = import_edm("qm9.sampling").sample
    sizes = [min(batch_size, n_samples - done) for done in range(0, n_samples, batch_size)]
    ticks = progress(range(len(sizes) * (run.args.diffusion_steps + 1)), f"Sampling {n_samples:,} molecules")
    molecules: list[Molecule] = []
    start = time.monotonic()
    for size in sizes:
        with (
            watched(run.model, lambda: next(ticks, None)) as dynamics,
            contextlib.redirect_stdout(io.StringIO()),
            torch.no_grad(),
        ):
            one_hot, _, x, node_mask = sample(
                run.args, run.device, run.model, run.dataset_info,
                prop_dist=run.prop_dist, nodesxsample=run.nodes_dist.sample(size),
            )  # fmt: skip
        positions = x.cpu().numpy()
        positions[dynamics.diverged.cpu().numpy()] = np.nan
        types = one_hot.argmax(dim=-1).cpu().numpy()
        mask = node_mask.squeeze(-1).cpu().numpy()
        molecules += from_padded(positions, types, mask, run.dataset_info["atom_decoder"])
    next(ticks, None)  # past the last, so that the bar is closed
    return molecules, (time.monotonic() - start) / n_samples
