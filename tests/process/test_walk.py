"""The loop over the levels: what it projects, what it keeps."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from exact import SCHEDULE
from torch import Tensor

from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.step_rules import Prediction
from symdiff_plugin.process.walk import last, walk


@pytest.mark.parametrize("corrections", [0, 1])
def test_a_centre_of_mass_that_creeps_in_is_taken_out(corrections: int) -> None:
    flags = {"sampler": "ddim", "sampling_steps": 6, "corrector_steps": corrections}
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0]])[..., None].double()
    start = torch.zeros(2, 3, 5, dtype=torch.float64)
    ones, sampler = torch.ones_like(start) * mask, Sampler.of(flags, 1000)
    asked: list[Tensor] = []

    def predict(z: Tensor, level) -> Prediction:
        asked.append(z)
        return SCHEDULE.read(z, ones, level)

    way = walk(start, sampler.levels(SCHEDULE), sampler, predict, lambda: ones, mask)
    stops = list(way)
    assert len(stops) == sampler.intervals
    for z in (*asked, *stops):
        assert z[..., :3].abs().max() < 1e-12  # all that was added was a centre of mass
        assert (z * (1 - mask)).abs().max() == 0
    assert stops[-1][0, :, 3:].abs().min() > 0.1  # h has none


def test_only_the_end_of_a_walk_is_kept() -> None:
    seen: list[weakref.ref] = []

    def way() -> Iterator[Tensor]:
        for i in range(4):
            gc.collect()
            assert all(one() is None for one in seen[:-1])
            z = torch.full((1,), float(i))
            seen.append(weakref.ref(z))
            yield z

    assert last(way()).item() == 3
