"""Every sampler turns molecules with the noise that they came from, in law: moments over many draws."""

from __future__ import annotations

import pytest
import torch
from exact import SCHEDULE
from torch import Tensor

from symdiff_plugin.model.groups import sample_haar
from symdiff_plugin.process.diffusion import centred_noise, padded_mask
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.sampler import RULES_OF, Sampler
from symdiff_plugin.process.schedule import NoiseSchedule
from symdiff_plugin.process.step_rules import FLOW_RULES, RULES
from symdiff_plugin.process.walk import centred, walk

DRAWS = 20_000
SIZE, FEATURES = 3, 2
ALLOWED = 5.0  # standard errors, of the 30 moments of a few samplers: one in some 10^5 by chance


def network(z: Tensor) -> Tensor:
    """Looks at directions in space: by itself it is not equivariant."""
    generator = torch.Generator().manual_seed(3)
    first, last = (torch.randn(5, width, generator=generator, dtype=torch.float64) for width in (16, 16))
    return torch.sin(z @ first + 1) @ last.T


def worst(name: str, wrong_order: bool = False, path: NoiseSchedule | FlowPath = SCHEDULE, **flags: object) -> float:
    """The largest deviation, in standard errors, of E[out(z Q^T)] from E[out(z)] Q^T, and so for second moments."""
    rules = RULES_OF[path.process]
    named = {"probabilistic_model": path.process, "sampler": name, "sampling_steps": 4 * rules[name].calls}
    sampler = Sampler.of({**named, **flags}, 1000)
    mask = padded_mask(torch.full((DRAWS,), SIZE), torch.float64)
    torch.manual_seed(0)
    start = centred_noise(mask[:1], FEATURES)
    turn = sample_haar(1, dtype=torch.float64)[0]

    def predict(z: Tensor, level: Level) -> Prediction:
        R = sample_haar(len(z), dtype=torch.float64)
        out = network(torch.cat([z[..., :3] @ R, z[..., 3:]], dim=-1))
        x = out[..., :3] @ (R if wrong_order else R.mT)
        return path.read(z, 0.5 * z + centred(torch.cat([x, out[..., 3:]], dim=-1), mask), level)

    def draws(first: Tensor) -> Tensor:
        levels = [path.level_at(0.4 * i) for i in range(5)]  # where neither the noise nor the data is all
        steps = walk(first.expand(DRAWS, -1, -1), levels, sampler, predict, lambda: centred_noise(mask, FEATURES), mask)
        *_, z = steps
        return z

    def moments(z: Tensor) -> Tensor:
        x = z[..., :3]
        second = torch.einsum("bi,bj->bij", x[:, 0], x[:, 1]).flatten(1)
        return torch.cat([x.flatten(1), second, (x[:, 0] * z[:, 0, 3:4])], dim=1)

    turned = torch.cat([start[..., :3] @ turn.T, start[..., 3:]], dim=-1)
    here, there = draws(start), draws(turned)
    here = torch.cat([here[..., :3] @ turn.T, here[..., 3:]], dim=-1)
    a, b = moments(here), moments(there)
    return ((a.mean(0) - b.mean(0)).abs() / ((a.var(0) + b.var(0)) / DRAWS).sqrt()).max().item()


FLOW = FlowPath(1e-3)
EVERY = [*((SCHEDULE, name) for name in RULES), *((FLOW, name) for name in FLOW_RULES)]


@pytest.mark.parametrize(("path", "name"), EVERY)
def test_molecules_turn_with_their_noise(path: NoiseSchedule | FlowPath, name: str) -> None:
    assert worst(name, path=path) < ALLOWED


def test_with_langevin_steps_too() -> None:
    assert worst("ddim", sampling_steps=8, corrector_steps=1) < ALLOWED


@pytest.mark.parametrize(("path", "name"), EVERY)
def test_a_wrong_order_is_seen(path: NoiseSchedule | FlowPath, name: str) -> None:
    assert worst(name, wrong_order=True, path=path) > 2 * ALLOWED
