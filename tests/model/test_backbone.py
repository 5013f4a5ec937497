"""A network of one's own in the DiT's place: EDM's contract, equivariance, and no parameter that does nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from molecules import qm9_batch
from torch import Tensor, nn

from symdiff_plugin import build_dynamics, check_equivariance
from symdiff_plugin.model.dynamics import DiTDynamics
from symdiff_plugin.model.equivariance import NotEquivariantError

NF = 6
SIZES = {"xh_hidden_size": 4, "hidden_size": 16, "num_heads": 4, "K": 8}
SIZES |= {"enc_hidden_size": 16, "enc_depth": 1, "enc_num_heads": 4, "dec_hidden_features": 8}


class PointNetwork(nn.Module):
    """Of each atom's row, the time and the mean row of the molecule; padding is left as it comes out."""

    def __init__(self, context: int = 0, width: int = 32) -> None:
        super().__init__()
        rows = 3 + NF + context
        self.layers = nn.Sequential(nn.Linear(2 * rows + 1, width), nn.SiLU(), nn.Linear(width, 3 + NF))
        self.times: list[Tensor] = []

    def forward(self, inputs: Tensor, t: Tensor, node_mask: Tensor) -> Tensor:
        self.times.append(t)
        mean = (inputs * node_mask).sum(1, keepdim=True) / node_mask.sum(1, keepdim=True)
        t = t.view(-1, 1, 1).expand(*inputs.shape[:2], 1)
        return self.layers(torch.cat([inputs, mean.expand_as(inputs), t], dim=-1))


def with_own(name: str, context: int = 0, **overrides: object) -> DiTDynamics:
    torch.manual_seed(1)
    model = build_dynamics(name, NF, context, backbone=PointNetwork(context), **{**SIZES, **overrides}).double()
    if getattr(model, "f_theta", None) is not None:
        with torch.no_grad():  # as after training: a frame that depends on what it sees
            for parameter in model.f_theta.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("name", ["symdiff", "symdiff_h", "symdiff_pca", "dit"])
def test_every_parameter_is_used_and_none_is_the_dits(name: str) -> None:
    model = with_own(name)
    t, xh, mask = qm9_batch()
    model(t, xh, mask).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    own = {f"backbone.{n}" for n in PointNetwork().state_dict()}
    others = {n.split(".")[0] for n in model.state_dict().keys() - own}
    assert own <= model.state_dict().keys()
    assert others == ({"f_theta", "pair_embedding"} if name == "symdiff" else set())


@pytest.mark.parametrize("context", [0, 2])
def test_edms_contract(context: int) -> None:
    model = with_own("symdiff", context)
    t, xh, mask = qm9_batch(length=33)
    extra = torch.randn(*xh.shape[:2], context, dtype=xh.dtype) * mask if context else None
    draws = model.draw(xh, mask)
    out = model.given_draws(t, xh, mask, extra, **draws)
    assert out.shape == xh.shape
    assert (out * (1 - mask)).abs().max() == 0
    assert out[..., :3].sum(1).abs().max() < 1e-10
    # By hand: R = R0 f, rows are positions, the network sees the molecule turned back and times from 0 to 1.
    torch.testing.assert_close(model.backbone.times[-1], t[:, 0])
    layout = model._layouts(mask)
    psi = model.pair_embedding(layout.pack(xh[..., :3]), layout)
    R = model.rotation(xh[..., :3], psi, 1000 * t[:, 0], layout, draws["R0"], draws["eta"])
    rows = [xh[..., :3] @ R, xh[..., 3:]] if extra is None else [xh[..., :3] @ R, xh[..., 3:], extra]
    found = model.backbone(torch.cat(rows, dim=-1), t[:, 0], mask) * mask
    x = found[..., :3] - found[..., :3].sum(1, keepdim=True) / mask.sum(1, keepdim=True) * mask
    torch.testing.assert_close(out, torch.cat([x @ R.mT, found[..., 3:]], dim=-1), rtol=1e-10, atol=1e-12)
    # One time for the whole batch, as EDM's sampler may give it; and a copy, as EDM makes its average.
    same = copy.deepcopy(model)
    one = same.given_draws(t[:1], xh, mask, extra, **draws)
    torch.testing.assert_close(one, model.given_draws(t[:1].expand(len(xh), 1), xh, mask, extra, **draws))


@pytest.mark.parametrize(("name", "group"), [("symdiff", "O(3)"), ("symdiff_h", "O(3)"), ("symdiff_pca", "SO(3)")])
def test_it_is_equivariant_and_alone_it_is_not(name: str, group: str) -> None:
    t, xh, mask = (tensor[:2] for tensor in qm9_batch())

    def checked(model: DiTDynamics) -> None:
        def dynamics(x: Tensor, h: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
            out = model(t, torch.cat([x, h], dim=-1), mask.clone())
            return out[..., :3], out[..., 3:]

        returns = ("vector", "invariant")
        check_equivariance(dynamics, xh[..., :3], xh[..., 3:], t, mask, group=group, returns=returns, draws=512)

    torch.manual_seed(2)
    checked(with_own(name, group="o3" if group == "O(3)" else "so3"))
    with pytest.raises(NotEquivariantError):
        checked(with_own("dit"))


def test_it_learns() -> None:
    """Of molecules of which nothing but the noise is unknown, in the way of EDM's loss."""
    model = with_own("symdiff").float()
    t, x, mask = qm9_batch(dtype=torch.float32)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    losses = []
    with model.sampling():
        assert model(t, x, mask).shape == x.shape
    for _ in range(40):
        noise = torch.randn_like(x) * mask
        noise[..., :3] -= noise[..., :3].sum(1, keepdim=True) / mask.sum(1, keepdim=True) * mask
        loss = (model(torch.ones_like(t), noise, mask) - noise).square().sum() / mask.sum() / (3 + NF)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 0.9
    assert sum(losses[-5:]) / 5 < 0.3 * losses[0]


def test_a_wrong_backbone_is_named() -> None:
    t, xh, mask = qm9_batch()
    model = build_dynamics("symdiff_h", NF, backbone=Narrow(), **SIZES)
    with pytest.raises(ValueError, match=r"the backbone must give \(8, 25, 9\), 3 \+ in_node_nf columns, not"):
        model(t, xh, mask)
    with pytest.raises(ValueError, match="compat='release' is for the released models: they take no backbone"):
        build_dynamics("symdiff", NF, backbone=PointNetwork(), compat="release")


class Narrow(nn.Module):
    def forward(self, inputs: Tensor, t: Tensor, node_mask: Tensor) -> Tensor:
        return inputs[..., :3]
