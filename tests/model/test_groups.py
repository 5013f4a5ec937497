import re

import numpy as np
import pytest
import torch
from scipy import stats

from symdiff_plugin.model.groups import GROUPS, Group, get_group, gram_schmidt, sample_haar

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


def test_any_number_of_leading_dimensions():
    torch.manual_seed(3)
    a = torch.randn(2, 5, 3, 3, dtype=torch.float64)
    a[0, :2, :, 1] = a[0, :2, :, 0]
    a[1, :2, :, 0] = 0
    apart = torch.stack([torch.stack([gram_schmidt(matrix) for matrix in row]) for row in a])
    torch.testing.assert_close(gram_schmidt(a), apart, rtol=0, atol=1e-14)


def test_a_missing_second_direction_is_the_axis_farthest_from_the_first():
    """q2 is that axis made orthogonal to q1, and its gradient that of this: the axis is a constant."""
    torch.manual_seed(4)
    a = torch.randn(30, 3, 3, dtype=torch.float64)
    a[:3, :, 0] = -EYE  # here the least of the entries of q1, signs and all, is q1's own
    a[..., 1] = -2 * a[..., 0]
    a.requires_grad_()
    q1 = a[..., 0] / a[..., 0].norm(dim=-1, keepdim=True)
    axis = EYE[q1.abs().argmin(-1)]
    q2 = axis - (q1 * axis).sum(-1, keepdim=True) * q1
    q2 = q2 / q2.norm(dim=-1, keepdim=True)
    q3 = torch.linalg.cross(q1, q2)
    theirs = torch.stack([q1, q2, q3 * (q3 * a[..., 2]).sum(-1, keepdim=True).sign()], dim=-1)
    ours = gram_schmidt(a)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    weight = torch.randn_like(ours)
    (x,), (y,) = (torch.autograd.grad((out * weight).sum(), a, retain_graph=True) for out in (ours, theirs))
    torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-10)


def test_a_missing_first_direction_is_the_first_axis():
    a = torch.randn(4, 3, 3)
    a[..., 0] = torch.tensor([0.0, 1e-30, -1e-30])
    torch.testing.assert_close(gram_schmidt(a)[..., 0], EYE[0].float().expand(4, 3))


def test_where_a_column_begins_to_count_as_dependent():
    eps = torch.finfo(torch.float64).eps
    for distance, q2 in ((8 * eps, EYE[1]), (8.5 * eps, EYE[2])):
        a = torch.stack([EYE[0], EYE[0] + distance * EYE[2], EYE[1] + EYE[2]], dim=-1)
        torch.testing.assert_close(gram_schmidt(a)[:, 1], q2)


@pytest.mark.parametrize("scale", [2e-38, 1e-30])
def test_gradients_of_vanishing_matrices_are_finite(scale):
    """One over the size of a column would overflow."""
    torch.manual_seed(5)
    a = (scale * torch.randn(50, 3, 3)).requires_grad_()
    (1e3 * gram_schmidt(a) * torch.randn(50, 3, 3)).sum().backward()
    assert torch.isfinite(a.grad).all()


def test_haar_draws_are_of_the_dtype_and_on_the_device_asked_for():
    assert sample_haar(2, dtype=torch.float64).dtype == torch.float64
    assert sample_haar(2, device="meta").is_meta
    group = Group(2, special=True)
    assert group.sample_haar(4, 5, dtype=torch.float64).dtype == torch.float64
    on_meta = group.sample_haar(4, 5, device="meta")
    assert on_meta.is_meta
    assert on_meta.shape == (4, 5, 2, 2)


def test_the_groups_and_their_names():
    sizes = {"O(3)": (3, False), "SO(3)": (3, True), "O(2)": (2, False), "SO(2)": (2, True)}
    assert {name: (group.dims, group.special) for name, group in GROUPS.items()} == sizes
    for name, (dims, special) in sizes.items():
        group = Group(dims, special)
        assert get_group(group) is group
        bare = name.replace("(", "").replace(")", "")
        for spelling in (name, name.lower(), bare, bare.lower()):
            assert get_group(spelling) == group
    for wrong in ("U(3)", "o(3", "so3)", "3", "o4", ""):
        message = f"unknown group {wrong!r}; choose one of O(3), SO(3), O(2), SO(2)"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            get_group(wrong)


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
