"""Symmetrised: Theorem 1 around a network from elsewhere, against the formulas written out one molecule at a time."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from molecules import qm9_batch
from torch import Tensor, nn

from symdiff_plugin import Symmetrised
from symdiff_plugin.model.groups import GROUPS, get_group, sample_haar
from symdiff_plugin.model.pca_frames import pca_frames
from symdiff_plugin.model.symmetrisation import transform

RETURNS = {"force": "vector", "dipole": "vector", "energy": "invariant", "stress": "matrix"}


class PointNet(nn.Module):
    """A plain network on points, as one finds it: it knows nothing of rotations, and sums over atoms."""

    def __init__(self, dims: int = 3, width: int = 12, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.dims = dims
        self.first = nn.Linear(dims, width)
        self.second = nn.Linear(2 * width, width)
        self.force = nn.Linear(width, dims)
        self.whole = nn.Linear(width, dims + 1 + dims * dims)
        self.double()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        weight = torch.ones_like(x[..., :1]) if mask is None else mask
        h = torch.sin(2 * self.first(x)) * weight
        h = torch.cat([h, h.sum(-2, keepdim=True).expand_as(h) / weight.sum(-2, keepdim=True)], dim=-1)
        h = torch.tanh(self.second(h)) * weight
        dipole, energy, stress = self.whole(h.sum(-2)).split([self.dims, 1, self.dims**2], dim=-1)
        return {
            "force": self.force(h) * weight, "dipole": dipole, "energy": energy,
            "stress": stress.unflatten(-1, (self.dims, self.dims)),
        }  # fmt: skip


class Frame(PointNet):
    """f_theta: a raw matrix."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x, mask)["stress"]


def molecules(dims: int = 3) -> tuple[Tensor, Tensor]:
    _, xh, mask = qm9_batch()
    x = xh[..., :dims]
    return x - mask * x.sum(1, keepdim=True) / mask.sum(1, keepdim=True), mask


