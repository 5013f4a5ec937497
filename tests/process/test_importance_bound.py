"""The K-draw bound against EDM's own loss, explicit Gaussian densities and a mixture whose density is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from molecules import qm9_batch, randomise
from scipy.stats import norm
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from symdiff_plugin import build_dynamics
from symdiff_plugin.common.memory import peak_memory
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.__main__ import main
from symdiff_plugin.pretrained import load
from symdiff_plugin.process import importance_bound
from symdiff_plugin.process.importance_bound import importance_weighted_nll, mean_and_gap, step_term

pytestmark = pytest.mark.edm

SIZES = {
    "hidden_size": 32, "depth": 1, "num_heads": 2, "xh_hidden_size": 16, "K": 8,
    "enc_hidden_size": 16, "enc_depth": 1, "enc_num_heads": 2, "dec_hidden_features": 8,
}  # fmt: skip


class Recorded(nn.Module):
    """A real dynamics that keeps what it was asked and what it said."""

    def __init__(self, dynamics: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = dynamics, []

    def _forward(self, t: Tensor, xh: Tensor, *rest: Tensor | None) -> Tensor:
        out = self.inner._forward(t, xh, *rest)
        self.calls.append((t, xh, out))
        return out


class Signed(nn.Module):
    """Predicts +t z or -t z, with equal odds or by turns: Proposition 1's mixture over two elements."""

    def __init__(self, in_turn: bool = False) -> None:
        super().__init__()
        self.in_turn, self.sign = in_turn, 1

    def _forward(self, t: Tensor, xh: Tensor, *rest: Tensor | None) -> Tensor:
        self.sign = -self.sign
        return t[:, None] * xh * (self.sign if self.in_turn else 2 * torch.randint(0, 2, (len(xh), 1, 1)) - 1)


def symdiff(**overrides: object) -> nn.Module:
    return randomise(build_dynamics("symdiff", in_node_nf=6, **{**SIZES, **overrides}))


def egnn() -> nn.Module:
    return import_edm("egnn.models").EGNN_dynamics_QM9(
        in_node_nf=7, context_node_nf=0, n_dims=3, hidden_nf=16, n_layers=2, attention=True, tanh=True
    )


@pytest.fixture(scope="module")
def diffusion(edm_path) -> Callable[..., nn.Module]:
    """EDM's diffusion model around a dynamics, in eval mode; ``unit`` is what EDM divides positions by."""

    def build(dynamics: nn.Module, steps: int = 1000, dtype: torch.dtype = torch.float64, unit: float = 1) -> nn.Module:
        model = import_edm("equivariant_diffusion.en_diffusion").EnVariationalDiffusion(
            dynamics, in_node_nf=6, n_dims=3, timesteps=steps, noise_schedule="polynomial_2", noise_precision=1e-5,
            loss_type="l2", norm_values=[unit, 4, 10],
        )  # fmt: skip
        return model.to(dtype).eval()

    return build


def molecules(count: int, copies: int = 1, dtype: torch.dtype = torch.float64) -> tuple:
    """Arguments of EDM's model: real molecules of QM9, ``copies`` times each."""
    _, xh, mask = qm9_batch(count, noise=0.0, dtype=dtype)
    xh, mask = (tensor.repeat_interleave(copies, 0) for tensor in (xh, mask))
    h = {"categorical": (xh[..., 3:8] * 4).round(), "integer": (xh[..., 8:] * 10).round()}
    pairs = mask * mask.mT * (1 - torch.eye(mask.shape[1], dtype=dtype))
    return xh[..., :3], h, mask, pairs.flatten(1), None


def difference(a: Tensor, b: Tensor) -> float:
    """z-score of the mean of a - b."""
    d = a - b
    return (d.mean() / (d.std() / math.sqrt(len(d)))).item()


def with_own_draws(dynamics: nn.Module, seed: int) -> nn.Module:
    """The dynamics, its R and eta from a stream of their own, so that those of the noise stay aligned."""
    draw, state = type(dynamics).draw, [torch.Generator().manual_seed(seed).get_state()]

    def separate(xh: Tensor, node_mask: Tensor) -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.set_rng_state(state[0])
            draws = draw(dynamics, xh, node_mask)
            state[0] = torch.get_rng_state()
        return draws

    dynamics.draw = separate
    return dynamics


def test_one_draw_is_edms_own_loss(diffusion):
    """Term by term for the same noise and the same R: at K = 1 nothing is left to chance."""
    batch = molecules(6, 4)
    found, wanted = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        found.append(importance_weighted_nll(diffusion(with_own_draws(symdiff(), seed), unit=1.5), *batch, 1)[0])
        torch.manual_seed(seed)
        with torch.no_grad():
            wanted.append(diffusion(with_own_draws(symdiff(), seed), unit=1.5)(*batch))
    torch.testing.assert_close(torch.cat(found), torch.cat(wanted), rtol=1e-10, atol=1e-8)


