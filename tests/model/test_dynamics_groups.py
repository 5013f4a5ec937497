"""EDM's dynamics under SO(3) and on PCA frames, by the check that is for any network."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from molecules import qm9_batch, randomise
from torch import Tensor

import symdiff_plugin.pretrained
from symdiff_plugin import PRESETS, build_dynamics, check_equivariance
from symdiff_plugin.model.dynamics import DiTDynamics
from symdiff_plugin.model.equivariance import NotEquivariantError
from symdiff_plugin.model.groups import sample_haar
from symdiff_plugin.pretrained import architecture_of
from symdiff_plugin.training.released import _OURS

SIZES = {"hidden_size": 32, "depth": 1, "num_heads": 4, "xh_hidden_size": 16, "K": 16}
SIZES |= {"enc_hidden_size": 16, "enc_depth": 1, "enc_num_heads": 4}
CASES = [
    ("symdiff", {"group": "so3"}),
    ("symdiff_h", {"group": "so3"}),
    ("symdiff_pca", {}),
    ("symdiff_pca_f", {}),
    ("symdiff_pca", {"group": "so3"}),
    ("symdiff_pca_f", {"group": "so3"}),
    ("symdiff_tiny", {"base": "pca"}),
]


def small(name: str, **overrides: object) -> DiTDynamics:
    torch.manual_seed(2)
    model = randomise(build_dynamics(name, 6, **{**SIZES, **overrides}).double(), std=0.25, seed=2)
    if getattr(model, "f_theta", None) is not None:
        with torch.no_grad():  # depends strongly on the orientation: else any composition would do
            model.f_theta.x_embedder.weight[:, :3] += 0.3 * torch.randn(16, 3).double()
    return model


def checked(model: DiTDynamics, group: str, draws: int = 1024) -> None:
    """Two molecules, the smaller one padded and first."""
    t, xh, mask = qm9_batch(count=19)
    sizes = mask.sum((1, 2))
    chosen = [int((sizes == n).nonzero()[0]) for n in sizes.unique()[:2]]
    length = int(sizes[chosen].max())
    t, xh, mask = t[chosen], xh[chosen, :length], mask[chosen, :length]

    def dynamics(x: Tensor, h: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        out = model(t, torch.cat([x, h], dim=-1), mask.clone())
        return out[..., :3], out[..., 3:]

    returns = ("vector", "invariant")
    check_equivariance(dynamics, xh[..., :3], xh[..., 3:], t, mask, group=group, returns=returns, draws=draws)


@pytest.mark.parametrize(("name", "overrides"), CASES)
def test_the_dynamics_are_equivariant_under_their_group_and_no_more(name: str, overrides: dict[str, str]) -> None:
    model = small(name, **overrides)
    torch.manual_seed(3)
    checked(model, "SO(3)")
    if model.architecture.group == "o3":
        checked(model, "O(3)")
    else:
        with pytest.raises(NotEquivariantError, match=r"not equivariant under O\(3\)"):
            checked(model, "O(3)", draws=8_192)


@pytest.mark.parametrize(("name", "overrides"), CASES)
def test_draws_lie_in_the_group_and_are_coupled(name: str, overrides: dict[str, str]) -> None:
    model = small(name, **overrides)
    t, xh, mask = qm9_batch()
    special = model.architecture.group == "so3"
    torch.manual_seed(4)
    draws = model.draw(xh, mask)
    determinants = {round(torch.linalg.det(model.draw(xh, mask)["R0"][0]).item()) for _ in range(30)}
    assert determinants == ({1} if special else {-1, 1})
    Q = sample_haar(len(xh), special=special, dtype=xh.dtype)
    turn = lambda xh: torch.cat([xh[..., :3] @ Q.mT, xh[..., 3:]], dim=-1)  # noqa: E731
    out = model.given_draws(t, xh, mask, **draws)
    again = model.given_draws(t, turn(xh), mask, **{**draws, "R0": Q @ draws["R0"]})
    torch.testing.assert_close(again, turn(out), rtol=1e-8, atol=1e-8)
    if model.f_theta is not None:
        layout = model._layouts(mask)
        psi = model.pair_embedding(layout.pack(xh[..., :3]), layout)
        R = model.rotation(xh[..., :3], psi, t[:, 0] * 1000, layout, **draws)
        det = torch.linalg.det(R)
        torch.testing.assert_close(det.abs(), torch.ones_like(det))
        assert not special or (det > 0).all()


@pytest.mark.parametrize(("pca", "haar"), [("symdiff_pca", "symdiff_h"), ("symdiff_pca_f", "symdiff")])
def test_a_base_changes_nothing_but_the_draw(pca: str, haar: str) -> None:
    a, b = small(pca), small(haar)
    t, xh, mask = qm9_batch()
    draws = a.draw(xh, mask)
    assert torch.equal(a.given_draws(t, xh, mask, **draws), b.given_draws(t, xh, mask, **draws))
    covariance = torch.linalg.inv(draws["R0"]) @ (xh[..., :3].mT @ xh[..., :3]) @ draws["R0"]  # diagonal in its frame
    off = covariance - torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
    assert off.abs().max() < 1e-9 * covariance.abs().max()


def test_molecules_that_diverged_do_not_stop_a_batch() -> None:
    model = small("symdiff_pca_f")
    t, xh, mask = qm9_batch()
    xh[3, :2, :3] = torch.nan
    out = model(t, xh, mask)
    assert out[3].isnan().any()
    assert out[[0, 1, 2, 4, 5, 6, 7]].isfinite().all()


def test_what_was_stored_before_there_was_a_choice_is_read_as_it_was() -> None:
    """Cards, configurations and the arguments of runs lack the fields; their values are those that there were."""
    for preset in PRESETS.values():
        fields = asdict(preset.architecture)
        assert (fields["group"], fields["base"]) == ("o3", "haar") or "PCA" in preset.label
    card = json.loads((Path(symdiff_plugin.pretrained.__file__).parent / "qm9-mini.json").read_text())
    assert not {"group", "base"} & set(card["architecture"])
    dynamics = build_dynamics(card["model"], 6, **card["architecture"])
    assert architecture_of(dynamics) == {**card["architecture"], "group": "o3", "base": "haar"}
    assert {"group", "base"} <= set(_OURS)  # the release has no flags for them
