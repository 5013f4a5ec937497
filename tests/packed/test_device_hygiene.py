"""Training and sampling on the ``meta`` device, where reading a number or mixing in a tensor of the host raises.

Whatever passes here needs the host for nothing but giving orders. (What an ``AtomLayout`` reads, once a batch, it takes
for given there.)
"""

from __future__ import annotations

import argparse
import contextlib
import io

import pytest
import torch

from symdiff_plugin import build_dynamics
from symdiff_plugin.edm import import_edm

META = torch.device("meta")
PRESETS = ("symdiff_tiny", "symdiff_h_tiny", "dit_tiny")


def batch(device: torch.device = META) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.rand(3, 1, device=device), torch.randn(3, 7, 9, device=device), torch.ones(3, 7, 1, device=device)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_training_step_stays_on_the_device(name: str, precision: str) -> None:
    dynamics = build_dynamics(name, in_node_nf=6, precision=precision).to(META)
    optimiser = torch.optim.AdamW(dynamics.parameters(), amsgrad=True)
    t, xh, mask = batch()
    out = dynamics._forward(t, xh, mask, None, None)
    assert out.is_meta
    assert out.shape == xh.shape
    out.square().mean().backward()
    assert all(p.grad.is_meta for p in dynamics.parameters())
    optimiser.step()


@pytest.mark.parametrize("name", PRESETS)
def test_denoising_calls_stay_on_the_device(name: str) -> None:
    dynamics = build_dynamics(name, in_node_nf=6).to(META).eval()
    t, xh, mask = batch()
    with torch.no_grad(), dynamics.sampling():
        for _ in range(2):
            xh = dynamics._forward(t[:1].expand(3, 1), xh, mask, None, None)
    assert xh.is_meta


def test_a_host_tensor_and_a_read_are_caught() -> None:
    """The negative control of the tests above."""
    dynamics = build_dynamics("dit_tiny", in_node_nf=6).to(META)
    t, xh, mask = batch()
    with pytest.raises(RuntimeError, match="device"):
        dynamics._forward(t.to("meta"), xh, mask, None, None).add(torch.ones(3, 7, 9)[..., :9])
    dynamics.dit.final_layer.linear.to_empty(device="cpu")
    with pytest.raises(RuntimeError, match="device"):
        dynamics._forward(t, xh, mask, None, None)
    with pytest.raises(RuntimeError, match="item"):
        float(xh.sum())


@pytest.fixture
def diffusion(edm_path):
    """EDM's diffusion model around a small SymDiff, on the meta device."""
    args = argparse.Namespace(
        model="symdiff_tiny", dataset="qm9", include_charges=True, conditioning=[], condition_time=True,
        context_node_nf=0, probabilistic_model="diffusion", diffusion_steps=10,
        diffusion_noise_schedule="polynomial_2", diffusion_noise_precision=1e-5, diffusion_loss_type="l2",
        normalize_factors=[1, 4, 10],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        info = import_edm("configs.datasets_config").get_dataset_info("qm9", False)
        model, nodes_dist, _ = import_edm("qm9.models").get_model(args, META, dict(info), None)
    return args, model.to(META), nodes_dist


def test_edms_loss_stays_on_the_device(diffusion) -> None:
    args, model, nodes_dist = diffusion
    _, xh, mask = batch()
    edges = torch.ones(3, 49, device=META)
    h = {"categorical": xh[..., 3:8], "integer": xh[..., 8:]}
    loss, _, _ = import_edm("qm9.losses").compute_loss_and_nll(
        args, model.train(), nodes_dist, xh[..., :3], h, mask, edges, None
    )
    loss.backward()
    assert loss.is_meta


def test_edms_denoising_step_stays_on_the_device(diffusion) -> None:
    _, model, _ = diffusion
    _, z, mask = batch()
    t = torch.full((1, 1), 0.5, device=META).expand(3, 1)
    with torch.no_grad():
        for _ in range(2):
            z = model.eval().sample_p_zs_given_zt(t - 0.1, t, z, mask, torch.ones(147, 1, device=META), None)
    assert z.is_meta
