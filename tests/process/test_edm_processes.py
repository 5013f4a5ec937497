"""The losses of score and flow matching where their minimisers are known, and the molecules that come of them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from test_edm_diffusion import EDGES, MASK, SIZES, Told, edm_class, egnn, molecules, symdiff
from torch import Tensor, nn

from symdiff_plugin.process.alignment import align
from symdiff_plugin.process.diffusion import centred_noise, padded_mask, sample
from symdiff_plugin.process.edm_processes import flow_matching, score_matching
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.schedule import NoiseSchedule, polynomial_gamma
from symdiff_plugin.process.step_rules import FLOW_RULES
from symdiff_plugin.process.walk import centred

pytestmark = pytest.mark.edm

SIGMA, VARIANCE = 0.05, 0.25


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """EDM draws its noise in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sampler(name: str = "euler", **flags: object) -> Sampler:
    return Sampler.of({"probabilistic_model": "flow_matching", "sampler": name, "sampling_steps": 10, **flags}, 0)


def flow(network: nn.Module, chosen: Sampler, charges: bool = True, factors: tuple = (2, 2, 2)) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):  # EDM prints its schedule
        return built(flow_matching(edm_class(), chosen, SIGMA), network, charges, factors)


def built(process: type, network: nn.Module, charges: bool, factors: tuple) -> nn.Module:
    return process(
        network, 5 + charges, 3, 30, noise_schedule="polynomial_2", noise_precision=1e-5, loss_type="l2",
        norm_values=factors, include_charges=charges,
    ).double()  # fmt: skip


def score(network: nn.Module, weighting: str = "sigma2", name: str = "euler-maruyama", **built_as: object) -> nn.Module:
    chosen = Sampler.of({"probabilistic_model": "score_matching", "sampler": name, "sampling_steps": 10}, 30)
    with contextlib.redirect_stdout(io.StringIO()):
        return built(score_matching(edm_class(), chosen, weighting), network, True, built_as.get("factors", (2, 2, 2)))


class Known(nn.Module):
    """z times a factor of the time, the best one plus an error."""

    def __init__(self, factor: Callable[[Tensor], Tensor], error: Tensor) -> None:
        super().__init__()
        self.factor, self.error = factor, error

    def _forward(self, t: Tensor, xh: Tensor, node_mask: Tensor, edge_mask: object, context: object) -> Tensor:
        return (self.factor(t)[..., None] + self.error) * xh


def best_velocity(t: Tensor) -> Tensor:
    """E[x_1 - (1 - s) x_0 | z] / z of Gaussian data, ``t`` as the network is told it."""
    t = 1 - t
    sigma = 1 - (1 - SIGMA) * t
    return (t * VARIANCE - (1 - SIGMA) * sigma) / (t**2 * VARIANCE + sigma**2)


def best_noise(t: Tensor) -> Tensor:
    """E[epsilon | z] / z of Gaussian data, on the straight lines between the entries of EDM's table."""
    times = 30 * t.numpy()
    gamma = torch.from_numpy(np.interp(times, np.arange(31), polynomial_gamma(30, 2.0, 1e-5).double().numpy()))
    return gamma.sigmoid().sqrt() / ((-gamma).sigmoid() * VARIANCE + gamma.sigmoid())