def test_one_draw_is_edms_own_loss_in_expectation(diffusion):
    """With the plugin's own draws, whose place in the stream of random numbers differs from EDM's."""
    model, batch = diffusion(symdiff(), steps=50), molecules(4, 500)
    torch.manual_seed(0)
    found, gain = importance_weighted_nll(model, *batch, 1)
    assert (gain == 0).all()
    torch.manual_seed(0)  # the same t and noise of z_t, other noise of z_0, other R
    with torch.no_grad():
        wanted = model(*batch)
    assert (found != wanted).any()
    assert abs(difference(found, wanted)) < 4
    spread = (found - wanted).std() / math.sqrt(len(found))
    assert abs(difference(found, wanted + 6 * spread)) > 4  # the control: a shift of six standard errors is seen


def test_more_draws_are_tighter(diffusion):
    """On average, for the same t and noise, R drawn anew; the mean of K estimates of eq. (9) is not (control)."""
    model, batch = diffusion(symdiff()), molecules(4, 300)
    tight, single = {}, {}
    for draws in (1, 2, 8):
        torch.manual_seed(1)
        tight[draws], gain = importance_weighted_nll(model, *batch, draws)
        assert (gain > -1e-6).all()
        single[draws] = tight[draws] + gain
    for fewer, more in ((1, 2), (2, 8)):
        assert difference(tight[fewer], tight[more]) > 5
        assert abs(difference(single[fewer], single[more])) < 4


def test_more_draws_are_tighter_for_a_trained_model(diffusion):
    """By less, for its prediction hardly depends on R: seen in the gain over the mean of the same draws.

    That is heavy-tailed (small t weigh thousands of times as much), so signs are tested beside the mean.
    """
    model, batch = diffusion(load("qm9-mini").dynamics), molecules(4, 50)
    gains, single = {}, {}
    for draws in (1, 2, 8):
        torch.manual_seed(1)
        found, gains[draws] = importance_weighted_nll(model, *batch, draws)
        single[draws] = found + gains[draws]
    for fewer, more in ((1, 2), (2, 8)):
        assert gains[more].mean() > gains[fewer].mean()
        assert difference((gains[more] > gains[fewer]).double(), torch.tensor(0.5)) > 4
        assert abs(difference(single[fewer], single[more])) < 4


@pytest.mark.parametrize("kind", ["egnn", "dit"])
def test_nothing_changes_where_the_prediction_does_not_depend_on_R(kind, diffusion):
    dynamics = egnn() if kind == "egnn" else randomise(build_dynamics("dit", in_node_nf=6, **SIZES))
    model, batch = diffusion(dynamics), molecules(6)
    torch.manual_seed(0)
    with torch.no_grad():
        wanted = model(*batch)  # its random numbers, t and two noises, are the first that are drawn here too
    for draws in (1, 2, 7):
        torch.manual_seed(0)
        found, gain = importance_weighted_nll(model, *batch, draws)
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-9)
        assert gain.abs().max() < 1e-9 * wanted.abs().max()
    torch.manual_seed(0)
    assert importance_weighted_nll(diffusion(symdiff()), *batch, 7)[1].min() > 1e-3  # the control: here it does


def centred_basis(n: int) -> Tensor:
    """Orthonormal columns (n, n - 1) that span the vectors of n entries whose sum is zero."""
    q, _ = torch.linalg.qr(torch.cat([torch.ones(n, 1), torch.eye(n)[:, : n - 1]], 1).double())
    return q[:, 1:]


def coordinates(z: Tensor) -> Tensor:
    """A molecule (N, 3 + nf) in an orthonormal basis of the space in which it lives: (N - 1) 3 + N nf numbers."""
    return torch.cat([(centred_basis(len(z)).T @ z[:, :3]).flatten(), z[:, 3:].flatten()])


def gaussian(mean: Tensor, std: Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, torch.eye(len(mean), dtype=mean.dtype) * std**2)


