"""The sampler without EDM, held against EDM's own: the same schedule, the same draws, the same molecules."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest
import torch
from molecules import randomise
from torch import nn

from symdiff_plugin import build_dynamics
from symdiff_plugin.edm import import_edm
from symdiff_plugin.process.diffusion import padded_mask, sample
from symdiff_plugin.process.schedule import NoiseSchedule, polynomial_gamma

pytestmark = pytest.mark.edm

SMALL = {
    "hidden_size": 32, "depth": 2, "num_heads": 2, "xh_hidden_size": 16, "K": 8,
    "enc_hidden_size": 16, "enc_depth": 1, "enc_num_heads": 2, "dec_hidden_features": 8,
}  # fmt: skip
SIZES = torch.tensor([9, 3, 12, 5])


@pytest.fixture
def double() -> Iterator[None]:
    """EDM draws its noise in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def quietly(function, *args, **settings):
    with contextlib.redirect_stdout(io.StringIO()):  # EDM prints its schedule
        return function(*args, **settings)


def edm_model(network: nn.Module, steps: int, include_charges: bool, factors: tuple[float, ...]) -> nn.Module:
    model = quietly(
        import_edm("equivariant_diffusion.en_diffusion").EnVariationalDiffusion,
        network, 5 + include_charges, 3, steps, noise_schedule="polynomial_2", noise_precision=1e-5, loss_type="l2",
        norm_values=factors, include_charges=include_charges,
    )  # fmt: skip
    model.all_classes = True
    return model.double().eval()


@pytest.mark.parametrize(("steps", "power"), [(1000, 2), (8, 2), (250, 3), (1, 2)])
def test_the_schedule_is_edms_to_the_last_bit(steps: int, power: int) -> None:
    schedule = import_edm("equivariant_diffusion.en_diffusion").PredefinedNoiseSchedule
    edms = quietly(schedule, f"polynomial_{power}", steps, 1e-5).gamma
    ours = polynomial_gamma(steps, power, 1e-5)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, edms)
    assert not torch.equal(polynomial_gamma(steps, power, 1e-4), edms)


@pytest.mark.parametrize(
    ("preset", "include_charges", "factors"),
    [("symdiff", True, (1, 4, 10)), ("symdiff", False, (2, 4, 10)), ("dit", True, (1, 4, 10))],
)
def test_the_molecules_are_edms(preset, include_charges, factors, double) -> None:
    steps, n_features = 40, 5 + include_charges
    network = randomise(build_dynamics(preset, n_features, **SMALL), std=0.05).double().eval()
    model = edm_model(network, steps, include_charges, factors)
    mask = padded_mask(SIZES, torch.float64)
    torch.manual_seed(5)
    wanted, h = quietly(model.sample, len(SIZES), int(SIZES.max()), mask, None, None)
    after = torch.rand(1)
    torch.manual_seed(5)
    x, types = sample(network, NoiseSchedule(polynomial_gamma(steps)), mask, 5, n_features, factors[0])
    assert torch.equal(torch.rand(1), after)  # as many draws: the next batch is EDM's too
    assert wanted.abs().max() > 0.5
    torch.testing.assert_close(x, wanted, rtol=1e-8, atol=1e-9)
    real = mask.squeeze(-1) > 0
    assert torch.equal(types[real], h["categorical"].argmax(-1)[real])
    # The network and the schedule matter: another of either is noticed.
    torch.manual_seed(5)
    other, _ = sample(network, NoiseSchedule(polynomial_gamma(steps, 2, 1.1e-5)), mask, 5, n_features, factors[0])
    assert (other - wanted).abs().max() > 1e-4


def test_sizes_are_drawn_as_edm_draws_them(tmp_path) -> None:
    from symdiff_plugin.pretrained import load
    from symdiff_plugin.pretrained.export import store

    info = import_edm("configs.datasets_config").get_dataset_info("qm9", False)
    network = build_dynamics("symdiff", 6, **SMALL)
    card = {
        "model": "symdiff", "architecture": SMALL, "atom_types": list("HCNOF"), "include_charges": True,
        "normalize_factors": [1, 4, 10], "n_nodes": {str(n): count for n, count in info["n_nodes"].items()},
        "diffusion": {"steps": 10, "noise_schedule": "polynomial_2", "noise_precision": 1e-5},
    }  # fmt: skip
    store(tmp_path, "tiny", network.state_dict(), card)
    model = load("tiny", folder=tmp_path)
    distribution = quietly(import_edm("qm9.models").DistributionNodes, info["n_nodes"])
    torch.manual_seed(3)
    wanted = distribution.sample(500)
    torch.manual_seed(3)
    assert torch.equal(model.draw_sizes(500), wanted)
    assert len(set(wanted.tolist())) > 10