def by_hand(network: PointNet, R: Tensor, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """R . network(R^{-1} . x), one molecule and one atom at a time, without its padding."""
    out = {"force": torch.zeros_like(x), "dipole": [], "energy": [], "stress": []}
    for i, rotation in enumerate(R):
        n = int(mask[i].sum())
        y = network(torch.stack([torch.linalg.inv(rotation) @ atom for atom in x[i, :n]])[None])
        for j in range(n):
            out["force"][i, j] = rotation @ y["force"][0, j]
        out["dipole"].append(rotation @ y["dipole"][0])
        out["energy"].append(y["energy"][0])
        out["stress"].append(torch.einsum("ia,jb,ab->ij", rotation, rotation, y["stress"][0]))
    return {key: value if isinstance(value, Tensor) else torch.stack(value) for key, value in out.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=1e-9, atol=1e-10)


def different(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return any((a[key] - b[key]).abs().max() > 1e-2 for key in a)


def qr(a: Tensor, special: bool) -> Tensor:
    """LAPACK's Gram-Schmidt."""
    q, r = torch.linalg.qr(a)
    q = q * torch.diagonal(r, dim1=-2, dim2=-1).sign()[..., None, :]
    if special:
        q[..., -1] *= torch.linalg.det(q)[..., None]
    return q


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_draw_is_theorem_1_and_equation_7_written_out(name: str, frames: int) -> None:
    group = get_group(name)
    x, mask = molecules(group.dims)
    network, fs = PointNet(group.dims), [Frame(group.dims, seed=i) for i in range(1, frames + 1)]
    model = Symmetrised(network, name, fs or None, returns=RETURNS)
    R0 = model.draw(x, mask=mask)
    R = R0
    for f in fs:
        R = torch.stack([r @ qr(f((x[i] @ r)[None], mask[i][None])[0], group.special) for i, r in enumerate(R)])
    out = model.given_draws(x, R0=R0, mask=mask)
    same(out, by_hand(network, R, x, mask))
    torch.testing.assert_close(model.rotation(x, R0=R0, mask=mask), R)
    if frames:  # negative control: the other order
        first = [qr(fs[0]((x[i] @ r)[None], mask[i][None])[0], group.special) for i, r in enumerate(R0)]
        other = torch.stack([f @ r.T for f, r in zip(first, R0, strict=True)])
        assert different(out, by_hand(network, other, x, mask))


@pytest.mark.parametrize("name", GROUPS)
def test_the_draws_are_haars_and_of_the_group(name: str) -> None:
    group = get_group(name)
    torch.manual_seed(0)
    R = Symmetrised(PointNet(group.dims), name, returns=RETURNS).draw(torch.randn(20_000, 2, group.dims).double())
    torch.testing.assert_close(R.mT @ R, torch.eye(group.dims).double().expand_as(R), rtol=0, atol=1e-12)
    determinant = torch.linalg.det(R)
    error = 1 / len(R) ** 0.5
    assert (determinant.min() > 0) == group.special
    assert group.special or determinant.mean().abs() < 5 * error
    # Haar: R Q has the law of R. A rotation's trace has mean 0 in space; E[R_ij R_kl] = delta delta / d; in the plane
    # angles are uniform.
    assert R.mean(0).abs().max() < 5 * error
    second = torch.einsum("nij,nkl->ijkl", R, R) / len(R)
    if group.dims == 3:
        delta = torch.eye(3).double()
        assert (second - torch.einsum("ik,jl->ijkl", delta, delta) / 3).abs().max() < 5 * error
    else:
        angle = torch.atan2(R[:, 1, 0], R[:, 0, 0])
        assert all((angle * k).cos().mean().abs() < 5 * error for k in (1, 2, 3, 4))


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("base", ["haar", "pca"])
def test_orders_of_atoms_and_padding_do_not_matter(name: str, base: str) -> None:
    dims = get_group(name).dims
    x, mask = molecules(dims)
    model = Symmetrised(PointNet(dims), name, Frame(dims, seed=1), base, RETURNS)
    order = torch.randperm(x.shape[1])
    torch.manual_seed(1)
    out = model(x, mask=mask)
    torch.manual_seed(1)
    shuffled = model(x[:, order], mask=mask[:, order])
    same(shuffled, {**out, "force": out["force"][:, order]})
    wild = torch.where(mask > 0, x, torch.inf) if base == "pca" else None  # what stands in the padding is not read
    if wild is not None:
        torch.manual_seed(1)
        R = model.draw(x, mask=mask)
        torch.manual_seed(1)
        assert torch.equal(model.draw(wild, mask=mask.squeeze(-1) > 0), R)
    torch.manual_seed(1)  # negative control: the padding counts where there is no mask
    assert different(model(x), out)


def test_any_leading_shape_and_no_mask() -> None:
    network, f = PointNet(), Frame(seed=1)
    model = Symmetrised(network, "SO(3)", f, returns=RETURNS)
    x = torch.randn(2, 3, 5, 3).double()
    R0 = model.draw(x)
    assert R0.shape == (2, 3, 3, 3)
    out = model.given_draws(x, R0=R0)
    flat = model.given_draws(x.flatten(0, 1), R0=R0.flatten(0, 1))
    same({k: v.flatten(0, 1) for k, v in out.items()}, flat)
    same(model.given_draws(x[1, 2], R0=R0[1, 2]), {k: v[1, 2] for k, v in out.items()})
    assert Symmetrised(lambda x: x[..., None, :].expand(*x.shape[:-1], 4, 3))(x).shape == (2, 3, 5, 4, 3)


def test_tuples_and_tensors_and_wider_vectors() -> None:
    x = torch.randn(2, 5, 3).double()
    R = sample_haar(2, dtype=torch.float64)
    k = lambda x: (torch.stack([x**3, x**2], dim=-2), x.square().sum(-1))  # noqa: E731
    out = Symmetrised(k, returns=("vector", "invariant")).given_draws(x, R0=R)
    assert isinstance(out, tuple)
    vectors, norms = out
    inside = torch.einsum("bnd,bde->bne", x, R)
    torch.testing.assert_close(vectors[:, :, 0], torch.einsum("bde,bne->bnd", R, inside**3))
    torch.testing.assert_close(vectors[:, :, 1], torch.einsum("bde,bne->bnd", R, inside**2))
    torch.testing.assert_close(norms, inside.square().sum(-1))
    torch.testing.assert_close(
        Symmetrised(lambda x: x**3).given_draws(x, R0=R), torch.einsum("bde,bne->bnd", R, inside**3)
    )


def test_arguments_that_turn_with_x() -> None:
    x, v = torch.randn(2, 2, 5, 3).double()
    R = sample_haar(2, dtype=torch.float64)
    network = lambda x, scale, velocity: scale * x**3 + velocity**2  # noqa: E731
    out = Symmetrised(network, takes={"velocity": "vector"}).given_draws(x, 2.0, R0=R, velocity=v)
    torch.testing.assert_close(out, (2 * (x @ R) ** 3 + (v @ R) ** 2) @ R.mT)
    assert (out - Symmetrised(network).given_draws(x, 2.0, R0=R, velocity=v)).abs().max() > 0.1


def test_recursion_is_associative() -> None:
    """sym_{sym_{gamma_0}(f)}(k) = sym_{gamma_0}(sym_f(k)), and a base or frame may be symmetrised itself."""
    x, mask = molecules()
    network, f1, f2 = PointNet(), Frame(seed=1), Frame(seed=2)
    element = lambda f: lambda x, mask: get_group("O(3)").orthogonalise(f(x, mask))  # noqa: E731
    R0 = sample_haar(len(x), dtype=x.dtype)
    known = lambda x, mask: R0  # noqa: E731
    whole = Symmetrised(network, "O(3)", [f1, f2], known, RETURNS)(x, mask=mask)
    inner = Symmetrised(network, "O(3)", base=element(f2), returns=RETURNS)  # sym_f2(k)
    middle = Symmetrised(inner, "O(3)", base=element(f1), returns=RETURNS)
    same(Symmetrised(middle, base=known, returns=RETURNS)(x, mask=mask), whole)
    nested = Symmetrised(f2, base=Symmetrised(f1, base=known, returns="frame"), returns="frame")
    same(Symmetrised(network, base=nested, returns=RETURNS)(x, mask=mask), whole)
    assert different(Symmetrised(network, "O(3)", [f2, f1], known, RETURNS)(x, mask=mask), whole)


def test_gradients_reach_network_frame_and_x() -> None:
    x, mask = molecules()
    model = Symmetrised(PointNet(), "SO(3)", Frame(seed=1), returns=RETURNS)
    R0 = model.draw(x, mask=mask)

    def energy(x: Tensor) -> Tensor:
        out = model.given_draws(x, R0=R0, mask=mask)
        return sum(value.square().sum() for value in out.values())

    energy(x.requires_grad_()).backward()
    used = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    # The frame uses nothing of its force, and nothing else is idle.
    assert {name for name, _ in model.named_parameters()} - used == {"frames.0.force.weight", "frames.0.force.bias"}
    step = 1e-6 * torch.randn_like(x) * mask
    numeric = (energy(x.detach() + step) - energy(x.detach() - step)) / 2
    torch.testing.assert_close((x.grad * step).sum(), numeric, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("base", ["haar", "pca"])
def test_dtypes_come_back_and_rotations_are_exact_in_low_precision(dtype: torch.dtype, base: str) -> None:
    torch.manual_seed(7)
    model = Symmetrised(PointNet(), "O(3)", Frame(seed=1), base, RETURNS).to(dtype)
    x = torch.randn(4, 5, 3, dtype=dtype)
    out = model(x)
    assert {value.dtype for value in out.values()} == {dtype}
    R = model.rotation(x, R0=model.draw(x))
    assert R.dtype == torch.float32
    torch.testing.assert_close(R.mT @ R, torch.eye(3).expand_as(R), rtol=0, atol=2e-6)


def test_autocast_leaves_the_geometry_alone() -> None:
    torch.manual_seed(7)
    linear = nn.Linear(3, 3)
    model = Symmetrised(lambda x: x, frame=lambda x: linear(x)[..., :3, :])
    x = torch.randn(4, 5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    torch.testing.assert_close(out, x, rtol=0, atol=2e-6)
    with torch.autocast("cpu", torch.bfloat16):  # negative control
        assert (x @ torch.linalg.qr(torch.randn(3, 3)).Q).dtype == torch.bfloat16


def test_matrices_turn_in_full_precision_whatever_autocast_says() -> None:
    torch.manual_seed(7)
    R, m = sample_haar(4), torch.randn(4, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = transform("matrix", R, m)
    exact = torch.einsum("bij,bkl,bjl->bik", R.double(), R.double(), m.double())
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=5e-6)


def test_draws_come_from_the_global_generator() -> None:
    x, mask = molecules()
    for base in ("haar", "pca"):
        model = Symmetrised(PointNet(), base=base, returns=RETURNS)
        torch.manual_seed(8)
        first = model(x, mask=mask)
        assert different(model(x, mask=mask), first)
        torch.manual_seed(8)
        same(model(x, mask=mask), first)


def test_copies_devices_and_weights() -> None:
    model = Symmetrised(PointNet(), frame=Frame(seed=1), base=lambda x: torch.eye(3).double(), returns=RETURNS)
    again = copy.deepcopy(model)
    assert not {id(p) for p in again.parameters()} & {id(p) for p in model.parameters()}
    again.load_state_dict(model.state_dict())
    assert {name.split(".")[0] for name in model.state_dict()} == {"network", "frames"}
    with torch.device("meta"):
        out = Symmetrised(PointNet(), base="pca", returns=RETURNS)(torch.zeros(2, 4, 3).double())
    assert all(value.is_meta for value in out.values())
    for name in GROUPS:
        x = torch.zeros(2, 4, get_group(name).dims, device="meta")
        assert pca_frames(x, None, get_group(name)).is_meta


@pytest.mark.parametrize(
    ("returns", "network", "message"),
    [
        ({"b": "vector"}, lambda x: x, "a dictionary of b, as declared, not (3, 4, 3)"),
        ({"b": "vector"}, lambda x: (x, x), "a dictionary of b, as declared, not 2 entries"),
        ({"b": "vector"}, lambda x: {"a": x, "b": x}, "a dictionary of b, as declared, not a dictionary of a, b"),
        (("vector", "vector"), lambda x: x, "a tuple of 2, as declared, not (3, 4, 3)"),
        (("vector", "vector"), lambda x: [x], "a tuple of 2, as declared, not 1 entries"),
        ("vector", lambda x: 2.5, "a tensor (3, ..., 3), as a vector is, not a float"),
        ("vector", lambda x: {"a": x}, "a tensor (3, ..., 3), as a vector is, not a dict"),
        # As many molecules as coordinates: one number of each molecule is no vector.
        ("vector", lambda x: x.sum((-1, -2)), "a tensor (3, ..., 3), as a vector is, not (3,)"),
        ("matrix", lambda x: x.sum(-2), "a tensor (3, ..., 3, 3), as a matrix is, not (3, 3)"),
    ],
)
def test_what_a_network_returned_instead_is_said(returns, network, message: str) -> None:
    with pytest.raises(ValueError, match=f"^the output must be {re.escape(message)}$"):
        Symmetrised(network, returns=returns)(torch.zeros(3, 4, 3))


@pytest.mark.parametrize("returns", ["vectors", {"y": "vectors"}, ("vector", "vectors"), ["vector", ("vectors",)]])
def test_unknown_kinds_are_refused_wherever_they_stand(returns) -> None:
    message = "^unknown kind 'vectors'; what a network returns is one of vector, invariant, matrix, frame$"
    with pytest.raises(ValueError, match=message):
        Symmetrised(nn.Identity(), returns=returns)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Symmetrised(nn.Identity(), "U(3)"), r"unknown group 'U\(3\)'; choose one of O\(3\), SO\(3\)"),
        (lambda: Symmetrised(nn.Identity(), base="svd"), "unknown base 'svd'; choose one of haar, pca"),
        (lambda: Symmetrised(nn.Identity(), returns={"y": "vectors"}), "unknown kind 'vectors'; .* one of vector, inv"),
        (lambda: Symmetrised(nn.Identity())(torch.zeros(2, 4, 2)), r"x must be \(\.\.\., N, 3\), as O\(3\) turns it"),
        (lambda: Symmetrised(nn.Identity())(torch.zeros(2, 4, 3).long()), "floating-point"),
        (lambda: Symmetrised(nn.Identity())(torch.zeros(2, 4, 3), mask=torch.ones(4, 2)), r"mask must be \(2, 4\)"),
        (lambda: Symmetrised(lambda x: x.sum(-1))(torch.zeros(2, 4, 3)), r"output must be a tensor \(2, \.\.\., 3\)"),
        (lambda: Symmetrised(lambda x: (x, x))(torch.zeros(2, 4, 3)), "not 2 entries"),
        (
            lambda: Symmetrised(lambda x: {"a": x}, returns={"b": "vector"})(torch.zeros(2, 4, 3)),
            "must be a dictionary of b, as declared, not a dictionary of a",
        ),
        (
            lambda: Symmetrised(lambda x: x, returns=("vector", "vector"))(torch.zeros(2, 4, 3)),
            "must be a tuple of 2, as declared",
        ),
        (lambda: Symmetrised(nn.Identity(), frame=lambda x: x)(torch.zeros(2, 4, 3)), r"the frame must give .*2, 3, 3"),
        (lambda: Symmetrised(nn.Identity(), base=lambda x: x)(torch.zeros(2, 4, 3)), r"the base must give .*2, 3, 3"),
        (
            lambda: Symmetrised(nn.Identity()).given_draws(torch.zeros(2, 4, 3), R0=torch.eye(3)),
            r"R0 must be \(2, 3, 3\), not \(3, 3\)",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(make, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
