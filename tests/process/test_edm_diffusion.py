"""EDM's class with another sampler: the same molecules as without EDM, for every network, schedule and rule."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator

import pytest
import torch
from molecules import randomise
from torch import Tensor, nn

from symdiff_plugin import build_dynamics
from symdiff_plugin.edm import import_edm
from symdiff_plugin.process.diffusion import padded_mask, sample
from symdiff_plugin.process.edm_diffusion import with_sampler
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.schedule import NoiseSchedule, polynomial_gamma
from symdiff_plugin.process.step_rules import RULES

pytestmark = pytest.mark.edm

SMALL = {
    "hidden_size": 32, "depth": 1, "num_heads": 2, "xh_hidden_size": 16, "K": 8,
    "enc_hidden_size": 16, "enc_depth": 1, "enc_num_heads": 2, "dec_hidden_features": 8,
}  # fmt: skip
SIZES, T = torch.tensor([5, 3, 7]), 30
MASK = padded_mask(SIZES, torch.float64)
EDGES = (MASK * MASK.mT * (1 - torch.eye(7, dtype=torch.float64))).view(-1, 1)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """EDM draws its noise in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def edm_class() -> type:
    return import_edm("equivariant_diffusion.en_diffusion").EnVariationalDiffusion


def chosen(name: str = "sde-dpm++", **flags: object) -> Sampler:
    return Sampler.of({"sampler": name, "sampling_steps": 10, **flags}, T)


def model(network: nn.Module, sampler: Sampler, charges: bool = True, schedule: str = "polynomial_2") -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):  # EDM prints its schedule
        built = with_sampler(edm_class(), sampler)(
            network, 5 + charges, 3, T, noise_schedule=schedule, noise_precision=1e-5,
            loss_type="vlb" if schedule == "learned" else "l2", norm_values=(2, 2, 2), include_charges=charges,
        )  # fmt: skip
    built.all_classes = True
    return built.double().eval()


def symdiff(charges: bool = True, context: int = 0) -> nn.Module:
    return randomise(build_dynamics("symdiff", 5 + charges, context, **SMALL), std=0.05).double().eval()


def egnn(context: int = 0) -> nn.Module:
    EGNN = import_edm("egnn.models").EGNN_dynamics_QM9
    torch.manual_seed(1)
    return EGNN(in_node_nf=7, context_node_nf=context, n_dims=3, hidden_nf=16, n_layers=2, device="cpu").double()


def molecules(built: nn.Module, context: Tensor | None = None, **kwargs: bool) -> tuple[Tensor, Tensor]:
    torch.manual_seed(5)
    x, h = built.sample(len(SIZES), int(SIZES.max()), MASK, EDGES, context, **kwargs)
    return x, h["categorical"].argmax(-1)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("charges", [True, False], ids=["qm9", "geom"])
def test_the_molecules_are_those_without_edm(name: str, charges: bool) -> None:
    sampler, network = chosen(name, step_grid="logsnr"), symdiff(charges)
    x, types = molecules(model(network, sampler, charges))
    after = torch.rand(1)
    torch.manual_seed(5)
    schedule = NoiseSchedule(polynomial_gamma(T))
    wanted, wanted_types = sample(network, schedule, MASK, 5, 5 + charges, 2.0, sampler)
    assert torch.equal(torch.rand(1), after)
    assert wanted.abs().max() > 0.5
    torch.testing.assert_close(x, wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(types[MASK[..., 0] > 0], wanted_types[MASK[..., 0] > 0])


def test_with_edms_settings_the_walk_makes_edms_molecules() -> None:
    """To rounding; the hook leaves the work to EDM itself, for which this class is not used."""
    network, edms = symdiff(), Sampler.of({}, T)
    mine = model(network, edms)
    x, types = molecules(mine)
    torch.manual_seed(5)
    upstream, h = edm_class().sample(mine, len(SIZES), int(SIZES.max()), MASK, EDGES, None)
    torch.testing.assert_close(x, upstream, rtol=1e-6, atol=1e-7)
    assert torch.equal(types, h["categorical"].argmax(-1))


@pytest.mark.parametrize("name", ["sde-dpm++", "heun"])
@pytest.mark.parametrize("schedule", ["cosine", "learned"])
def test_other_schedules(name: str, schedule: str) -> None:
    x, _ = molecules(model(symdiff(), chosen(name), schedule=schedule))
    assert x.isfinite().all()
    assert x.sum(1).abs().max() < 1e-9
    assert (x * (1 - MASK)).abs().max() == 0


@pytest.mark.parametrize("name", RULES)
def test_edms_egnn(name: str) -> None:
    x, _ = molecules(model(egnn(), chosen(name)))
    assert x.isfinite().all()
    assert x.sum(1).abs().max() < 1e-9


@pytest.mark.parametrize("build", [egnn, lambda context: symdiff(context=context)], ids=["egnn", "symdiff"])
def test_conditional_models_see_their_property(build) -> None:
    built = model(build(2), chosen())
    found = [molecules(built, value * torch.ones(3, 7, 2) * MASK)[0] for value in (0.0, 0.0, 3.0)]
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2], rtol=1e-7)


