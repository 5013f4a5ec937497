"""The way from noise to z_0, whatever the process, the rule and the grid."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from symdiff_plugin.packed.atoms import remove_mean
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.step_rules import StepState, langevin

N_DIMS = 3


def walk(
    z: Tensor,
    levels: Sequence[Level],
    sampler: Sampler,
    predict: Callable[[Tensor, Level], Prediction],
    draw: Callable[[], Tensor],
    node_mask: Tensor,
) -> Iterator[Tensor]:
    """Take ``z`` from the first of ``levels`` to the last.

    Args:
        z: (B, N, 3 + nf), noise; x of zero centre of mass, zero on padding.
        levels: from noise to data; see :meth:`Sampler.levels`.
        sampler: its rule, its stochasticity and its corrections.
        predict: what the network says of z at a level: a call, with a draw of R of its own.
        draw: fresh noise of the shape of ``z``, x of zero centre of mass.
        node_mask: (B, N, 1).

    Yields:
        z at each level after the first.
    """
    state = StepState(predict, draw, sampler.stochasticity)
    for t, s in itertools.pairwise(levels):
        prediction = predict(z, t)
        z = centred(sampler.rule.step(z, prediction, t, s, state), node_mask)
        state.previous = (t, prediction)
        for _ in range(sampler.corrector_steps):
            z = centred(langevin(z, predict(z, s), s, state), node_mask)
        yield z


def last(way: Iterator[Tensor]) -> Tensor:
    """Where a walk ends; what was before is not kept."""
    return collections.deque(way, maxlen=1).pop()


def centred(z: Tensor, node_mask: Tensor) -> Tensor:
    """z with x projected to zero centre of mass, against rounding."""
    return torch.cat([remove_mean(z[..., :N_DIMS], node_mask), z[..., N_DIMS:]], dim=-1)
