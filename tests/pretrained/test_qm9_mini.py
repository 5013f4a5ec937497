"""The model that comes with the package, and through it what only trained weights can show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from molecules import qm9_batch
from torch import Tensor

from symdiff_plugin import build_dynamics
from symdiff_plugin.model.dynamics import DiTDynamics
from symdiff_plugin.model.groups import sample_haar
from symdiff_plugin.model.symmetrisation import act
from symdiff_plugin.molecules.perception import perceive, perceived_fractions
from symdiff_plugin.packed.atoms import remove_mean
from symdiff_plugin.pretrained import Pretrained, load
from symdiff_plugin.process.diffusion import centred_noise
from symdiff_plugin.process.schedule import schedule_of
from symdiff_plugin.sample import sample_pretrained

NAME = "qm9-mini"
SHORT = schedule_of("polynomial_2", 50, 1e-5)  # instead of 1,000 steps


@pytest.fixture(scope="module")
def model() -> Pretrained:
    return load(NAME)


def with_other_weights(model: Pretrained) -> Pretrained:
    """The same but for its weights, which are those of the start: the control."""
    torch.manual_seed(0)
    dynamics = build_dynamics(model.card["model"], model.n_features, **model.card["architecture"])
    return replace(model, dynamics=dynamics.eval().requires_grad_(False))


def error(model: Pretrained, xh: Tensor, mask: Tensor, t: int) -> float:
    """Mean square of what is wrong in the predicted noise; that of the noise itself is 1 but for the lost centre."""
    torch.manual_seed(0)
    eps, gamma = centred_noise(mask, model.n_features), model.schedule.gamma[t]
    z = (-gamma).sigmoid().sqrt() * xh + gamma.sigmoid().sqrt() * eps
    time = torch.full((len(xh), 1), t / model.schedule.steps)
    wrong = (model.dynamics._forward(time, z, mask) - eps).square().sum()
    return (wrong / (mask.sum() * (3 + model.n_features))).item()


def test_its_card_says_what_it_is(model: Pretrained) -> None:
    """How it was trained, on what, and what it is worth, measured on 1,000 samples."""
    card = model.card
    training, metrics = card["training"], card["metrics"]
    assert card["weights"]["numbers"] == sum(p.numel() for p in model.dynamics.parameters())
    assert card["weights"]["bytes"] < 10e6
    assert training["epochs"] == sum(part["epochs"] for part in training["lr"])
    assert training["train_cpu_seconds"] > 3600
    assert metrics["n_samples"] >= 1000
    assert metrics["non_finite"] == 0
    assert set(model.atom_types) == set("HCNOF")
    assert model.schedule.steps == 1000


@pytest.mark.parametrize("t", [30, 100])
def test_it_knows_real_molecules(model: Pretrained, t: int) -> None:
    """It finds the noise in real molecules; not in the same atoms scattered, and untrained weights find none."""
    _, xh, mask = qm9_batch(19, noise=0.0, dtype=torch.float32)
    found = error(model, xh, mask, t)
    assert found < 0.2
    assert error(with_other_weights(model), xh, mask, t) > 0.9
    spread = xh[..., :3].square().sum().div(3 * mask.sum()).sqrt()
    scattered = remove_mean(torch.randn_like(xh[..., :3]) * spread * mask, mask)
    assert error(model, torch.cat([scattered, xh[..., 3:]], -1), mask, t) > 5 * found


@pytest.mark.parametrize("compat", ["paper", "release"])
def test_its_equivariance_survives_training(model: Pretrained, compat: str) -> None:
    """As test_symmetrisation.py has it of random weights: exact in float64, and lost in the release's composition."""
    architecture = {**model.card["architecture"], "compat": compat, "time_scale": 1000.0}
    dynamics: DiTDynamics = build_dynamics(model.card["model"], model.n_features, **architecture)
    dynamics.load_state_dict(model.dynamics.state_dict())
    dynamics = dynamics.double().eval()
    t, xh, mask = qm9_batch(16)
    torch.manual_seed(0)
    draws = dynamics.draw(xh, mask)
    Q = sample_haar(len(xh), dtype=xh.dtype)

    def turn(xh: Tensor) -> Tensor:
        return torch.cat([act(Q, xh[..., :3]), xh[..., 3:]], -1)

    with torch.no_grad():
        out = dynamics.given_draws(t, xh, mask, **draws)
        turned = dynamics.given_draws(t, turn(xh), mask, **{**draws, "R0": Q @ draws["R0"]})
    difference = (turned - turn(out)).abs().max().item()
    assert difference < 1e-9 if compat == "paper" else difference > 0.01


def test_it_makes_molecules(model: Pretrained) -> None:
    """In a twentieth of its steps most are in one piece; those of untrained weights never are."""
    found = perceived_fractions(
        [perceive(one) for one in sample_pretrained(replace(model, schedule=SHORT), 32, 32).molecules]
    )
    assert found["connected"] > 0.6
    assert found["validity"] > 0.1
    control = replace(with_other_weights(model), schedule=SHORT)
    assert (
        perceived_fractions([perceive(one) for one in sample_pretrained(control, 32, 32).molecules])["connected"] < 0.1
    )