def test_the_estimate_is_that_of_explicit_densities(diffusion):
    """Every term of one molecule from torch.distributions in a basis of the centred subspace, and scipy's cdf."""
    draws, steps = 3, 20
    model = diffusion(Recorded(symdiff()), steps)
    x, h, mask, edge_mask, _ = molecules(1)
    n = int(mask.sum())
    noises, sample = [], model.sample_combined_position_feature_noise
    model.sample_combined_position_feature_noise = lambda *a: noises.append(sample(*a)) or noises[-1]
    for seed in range(4):
        noises.clear(), model.dynamics.calls.clear()
        torch.manual_seed(seed)
        found, gain = importance_weighted_nll(model, x, h, mask, edge_mask, None, draws)
        (_, eps_0, u), calls = (tuple(noise[0].double() for noise in noises), model.dynamics.calls)
        data = torch.cat([x, h["categorical"] / 4, h["integer"] / 10], -1)[0]

        # The chain's conditionals from q(z_t | x) alone (Sohl-Dickstein et al. 2015), not from EDM's eps weights.
        step = round(calls[0][0].item() * steps)
        var = torch.sigmoid(model.gamma.gamma)  # sigma^2; alpha^2 is the rest
        alpha_s, alpha_t = (1 - var[step - 1]).sqrt(), (1 - var[step]).sqrt()
        ratio = alpha_t / alpha_s
        var_ts = var[step] - ratio**2 * var[step - 1]
        std = (var_ts * var[step - 1] / var[step]).sqrt()
        z_t = calls[0][1][0]

        def posterior(clean: Tensor) -> MultivariateNormal:
            mean = (ratio * var[step - 1] * z_t + alpha_s * var_ts * clean) / var[step]  # noqa: B023
            return gaussian(coordinates(mean), std)  # noqa: B023

        q = posterior(data)
        p = [posterior((z_t - var[step].sqrt() * out[0]) / alpha_t) for _, _, out in calls[:draws]]
        z_s = q.mean + std * coordinates(u)
        mixture = torch.logsumexp(torch.stack([k.log_prob(z_s) for k in p]), 0) - math.log(draws)
        control = torch.stack([coordinates(u) @ (q.mean - k.mean) / std for k in p]).mean()
        divergence = q.log_prob(z_s) - mixture - control

        z_0 = calls[draws][1][0]
        sigma_0, alpha_0 = var[0].sqrt(), (1 - var[0]).sqrt()
        torch.testing.assert_close(z_0, alpha_0 * data + sigma_0 * eps_0)
        log_p = []
        for _, _, out in calls[draws:]:
            mean = torch.cat([(z_0 - sigma_0 * out[0])[:, :3] / alpha_0, z_0[:, 3:]], -1)
            positions = 3 * (n - 1)
            log_p.append(
                gaussian(coordinates(mean)[:positions], sigma_0 / alpha_0).log_prob(coordinates(data)[:positions])
            )
        charge = z_0[:, 8] * 10
        width = 10 * sigma_0
        log_h = torch.tensor(
            norm.cdf((h["integer"][0, :, 0] - charge + 0.5) / width)
            - norm.cdf((h["integer"][0, :, 0] - charge - 0.5) / width)
        ).log().sum()  # fmt: skip
        kinds = torch.tensor(
            norm.cdf((1.5 - 4 * z_0[:, 3:8]) / (4 * sigma_0)) - norm.cdf((0.5 - 4 * z_0[:, 3:8]) / (4 * sigma_0))
        ) + 1e-10  # fmt: skip
        log_h = log_h + ((kinds / kinds.sum(-1, keepdim=True)).log() * h["categorical"][0]).sum()
        reconstruction = -(torch.logsumexp(torch.stack(log_p), 0) - math.log(draws) + log_h)

        clean = coordinates(data)
        prior = kl_divergence(
            gaussian((1 - var[steps]).sqrt() * clean, var[steps].sqrt()),
            gaussian(torch.zeros_like(clean), torch.tensor(1.0).double()),
        )
        wanted = prior + steps * divergence + reconstruction
        torch.testing.assert_close(found[0], wanted, rtol=1e-6, atol=1e-5)
        assert gain > 1e-2  # the mixture matters in this comparison


def test_the_control_variate_leaves_the_mean_and_lowers_the_spread():
    generator = torch.Generator().manual_seed(0)
    eps, a, b = (0.3 * torch.randn(1, 5, 9, generator=generator).double() for _ in range(3))
    u = torch.randn(20_000, 5, 9, generator=generator).double()
    terms = [step_term(torch.full((1,), 0.5), eps, prediction, u) for prediction in (a, b)]
    mean, gap = mean_and_gap(terms)
    plain = math.log(2) - torch.logaddexp(terms[0][1], terms[1][1])  # log q - log 1/K sum k(z_s | R_k, z_t)
    assert abs(difference(mean - gap, plain)) < 4
    assert abs(difference(mean, plain)) > 10  # the control: eq. (9) is another number
    assert (mean - gap).std() < 0.3 * plain.std()


