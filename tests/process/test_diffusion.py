"""The sampler without EDM: its steps against Bayes, its noise against its moments, a network that knows the answer."""

from __future__ import annotations

import contextlib

import pytest
import torch
from molecules import qm9_batch
from torch import nn

from symdiff_plugin.process.diffusion import centred_noise, padded_mask, sample
from symdiff_plugin.process.level import Prediction
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.schedule import NoiseSchedule, polynomial_gamma, schedule_of
from symdiff_plugin.process.step_rules import StepState


def alpha_sigma(schedule: NoiseSchedule) -> tuple[torch.Tensor, torch.Tensor]:
    gamma = schedule.gamma.double()
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()


class KnowsTheAnswer(nn.Module):
    """The perfect network where the data are one molecule z_0: epsilon = (z_t - alpha_t z_0) / sigma_t."""

    def __init__(self, schedule: NoiseSchedule, z_0: torch.Tensor) -> None:
        super().__init__()
        self.steps, self.z_0 = schedule.steps, z_0
        self.alpha, self.sigma = alpha_sigma(schedule)

    def _forward(self, t, z_t, node_mask, edge_mask, context):
        index = (t * self.steps).round().long()
        return (z_t - self.alpha[index][..., None] * self.z_0) / self.sigma[index][..., None] * node_mask


def test_the_schedule_is_the_polynomial_away_from_its_end():
    schedule = NoiseSchedule(polynomial_gamma(1000))
    alpha, sigma = alpha_sigma(schedule)
    t = torch.arange(1001, dtype=torch.float64) / 1000
    polynomial = (1 - 2e-5) * (1 - t**2) ** 2 + 1e-5
    torch.testing.assert_close(alpha[:1000] ** 2, polynomial[:1000], rtol=1e-5, atol=0)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1001, dtype=torch.float64))
    assert (schedule.gamma.diff() > 0).all()
    assert alpha[1000] ** 2 == pytest.approx(1e-5, rel=1e-2)


def test_a_step_is_the_posterior_of_bayes():
    schedule = NoiseSchedule(polynomial_gamma(100))
    alpha, sigma = alpha_sigma(schedule)
    s, t = slice(None, -1), slice(1, None)
    # Precision of q(z_s | z_t, z_0): that of q(z_t | z_s) seen from z_s, plus that of q(z_s | z_0).
    alpha_ts = alpha[t] / alpha[s]
    sigma2_ts = sigma[t] ** 2 - (alpha_ts * sigma[s]) ** 2
    variance = 1 / (alpha_ts**2 / sigma2_ts + 1 / sigma[s] ** 2)
    z_0, epsilon = 0.7, -1.3
    z_t = alpha[t] * z_0 + sigma[t] * epsilon
    mean = variance * (alpha_ts * z_t / sigma2_ts + alpha[s] * z_0 / sigma[s] ** 2)
    sampler = Sampler.of({}, 100)
    levels = sampler.levels(schedule)[::-1]
    for drawn, wanted in ((0.0, mean), (1.0, mean + variance.sqrt())):
        state = StepState(lambda z, level: None, lambda drawn=drawn: drawn, sampler.stochasticity)
        found = [
            sampler.rule.step(z_t[i], Prediction(z_0, epsilon), levels[i + 1], levels[i], state) for i in range(100)
        ]
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), wanted, rtol=1e-8, atol=1e-10)


def test_noise_is_centred_masked_and_normal():
    torch.manual_seed(0)
    mask = padded_mask(torch.tensor([6, 4] * 5000), torch.float64)
    noise = centred_noise(mask, 6)
    assert noise.shape == (10000, 6, 9)
    assert noise[1::2, 4:].abs().max() == 0
    assert noise[..., :3].sum(1).abs().max() < 1e-12
    for first, n in ((0, 6), (1, 4)):
        variance = noise[first::2, :n].var(dim=(0, 1))
        ones = torch.ones(3, dtype=torch.float64)
        torch.testing.assert_close(variance[:3], ones * (1 - 1 / n), rtol=0, atol=0.03)  # one in n is projected away
        torch.testing.assert_close(variance[3:], torch.ones(6, dtype=torch.float64), rtol=0, atol=0.04)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_perfect_network_samples_the_molecule(scale: float):
    _, z_0, mask = qm9_batch(4, noise=0.0)
    schedule = NoiseSchedule(polynomial_gamma(50))
    torch.manual_seed(0)
    x, types = sample(KnowsTheAnswer(schedule, z_0), schedule, mask, 5, 6, scale)
    wanted = z_0[..., :3] * scale
    assert (x - wanted).abs().max() < 0.03 * scale  # sigma_0 / alpha_0 = 0.003
    real = mask.squeeze(-1) > 0
    assert torch.equal(types[real], z_0[..., 3:8].argmax(-1)[real])
    assert x[~real].abs().max() == 0
    other, _ = sample(KnowsTheAnswer(schedule, -z_0), schedule, mask, 5, 6, scale)  # that is, it would be noticed
    assert (other - wanted).abs().max() > 1


