"""``--hold_frame``: R0 and eta drawn once a molecule, by every way to sample; the law stays invariant."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest
import torch
from exact import STEPS, A
from molecules import randomise
from test_edm_diffusion import SMALL, edm_class
from torch import Tensor, nn

from symdiff_plugin import build_dynamics, sample
from symdiff_plugin.model.groups import sample_haar
from symdiff_plugin.process import diffusion
from symdiff_plugin.process.diffusion import centred_noise, padded_mask
from symdiff_plugin.process.divergence import DivergenceGuard
from symdiff_plugin.process.edm_diffusion import with_sampler
from symdiff_plugin.process.edm_processes import flow_matching
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.sampler import HELP, Sampler
from symdiff_plugin.process.sampling_step import told
from symdiff_plugin.process.schedule import NoiseSchedule, polynomial_gamma
from symdiff_plugin.process.walk import last, walk

SIGMA = 1e-4


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """EDM draws its noise in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def chosen(hold_frame: bool, **flags: object) -> Sampler:
    euler = {"probabilistic_model": "flow_matching", "sampler": "euler", "sampling_steps": STEPS}
    return Sampler.of({**euler, "hold_frame": hold_frame, **flags}, 0)


class Linear(nn.Module):
    """epsilon_theta of a velocity x A^T, which is not equivariant."""

    def forward(self, inputs: Tensor, t: Tensor, node_mask: Tensor) -> Tensor:
        return torch.cat([inputs[..., :3] @ A.T, 0 * inputs[..., 3:]], dim=-1)


def spread(by_edm: bool, hold_frame: bool, count: int = 40_000) -> float:
    """E|x|^2 of one of two atoms, times two, so that it is 3 at the start."""
    network = build_dynamics("symdiff_h", 5, backbone=Linear(), **SMALL)
    mask = padded_mask(torch.full((count,), 2), torch.float64)
    torch.manual_seed(0)
    if by_edm:
        with contextlib.redirect_stdout(io.StringIO()):
            model = flow_matching(edm_class(), chosen(hold_frame), SIGMA)(
                network, 5, 3, 30, noise_schedule="polynomial_2", norm_values=(1, 1, 1), include_charges=False
            )
        model.dynamics = DivergenceGuard(network, lambda: None)  # as an evaluation has it
        x, _ = model.sample(count, 2, mask, None, None)
    else:
        x, _ = diffusion.sample(network, FlowPath(SIGMA), mask, 5, 5, 1.0, chosen(hold_frame))
    return 2 * x[:, 0].square().sum(-1).mean().item()


@pytest.mark.parametrize("by_edm", [pytest.param(True, marks=pytest.mark.edm), False], ids=["edm", "ours"])
def test_a_rotation_a_trajectory_is_told_from_one_a_call(by_edm: bool) -> None:
    """The closed forms of a linear velocity; see ``exact.assert_fresh_rotations_are_told_from_one``."""
    dt, one = 1 / STEPS, torch.eye(3)
    fresh = 3 * (1 + 2 * dt * A.trace() / 3 + dt**2 * (A.T @ A).trace() / 3) ** STEPS
    B = torch.linalg.matrix_power(one + dt * A, STEPS)
    held = (B.T @ B).trace()
    assert abs(fresh - held) > 0.1 * held
    assert spread(by_edm, True) == pytest.approx(held.item(), rel=0.02)
    assert spread(by_edm, False) == pytest.approx(fresh.item(), rel=0.02)


DRAWS, SIZE = 4000, 3


def network(kind: str) -> nn.Module:
    return randomise(build_dynamics(kind, 2, **SMALL), std=0.3).double().eval()


def worst(kind: str) -> float:
    """The largest z-score of what should be 0 in a law that is invariant: of E[out(z Q^T)] - E[out(z)] Q^T."""
    dynamics, path = network(kind), NoiseSchedule(polynomial_gamma(100))
    sampler = Sampler.of({"sampler": "heun", "sampling_steps": 6, "hold_frame": True}, 100)
    mask = padded_mask(torch.full((DRAWS,), SIZE), torch.float64)
    torch.manual_seed(0)
    start, turn = centred_noise(mask[:1], 2), sample_haar(1, dtype=torch.float64)[0]

    def predict(z: Tensor, level) -> object:
        return path.read(z, dynamics._forward(torch.full((1, 1), level.time), z, mask, None, None), level)

    def draws(first: Tensor) -> Tensor:
        levels = [path.level(time) for time in (0.9, 0.75, 0.6, 0.45)]
        with torch.no_grad(), told(dynamics, True):
            return last(walk(first.expand(DRAWS, -1, -1).contiguous(), levels, sampler, predict, lambda: None, mask))

    def moments(z: Tensor) -> Tensor:
        x = z[..., :3]
        return torch.cat([x.flatten(1), torch.einsum("bi,bj->bij", x[:, 0], x[:, 1]).flatten(1)], dim=1)

    here, there = draws(start), draws(torch.cat([start[..., :3] @ turn.T, start[..., 3:]], dim=-1))
    a, b = moments(torch.cat([here[..., :3] @ turn.T, here[..., 3:]], dim=-1)), moments(there)
    spread = ((a.var(0) + b.var(0)) / DRAWS).sqrt().clamp(min=1e-9)
    return ((a.mean(0) - b.mean(0)).abs() / spread).max().item()