def slope(model: nn.Module, error: Tensor, count: int) -> tuple[float, float]:
    """The loss' derivative by the network's factor, a mean over molecules, and its standard error."""
    torch.manual_seed(0)
    mask = padded_mask(torch.tensor([4, 3] * (count // 2)), torch.float64)
    data = VARIANCE**0.5 * centred_noise(mask, 6)
    (grad,) = torch.autograd.grad(
        model(data[..., :3], {"categorical": data[..., 3:8], "integer": data[..., 8:]}, mask).sum(), error
    )
    return grad.mean().item(), grad.std().item() / count**0.5


@pytest.mark.parametrize("training", [True, False])
def test_the_known_velocity_minimises_the_loss(training: bool) -> None:
    count = 20_000
    for off, known in ((0.0, True), (0.05, False), (-0.05, False)):
        error = torch.full((count, 1, 1), off, requires_grad=True)
        model = flow(Known(best_velocity, error), sampler(), factors=(1, 1, 1)).train(training)
        mean, deviation = slope(model, error, count)
        assert (abs(mean) < 4 * deviation) == known
        assert known or (mean > 0) == (off > 0)


@pytest.mark.parametrize("weighting", ["sigma2", "g2"])
def test_the_known_score_minimises_the_loss(weighting: str) -> None:
    count = 20_000
    for off, known in ((0.0, True), (0.05, False), (-0.05, False)):
        error = torch.full((count, 1, 1), off, requires_grad=True)
        model = score(Known(best_noise, error), weighting, factors=(1, 1, 1)).train()
        mean, deviation = slope(model, error, count)
        assert (abs(mean) < 4 * deviation) == known
        assert known or (mean > 0) == (off > 0)


def test_the_weight_g2_is_the_likelihoods() -> None:
    """Of a network of zeros the integral of dgamma / 2 |epsilon|^2 is d / 2 (gamma_1 - gamma_0)."""
    mask = padded_mask(torch.full((40_000,), 3), torch.float64)
    data = torch.zeros(40_000, 3, 9)
    h = {"categorical": data[..., 3:8], "integer": data[..., 8:]}
    torch.manual_seed(0)
    loss = score(Known(torch.zeros_like, torch.zeros(1)), "g2", factors=(1, 1, 1)).train()(data[..., :3], h, mask)
    gamma = polynomial_gamma(30, 2.0, 1e-5).double()
    wanted = (3 * 2 + 6 * 3) / 2 * (gamma[-1] - gamma[0]).item()
    assert abs(loss.mean().item() - wanted) < 4 * loss.std().item() / 200
    assert loss.std().item() / 200 < 0.02 * wanted


def test_in_evaluation_score_matching_has_edms_bound() -> None:
    network = symdiff()
    mine = score(network).eval()
    with contextlib.redirect_stdout(io.StringIO()):
        edms = built(edm_class(), network, True, (2, 2, 2)).eval()
    torch.manual_seed(0)
    x, types = torch.randn(3, 7, 3), torch.randint(5, (3, 7))
    x = centred(x * MASK, MASK)
    h = {"categorical": nn.functional.one_hot(types, 5) * MASK, "integer": (types[..., None] + 1) * MASK}
    found = []
    for model in (mine, edms):
        torch.manual_seed(1)
        found.append(model(x, h, MASK, EDGES, None).detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["euler-maruyama", "sde-dpm++", "heun", "ancestral"])
def test_score_matching_samples_as_a_diffusion_does(name: str) -> None:
    network = symdiff()
    x, types = molecules(score(network, name=name).eval())
    torch.manual_seed(5)
    chosen = Sampler.of({"sampler": name, "sampling_steps": 10}, 30)
    wanted, wanted_types = sample(network, NoiseSchedule(polynomial_gamma(30)), MASK, 5, 6, 2.0, chosen)
    torch.testing.assert_close(x, wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(types[MASK[..., 0] > 0], wanted_types[MASK[..., 0] > 0])


def test_the_loss_is_a_mean_over_a_molecules_own_dimensions() -> None:
    """With a network of zeros it is the velocity's variance, c + (1 - s)^2, whatever the padding."""
    mask = padded_mask(torch.tensor([4, 2] * 5000), torch.float64, length=9)
    torch.manual_seed(0)
    data = VARIANCE**0.5 * centred_noise(mask, 6)
    h = {"categorical": data[..., 3:8], "integer": data[..., 8:]}
    model = flow(Known(torch.zeros_like, torch.zeros(1)), sampler(), factors=(1, 1, 1))
    loss = model(data[..., :3], h, mask)
    assert loss.shape == (10_000,)
    for first in (0, 1):
        assert loss[first::2].mean().item() == pytest.approx(VARIANCE + (1 - SIGMA) ** 2, rel=0.01)


@pytest.mark.parametrize("name", FLOW_RULES)
@pytest.mark.parametrize("charges", [True, False], ids=["qm9", "geom"])
def test_the_molecules_are_those_without_edm(name: str, charges: bool) -> None:
    network, chosen = symdiff(charges), sampler(name)
    x, types = molecules(flow(network, chosen, charges).eval())
    torch.manual_seed(5)
    wanted, wanted_types = sample(network, FlowPath(SIGMA), MASK, 5, 5 + charges, 2.0, chosen)
    assert wanted.abs().max() > 0.5
    torch.testing.assert_close(x, wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(types[MASK[..., 0] > 0], wanted_types[MASK[..., 0] > 0])


@pytest.mark.parametrize("name", FLOW_RULES)
def test_edms_egnn(name: str) -> None:
    x, _ = molecules(flow(egnn(), sampler(name)).eval())
    assert x.isfinite().all()
    assert x.sum(1).abs().max() < 1e-9


def test_the_end_of_the_path_is_decoded_by_argmax_and_rounding() -> None:
    model = flow(egnn(), sampler(), factors=(1, 4, 10))
    torch.manual_seed(0)
    x, types, charge = torch.randn(3, 7, 3), torch.randint(5, (3, 7)), torch.randint(1, 10, (3, 7, 1))
    z = torch.cat([x, nn.functional.one_hot(types, 5) / 4 + 0.1, charge / 10 + 0.04], dim=-1) * MASK
    found, h = model.sample_p_xh_given_z0(z, MASK, EDGES, None)
    assert torch.equal(found, x * MASK)
    assert torch.equal(h["categorical"], nn.functional.one_hot(types, 5) * MASK)
    assert torch.equal(h["integer"], charge * MASK)


@pytest.mark.parametrize("way", ["sample", "sample_chain"])
def test_the_network_is_called_as_often_as_it_is_said_and_told_one_minus_t(way: str) -> None:
    for chosen, times in (
        (sampler(sampling_steps=4), [1.0, 0.75, 0.5, 0.25]),
        (sampler("midpoint", sampling_steps=4), [1.0, 0.75, 0.5, 0.25]),
        (sampler("heun", sampling_steps=4), [1.0, 0.5, 0.5, 0.0]),
    ):
        network = Told()
        getattr(flow(network, chosen), way)(3, int(SIZES.max()), MASK, None, None)
        assert [t[0].item() for t in network.calls] == times
        assert chosen.calls == len(times)


def test_an_aligned_flow_learns_shorter_velocities() -> None:
    """With a network of zeros the loss is |x_1 - (1 - s) x_0|^2 a dimension, x_0 that of ``align``."""
    mask = padded_mask(torch.tensor([5, 3] * 20), torch.float64)
    torch.manual_seed(0)
    data = centred_noise(mask, 6)
    h = {"categorical": data[..., 3:8], "integer": data[..., 8:]}
    for by, special in (("none", False), ("rotation", False), ("rotation", True), ("both", False)):
        with contextlib.redirect_stdout(io.StringIO()):
            kind = flow_matching(edm_class(), sampler(), SIGMA, by, special)
            model = built(kind, Known(torch.zeros_like, torch.zeros(1)), True, (1, 1, 1))
        torch.manual_seed(1)
        found = model(data[..., :3], h, mask)
        torch.manual_seed(1)
        x_0 = align(centred_noise(mask, 6), data, mask, by, special)
        atoms = mask.sum((1, 2))
        wanted = (data - (1 - SIGMA) * x_0).square().sum((1, 2)) / (3 * (atoms - 1) + 6 * atoms)
        torch.testing.assert_close(found, wanted)