def test_one_noise_for_all_molecules() -> None:
    mask = torch.ones(3, 4, 1)
    torch.manual_seed(0)
    x, _ = model(egnn(), chosen()).sample(3, 4, mask, (1 - torch.eye(4)).repeat(3, 1, 1).view(-1, 1), None, True)
    torch.testing.assert_close(x[1:], x[:1].expand(2, -1, -1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("keep", "frames"), [(100, 10), (4, 4), (None, 10)])
def test_a_chain_ends_with_the_molecule(keep: int | None, frames: int) -> None:
    built = model(symdiff(), chosen())
    mask, edges = torch.ones(1, 5, 1), (1 - torch.eye(5)).view(-1, 1)
    torch.manual_seed(2)
    chain = built.sample_chain(1, 5, mask, edges, None, keep_frames=keep)
    assert chain.shape == (frames, 5, 9)
    torch.manual_seed(2)
    x, h = built.sample(1, 5, mask, edges, None)
    torch.testing.assert_close(chain[0, :, :3], x[0])
    assert torch.equal(chain[0, :, 3:8], h["categorical"][0])
    assert chain[-1, :, :3].std() > 1.0  # the first frame kept is noise, in Angstrom
    assert chain.isfinite().all()


class Told(nn.Module):
    """Counts its calls, all of which are to come while it is told of a sampling."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.inside = [], False

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def _forward(self, t, xh, node_mask, edge_mask, context):
        assert self.inside
        assert not torch.is_grad_enabled()
        self.calls.append(t)
        return 0.1 * xh


@pytest.mark.parametrize(
    ("flags", "calls"),
    [
        ({"sampler": "ancestral"}, 11), ({"sampler": "heun"}, 11), ({"sampler": "heun", "sampling_steps": 11}, 11),
        ({"sampler": "ddim", "corrector_steps": 2}, 10), ({"sampler": "heun", "corrector_steps": 1}, 10),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["sample", "sample_chain"])
def test_the_network_is_called_as_often_as_it_is_said(flags: dict, calls: int, way: str) -> None:
    sampler, network = Sampler.of({"sampling_steps": 10, **flags}, T), Told()
    getattr(model(network, sampler), way)(3, 7, MASK, None, None)
    assert len(network.calls) == sampler.calls == calls
    assert not network.inside
    assert all(t.shape == (3, 1) and t.stride(0) == 0 for t in network.calls)
    times = [t[0].item() for t in network.calls]
    assert (times[0], times[-1]) == (1.0, 0.0)


def test_it_is_copied_like_edms() -> None:
    built = model(symdiff(), chosen())
    again = copy.deepcopy(built)
    assert torch.equal(molecules(again)[0], molecules(built)[0])
    assert type(again) is type(built)
    assert issubclass(type(built), edm_class())
    assert "sde-dpm++" in type(built).__name__
