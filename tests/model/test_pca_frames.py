"""PCA frames: the sign choices drawn evenly, degenerate molecules, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from symdiff_plugin.model.groups import GROUPS, get_group
from symdiff_plugin.model.pca_frames import _axes, pca_frames


@pytest.mark.parametrize("name", GROUPS)
def test_pca_frames_are_the_sign_choices_drawn_evenly(name: str) -> None:
    group = get_group(name)
    torch.manual_seed(3)
    x = torch.randn(6, group.dims).double()
    centred = (x - x.mean(0)).numpy()
    axes = torch.from_numpy(np.linalg.svd(centred)[2].T.copy()).flip(-1)  # rising eigenvalues
    draws = 8_000
    R = pca_frames(x.expand(draws, -1, -1), None, group)
    signs = torch.einsum("di,ndi->ni", axes, R)
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs), rtol=0, atol=1e-9)
    codes, counts = torch.unique((signs > 0).long() @ (2 ** torch.arange(group.dims)), return_counts=True)
    choices = 2 ** (group.dims - group.special)
    assert len(codes) == choices
    expected = draws / choices
    assert ((counts - expected) ** 2 / expected).sum() < 35  # chi-squared, 7 degrees of freedom at most: p < 1e-5
    assert not group.special or (torch.linalg.det(R) - 1).abs().max() < 1e-12


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(5, 3),
        torch.tensor([[0.1, 0.7, -3.3]]).expand(3, 3),
        torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]),
        torch.tensor([[1.0, 0, 0], [2, 0, 0]]),
        torch.tensor([[3.0, 4, 5]]),
        1e-30 * torch.eye(3),
        torch.full((4, 3), torch.nan),
    ],
    ids=["no extent", "one point", "octahedron", "a line", "one atom", "tiny", "not finite"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_molecules_get_frames_and_finite_gradients(x: Tensor, dtype: torch.dtype) -> None:
    """Where eigenvalues are equal the eigenspace's basis is Haar distributed: here every R's mean is 0, none is NaN."""
    torch.manual_seed(4)
    x = x.to(dtype).expand(20_000, -1, -1).clone().requires_grad_()
    R = pca_frames(x, None, get_group("O(3)"))
    torch.testing.assert_close(R.mT @ R, torch.eye(3).to(R).expand_as(R), rtol=0, atol=20 * torch.finfo(dtype).eps)
    assert R.mean(0).abs().max() < 5 / len(R) ** 0.5
    (R**3).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["octahedron", "octahedron far away", "one point", "one atom"])
def test_pca_frames_of_a_flat_eigenspace_are_haar_within_it(shape: str, dtype: torch.dtype) -> None:
    """Negative control: LAPACK's own choice for the octahedron is one basis."""
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)]).to(dtype)
    away = torch.tensor([0.1, 0.7, -3.3]).to(dtype)
    points = {"octahedron": octahedron, "octahedron far away": octahedron + away, "one point": away.expand(7, 3)}
    torch.manual_seed(4)
    R = pca_frames(points.get(shape, away[None]).expand(20_000, -1, -1), None, get_group("O(3)"))
    haar = 3 / 15  # E[R_ij^4] under Haar
    error = (R**4).std(0) / len(R) ** 0.5
    assert (((R**4).mean(0) - haar).abs() / error).max() < 5
    axes = torch.linalg.eigh(octahedron.T @ octahedron).eigenvectors
    assert ((axes**4) - haar).abs().max() > 0.5


def test_a_molecule_without_atoms_gets_a_frame_and_a_finite_gradient() -> None:
    x = torch.randn(2, 4, 3).double().requires_grad_()
    mask = torch.tensor([[True, True, True, True], [False, False, False, False]])
    R = pca_frames(x, mask, get_group("O(3)"))
    torch.testing.assert_close(R.mT @ R, torch.eye(3).double().expand(2, 3, 3), rtol=0, atol=1e-13)
    (R * torch.randn_like(R)).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad[0].abs().max() > 0
    assert x.grad[1].abs().max() == 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_one_coordinate_that_is_not_finite_makes_the_frame_a_haar_draw(bad: float) -> None:
    """And of that molecule alone. Negative control: without it, the frames are eight."""
    torch.manual_seed(4)
    x = torch.randn(5, 3).double().expand(20_001, -1, -1).clone()
    x[:-1, 2, 1] = bad
    padded = torch.nn.functional.pad(x, (0, 0, 0, 2))
    R = pca_frames(padded, (torch.arange(7) < 5).expand(20_001, -1), get_group("O(3)"))
    haar = 3 / 15  # E[R_ij^4]
    fourth = R[:-1] ** 4
    assert ((fourth.mean(0) - haar).abs() * len(fourth) ** 0.5 / fourth.std(0)).max() < 5
    centred = x[-1] - x[-1].mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors
    torch.testing.assert_close(R[-1].abs(), axes.abs(), rtol=0, atol=1e-9)
    assert (axes**4 - haar).abs().max() > 0.2


def test_eigenvalues_that_are_equal_to_the_last_bit_have_a_finite_gradient() -> None:
    covariance = torch.stack([torch.eye(3), torch.diag(torch.arange(3.0)) + 0.1]).requires_grad_()
    _axes(covariance, torch.full((2, 1, 1), 1e-6)).pow(3).sum().backward()
    assert torch.equal(covariance.grad[0], torch.zeros(3, 3))
    assert covariance.grad[1].abs().max() > 0
    assert torch.isfinite(covariance.grad).all()


def test_pca_frames_are_of_the_atoms_wherever_they_are() -> None:
    """Neither padding nor a translation changes them."""
    torch.manual_seed(9)
    x = torch.randn(40, 5, 3).double() * torch.tensor([1.0, 2.0, 3.0])
    mask = (torch.arange(5) < 4).expand(40, 5)
    draws = []
    padded = torch.where(mask[..., None], x + 7, 0.0)
    for y, m in ((x[:, :4], None), (x[:, :4] + 7, None), (x + 7, mask), (padded, mask)):
        torch.manual_seed(10)
        draws.append(pca_frames(y, m, get_group("O(3)")))
    for R in draws[1:]:
        torch.testing.assert_close(R, draws[0], rtol=0, atol=1e-9)


def test_gradients_of_pca_frames_are_those_of_eigenvectors() -> None:
    torch.manual_seed(5)
    x = torch.randn(3, 6, 3).double().requires_grad_()

    def frames(x: Tensor) -> Tensor:
        torch.manual_seed(6)
        return pca_frames(x, None, get_group("SO(3)"))

    assert torch.autograd.gradcheck(frames, (x,))