def test_many_draws_come_to_the_density_of_the_mixture(diffusion):
    """With two predictions of equal odds the limit of K is known for each noise: the mixture of both, once each."""
    batch = molecules(4, 250)

    def estimate(draws: int, in_turn: bool = False) -> Tensor:
        torch.manual_seed(0)
        return importance_weighted_nll(diffusion(Signed(in_turn), steps=50), *batch, draws)[0]

    limit = estimate(2, in_turn=True)
    torch.testing.assert_close(estimate(20, in_turn=True), limit, rtol=1e-9, atol=1e-6)  # the odds alone matter
    distance = {draws: (estimate(draws) - limit).abs().median().item() for draws in (1, 8, 200)}
    assert distance[8] < distance[1] / 2  # as 1 / sqrt(K): medians, for the tails are heavy near t = 1
    assert distance[200] < distance[8] / 3
    assert distance[200] < distance[1] / 10


def test_no_gradients_are_kept(diffusion):
    model, batch = diffusion(Recorded(symdiff())), molecules(2)
    assert all(p.requires_grad for p in model.dynamics.parameters())
    results = importance_weighted_nll(model, *batch, 2)
    outputs = [out for _, _, out in model.dynamics.calls]
    assert len(outputs) == 4
    assert not any(tensor.requires_grad for tensor in (*results, *outputs))
    model(*batch)
    assert model.dynamics.calls[-1][2].requires_grad  # the control: EDM's own loss keeps them


def test_memory_does_not_grow_with_the_draws(diffusion):
    batch = molecules(16, dtype=torch.float32)
    prediction = batch[2].numel() * 9 * 4  # bytes: the smallest thing of a call that could be kept

    def growth(dynamics: nn.Module) -> int:
        model = diffusion(dynamics, dtype=torch.float32)
        step = partial(importance_weighted_nll, model, *batch)
        step(2)  # the very first call fills caches
        few, many = (peak_memory(partial(step, draws), "cpu") for draws in (2, 16))
        return many - few

    assert abs(growth(symdiff())) < prediction
    assert growth(Recorded(symdiff())) > 10 * prediction  # the control keeps what it sees


@pytest.mark.parametrize("draws", [0, -3])
def test_there_must_be_a_draw(draws, diffusion, capsys):
    with pytest.raises(ValueError, match=f"draws must be at least 1, not {draws}"):
        importance_weighted_nll(diffusion(symdiff()), *molecules(2), draws)
    with pytest.raises(SystemExit) as stop:
        main(["outputs/run", "--nll_draws", str(draws)])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert f"--nll_draws must be a whole number from 1 to 10000, not {draws}" in lines[-1]
    assert len(lines) == 1


def test_a_model_in_training_mode_is_refused(diffusion):
    with pytest.raises(ValueError, match="in eval mode"):
        importance_weighted_nll(diffusion(symdiff()).train(), *molecules(2), 2)
    with pytest.raises(ValueError, match="no terms"):
        mean_and_gap([])


def test_it_stays_on_the_device(diffusion):
    """On the meta device a number of the host's, or a read, would raise."""
    x, h, mask, edges, _ = molecules(3, dtype=torch.float32)
    model = diffusion(symdiff(), dtype=torch.float32).to("meta")
    x, mask, edges, *features = (tensor.to("meta") for tensor in (x, mask, edges, *h.values()))
    h = dict(zip(h, features, strict=True))
    found, gain = importance_weighted_nll(model, x, h, mask, edges, None, 2)
    assert found.is_meta
    assert found.shape == gain.shape == (3,)


def test_in_float32_too_what_is_summed_up_is_float64(diffusion, monkeypatch):
    kinds = set()

    def sums(terms):
        terms = list(terms)
        kinds.update(number.dtype for pair in terms for number in pair)
        return mean_and_gap(terms)

    monkeypatch.setattr(importance_bound, "mean_and_gap", sums)
    model, batch = diffusion(symdiff(), 4, torch.float32), molecules(3, dtype=torch.float32)
    assert {value.dtype for value in importance_weighted_nll(model, *batch, 3)} == kinds == {torch.float64}


def test_a_step_of_float32_numbers_is_taken_in_float64():
    torch.manual_seed(0)
    weight, eps, prediction, u = torch.rand(3), *(torch.randn(3, 5, 9) for _ in range(3))
    c, v = step_term(weight, eps, prediction, u)
    difference = prediction.double() - eps.double()
    wanted = weight.double() / 2 * difference.square().sum((1, 2))
    torch.testing.assert_close(c, wanted, rtol=1e-13, atol=0)
    cross = weight.double().sqrt() * (u.double() * difference).sum((1, 2))
    torch.testing.assert_close(v, -wanted - cross, rtol=1e-12, atol=0)