@pytest.mark.parametrize("kind", ["symdiff", "symdiff_h"])
def test_molecules_turn_with_their_noise_in_law(kind: str) -> None:
    assert worst(kind) < 4.5


def test_a_network_without_a_rotation_is_seen() -> None:
    assert worst("dit") > 9


def test_a_frame_that_is_not_haar_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    small = "symdiff_plugin.model.dynamics.sample_haar"
    monkeypatch.setattr(small, lambda n, **like: torch.matrix_exp(_skew(torch.randn(n, 3, dtype=like["dtype"]))))
    assert worst("symdiff_h") > 9


def _skew(v: Tensor) -> Tensor:
    return torch.linalg.cross(torch.eye(3, dtype=v.dtype).expand(len(v), 3, 3), 0.3 * v[:, None].expand(-1, 3, 3))


def test_a_trajectory_is_that_of_its_draws() -> None:
    """Draws are made once, by the first call, and others by the next trajectory; also if one ends in an error."""
    dynamics = network("symdiff")
    mask = padded_mask(torch.tensor([3, 2]), torch.float64)
    z, t = centred_noise(mask, 2), torch.tensor([[0.5]])

    def call(factor: float = 1.0) -> Tensor:
        return dynamics._forward(t, factor * z, mask)

    torch.manual_seed(3)
    draws = dynamics.draw(z, mask)
    wanted = [dynamics.given_draws(t, factor * z, mask, **draws) for factor in (1.0, 2.0)]
    torch.manual_seed(3)
    with dynamics.sampling(hold_frame=True):
        found = [call(), call(2.0)]
        assert torch.equal(call(), found[0])
    assert all(map(torch.equal, found, wanted))
    assert not torch.equal(call(), call())
    with contextlib.suppress(KeyError), dynamics.sampling(hold_frame=True):
        call()
        raise KeyError
    assert not torch.equal(call(), call())
    with dynamics.sampling():
        assert not torch.equal(call(), call())


@pytest.mark.edm
def test_edms_own_sampler_with_all_steps_too() -> None:
    """R0 and eta are drawn once, and not once a call, by a molecule's chain as well; upstream's loop does not run."""
    sampler, network_ = Sampler.of({"hold_frame": True}, 5), network("symdiff_h")
    assert not sampler.is_edms(5)
    count, draw = [], type(network_).draw
    network_.draw = lambda *given: count.append(1) or draw(network_, *given)
    with contextlib.redirect_stdout(io.StringIO()):
        model = with_sampler(edm_class(), sampler)(
            network_, 2, 3, 5, noise_schedule="polynomial_2", norm_values=(1, 1, 1), include_charges=False
        )
    for way in (model.sample, model.sample_chain):
        count.clear()
        way(1, 3, torch.ones(1, 3, 1), None, None)
        assert len(count) == 1


@pytest.mark.parametrize("flags", [{"model": "egnn_dynamics"}, {"model": "dit", "frame": "none"}])
def test_what_has_no_frame_is_refused(flags: dict) -> None:
    with pytest.raises(ValueError, match=f"--hold_frame: --model {flags['model']} draws no R to hold; leave it out"):
        Sampler.of({**flags, "hold_frame": True}, 10)
    assert not Sampler.of({**flags, "hold_frame": False}, 10).hold_frame
    assert Sampler.of({"model": "symdiff_h", "frame": "haar", "hold_frame": True}, 10).hold_frame


def test_it_is_off_recorded_where_it_is_on_and_said() -> None:
    usual, held = Sampler.of({"sampler": "heun"}, 10), Sampler.of({"sampler": "heun", "hold_frame": True}, 10)
    assert not usual.hold_frame
    assert "hold_frame" not in usual.record()  # so that evaluations from before there was the flag are reused
    assert held.record()["hold_frame"] is True
    assert Sampler.of(held.record(), 10) == held
    assert str(held) == "heun, 50 calls (logsnr grid, eta 0, R held)"
    assert "turned at the end" in HELP["hold_frame"]


def test_the_command(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_default_dtype(torch.float32)
    few = ["--pretrained", "qm9-mini", "--n_samples", "2", "--sampling_steps", "4", "--device", "cpu"]
    found = []
    for flags in (["--hold_frame", "True"], ["--hold_frame", "False"], []):
        out = tmp_path / str(len(found))
        assert sample.main([*few, *flags, "--out", str(out)]) == 0
        found.append((out / "molecules.xyz").read_text())
        assert (
            ("R held" in capsys.readouterr().out)
            == ("True" in flags)
            == ("hold_frame" in (out / "summary.json").read_text())
        )
    assert found[0] != found[1] == found[2]
