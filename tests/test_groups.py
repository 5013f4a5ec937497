import numpy as np
import pytest
import torch
from scipy import stats

from symdiff_plugin.groups import gram_schmidt, sample_haar

EYE = torch.eye(3, dtype=torch.float64)


def qr_positive(a):
    q, r = torch.linalg.qr(a)
    return q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))[..., None, :]


def test_gram_schmidt_is_lapacks_qr_with_positive_diagonal():
    torch.manual_seed(0)
    a = torch.randn(500, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(gram_schmidt(a), qr_positive(a), rtol=0, atol=1e-11)


def test_gram_schmidt_gradient_is_that_of_qr():
    torch.manual_seed(1)
    a = torch.randn(50, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50, 3, 3, dtype=torch.float64)
    (ours,) = torch.autograd.grad((gram_schmidt(a) * weight).sum(), a)
    (theirs,) = torch.autograd.grad((qr_positive(a) * weight).sum(), a)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    assert torch.autograd.gradcheck(gram_schmidt, (a[:4].detach().requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-6, 1e-12, 0.0])
@pytest.mark.parametrize("columns", ["second", "third", "all", "zero first"])
def test_nearly_dependent_columns_stay_orthogonal_with_finite_gradients(dtype, distance, columns):
    torch.manual_seed(2)
    a = torch.randn(200, 3, 3, dtype=dtype)
    if columns in ("second", "all"):
        a[..., 1] = 2 * a[..., 0] + distance * a[..., 1]
    if columns in ("third", "all"):
        a[..., 2] = a[..., 0] - a[..., 1] + distance * a[..., 2]
    if columns == "zero first":
        a[..., 0] *= distance
    a.requires_grad_()
    q = gram_schmidt(a)
    tolerance = 50 * torch.finfo(dtype).eps
    torch.testing.assert_close(q.mT @ q, EYE.to(dtype).expand(200, 3, 3), rtol=0, atol=tolerance)
    (q * torch.randn_like(q)).sum().backward()
    assert torch.isfinite(a.grad).all()


def test_zero_matrix_gives_the_identity():
    torch.testing.assert_close(gram_schmidt(torch.zeros(1, 3, 3, dtype=torch.float64)), EYE[None])


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e18])
def test_gram_schmidt_does_not_depend_on_the_scale(scale):
    torch.manual_seed(3)
    a = torch.randn(20, 3, 3)
    torch.testing.assert_close(gram_schmidt(a * scale), gram_schmidt(a), rtol=0, atol=1e-5)


def test_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"3, 3"):
        gram_schmidt(torch.zeros(3, 2))


def moments(r):
    """Entries, their products, class functions and the determinant."""
    flat = r.reshape(len(r), 9)
    trace = np.trace(r, axis1=1, axis2=2)
    trace2 = np.trace(r @ r, axis1=1, axis2=2)
    second = (flat[:, :, None] * flat[:, None]).reshape(len(r), 81)
    return np.concatenate([flat, second, np.stack([trace2, trace**4, np.linalg.det(r)], 1)], axis=1)


def largest_z(a, b):
    a, b = moments(a), moments(b)
    error = np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))
    return np.max(np.abs(a.mean(0) - b.mean(0)) / np.maximum(error, 1e-12))


def test_haar_moments_agree_with_scipys():
    torch.manual_seed(4)
    ours = sample_haar(40_000, dtype=torch.float64).numpy()
    scipys = stats.ortho_group.rvs(3, size=40_000, random_state=5)
    assert largest_z(ours, scipys) < 5.0
    # The negative control: rotations alone, and composed Euler angles (EDM's augmentation), are not Haar on O(3).
    assert largest_z(stats.special_ortho_group.rvs(3, size=40_000, random_state=6), scipys) > 20
    angles = np.random.default_rng(7).uniform(-np.pi, np.pi, (40_000, 3))
    euler = np.stack([np.eye(3)] * 40_000)
    for axis, (i, j) in enumerate([(1, 2), (0, 2), (0, 1)]):
        turn = np.stack([np.eye(3)] * 40_000)
        c, s = np.cos(angles[:, axis]), np.sin(angles[:, axis])
        turn[:, i, i], turn[:, i, j], turn[:, j, i], turn[:, j, j] = c, s, -s, c
        euler = turn @ euler
    assert largest_z(euler * np.where(angles[:, :1, None] > 0, 1, -1), scipys) > 20


def test_haar_draws_come_from_the_global_generator():
    torch.manual_seed(8)
    first = sample_haar(4)
    torch.manual_seed(8)
    assert torch.equal(first, sample_haar(4))