@pytest.mark.parametrize("settings", [("cosine", 10, 1e-5), ("polynomial_", 10, 1e-5), ("polynomial_2", 0, 1e-5)])
def test_other_schedules_are_refused(settings):
    with pytest.raises(ValueError, match="only polynomial_P"):
        schedule_of(*settings)


@pytest.mark.parametrize(
    "settings",
    [("polynomial_2", -1, 1e-5), ("polynomial_2", 10, 0.0), ("polynomial_2", 10, 0.5), ("polynomial_2", 10, 1.0)],
)
def test_senseless_schedules_are_refused(settings):
    with pytest.raises(ValueError, match="only polynomial_P"):
        schedule_of(*settings)


def test_schedules_by_their_name():
    assert schedule_of("polynomial_2", 1, 1e-5).steps == 1
    for name, power in (("polynomial_2", 2.0), ("polynomial_2.5", 2.5)):
        assert torch.equal(schedule_of(name, 7, 0.25).gamma, polynomial_gamma(7, power, 0.25))


class Asked(nn.Module):
    """Predicts ones, which have a centre of mass; keeps what it was asked and whether a sampling run was announced."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.inside = [], False

    @contextlib.contextmanager
    def sampling(self):
        self.inside = True
        yield
        self.inside = False

    def _forward(self, t, z, node_mask, edge_mask, context):
        assert self.inside
        assert edge_mask is context is None
        self.calls.append((t, z, node_mask))
        return torch.ones_like(z) * node_mask


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_network_is_asked(device, dtype):
    network, schedule = Asked(), NoiseSchedule(polynomial_gamma(4))
    mask = padded_mask(torch.tensor([2, 5, 3]), dtype).to(device)
    x, types = sample(network, schedule, mask, 5, 6)
    assert not network.inside
    assert (x.shape, x.dtype, x.device.type) == ((3, 5, 3), dtype, device)
    assert (types.shape, types.device.type) == ((3, 5), device)
    assert len(network.calls) == 5
    for t, z, given in network.calls:
        assert given is mask
        assert (t.shape, t.dtype, t.device.type) == ((3, 1), dtype, device)
        assert t.stride(0) == 0  # so that the network sees that all have one time
        assert (z.shape, z.dtype) == ((3, 5, 9), dtype)
    if device == "cpu":
        assert [t[0].item() for t, *_ in network.calls] == [1, 0.75, 0.5, 0.25, 0]
        for positions in (x, *(z[..., :3] for _, z, _ in network.calls)):
            assert positions.sum(1).abs().max() < 2e-4  # centred, though the prediction is not
            assert (positions * (1 - mask)).abs().max() == 0


def test_positions_are_in_angstrom_unless_told_otherwise():
    schedule, mask = NoiseSchedule(polynomial_gamma(4)), torch.ones(1, 3, 1)
    found = []
    for scale in ((), (1.0,), (3.0,)):
        torch.manual_seed(0)
        found.append(sample(Asked(), schedule, mask, 5, 6, *scale)[0])
    assert torch.equal(found[0], found[1])
    torch.testing.assert_close(found[2], 3 * found[0])


def test_masks_and_noise_are_where_the_sizes_are():
    mask = padded_mask(torch.tensor([2, 1]))
    assert mask.dtype == torch.float32
    assert mask[..., 0].tolist() == [[1, 1], [1, 0]]
    assert centred_noise(mask.to("meta"), 6).is_meta
    assert centred_noise(mask.double(), 6).dtype == torch.float64
