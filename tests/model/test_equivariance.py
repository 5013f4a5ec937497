"""check_equivariance accepts what is equivariant, and rejects, by name, what is not."""

from __future__ import annotations

import pytest
import torch
from molecules import qm9_batch, randomise
from test_symmetrised import RETURNS, Frame, PointNet, molecules
from torch import Tensor, nn

from symdiff_plugin import Symmetrised, build_dynamics, check_equivariance
from symdiff_plugin.model import symmetrisation
from symdiff_plugin.model.equivariance import NotEquivariantError
from symdiff_plugin.model.groups import GROUPS, get_group, gram_schmidt, sample_haar
from symdiff_plugin.model.pca_frames import pca_frames

DRAWS = 2048


def few(dims: int = 3) -> tuple[Tensor, Tensor]:
    """Three molecules of different sizes, in no order of theirs, with padding."""
    x, mask = molecules(dims)
    sizes = mask.sum((1, 2))
    chosen = [int((sizes == n).nonzero()[0]) for n in sizes.unique()[[1, 2, 0]]]
    length = int(sizes[chosen].max()) + 1
    x, mask = x[chosen, :length], mask[chosen, :length]
    assert sizes[chosen].tolist() not in (sorted(sizes[chosen]), sorted(sizes[chosen], reverse=True))
    return x, mask


def loud_frame(dims: int = 3, seed: int = 1) -> Frame:
    """One that depends strongly on orientation: were it constant, R0 f would be Haar in any order."""
    frame = Frame(dims, seed=seed)
    with torch.no_grad():
        frame.first.weight *= 3
        frame.whole.weight *= 3
    return frame


def vector_bases(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """A user's base: a random equivariant matrix, its columns weighted sums of the atoms' positions."""
    weight = torch.randn(*x.shape[:-1], x.shape[-1], dtype=x.dtype)
    return x.mT @ weight


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("base", ["haar", "pca", vector_bases])
@pytest.mark.parametrize("frames", [0, 1, 2])
def test_what_is_symmetrised_is_accepted(name: str, base, frames: int) -> None:
    torch.manual_seed(0)
    dims = get_group(name).dims
    x, mask = few(dims)
    network, fs = PointNet(dims), [loud_frame(dims, seed=i + 1) for i in range(frames)]
    found = check_equivariance(Symmetrised(network, name, fs, base, RETURNS), x, mask=mask, draws=512)
    assert found.group == name
    assert found.coupled < 1e-9
    assert found.errors < found.allowed < 7


def rejected(model, *args, match: str, draws: int = DRAWS, **kwargs) -> None:
    with pytest.raises(NotEquivariantError, match=match) as caught:
        check_equivariance(model, *args, draws=draws, **kwargs)
    assert "\n" not in str(caught.value)


def test_a_plain_network_is_rejected_and_named() -> None:
    x, mask = few()
    returns = {**RETURNS, "energy": "invariant"}
    rejected(PointNet(), x, mask=mask, group="SO(3)", returns=returns, match=r"not equivariant under SO\(3\): the mean")
    with pytest.raises(ValueError, match="give the group"):
        check_equivariance(PointNet(), x)


@pytest.mark.parametrize("base", ["haar", "pca"])
@pytest.mark.parametrize(("small", "large"), [("SO(3)", "O(3)"), ("SO(2)", "O(2)")])
def test_rotations_alone_are_not_the_whole_group(small: str, large: str, base: str) -> None:
    """Haar or PCA without reflections: accepted under SO, rejected under O, by its draws and by its outputs alone."""
    torch.manual_seed(1)
    dims = get_group(small).dims
    x, mask = few(dims)
    model = Symmetrised(PointNet(dims), small, base=base, returns=RETURNS)
    check_equivariance(model, x, mask=mask, draws=DRAWS)
    rejected(model, x, mask=mask, group=large, match="the determinant of the draw R of gamma")
    outputs = lambda x, mask: model(x, mask=mask)  # noqa: E731
    rejected(outputs, x, mask=mask, group=large, returns=RETURNS, draws=4 * DRAWS, match="the output")
    check_equivariance(outputs, x, mask=mask, group=small, returns=RETURNS, draws=DRAWS)


def test_the_releases_order_of_composition_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    x, mask = few()
    model = Symmetrised(PointNet(), "O(3)", loud_frame(), returns=RETURNS)
    outputs = lambda x, mask: model(x, mask=mask)  # noqa: E731
    check_equivariance(outputs, x, mask=mask, group="O(3)", returns=RETURNS, draws=DRAWS)
    monkeypatch.setitem(symmetrisation._ACTIONS, "frame", (2, lambda R, f: f @ R.mT))
    rejected(model, x, mask=mask, match=r"coupled draws .* eq\. 7 is composed in another order")
    rejected(outputs, x, mask=mask, group="O(3)", returns=RETURNS, draws=4 * DRAWS, match="the output")


@pytest.mark.parametrize("depth", [1, 2])
def test_a_frame_that_sees_x_unturned_is_rejected(depth: int) -> None:
    """R = R0 f(x): eq. 7 without R0^{-1}, at either depth of the recursion."""
    torch.manual_seed(3)
    x, mask = few()

    class Unturned(Symmetrised):
        def _frame(self, frame: nn.Module, R: Tensor, args, mask, kwargs, y: Tensor) -> Tensor:
            turned = y @ R.mT if frame is self.frames[depth - 1] else y
            return super()._frame(frame, R, args, mask, kwargs, turned)

    fs = [loud_frame(seed=i + 1) for i in range(depth)]
    check_equivariance(Symmetrised(PointNet(), frame=fs, returns=RETURNS), x, mask=mask, draws=DRAWS)
    rejected(Unturned(PointNet(), frame=fs, returns=RETURNS), x, mask=mask, match="coupled draws")


def signed_axes(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """PCA frames, with the signs that LAPACK leaves."""
    covariance = (x * mask).mT @ (x * mask)
    return torch.linalg.eigh(covariance).eigenvectors


def biased_axes(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """PCA frames whose signs favour one direction of space."""
    R = pca_frames(x, mask, get_group("O(3)"))
    return R * torch.where(torch.rand_like(R[..., :1, :]) < 0.8, R[..., :1, :].sign(), 1.0)


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(lambda x, mask: torch.eye(3).to(x).expand(len(x), 3, 3), id="the identity"),
        pytest.param(signed_axes, id="LAPACK's signs"),
        pytest.param(biased_axes, id="biased signs"),
        pytest.param(lambda x, mask: torch.randn(len(x), 3, 3).to(x) + 0.3 * torch.eye(3).to(x), id="not quite Haar"),
        pytest.param(lambda x, mask: gram_schmidt(torch.rand(len(x), 3, 3).to(x)), id="uniform entries"),
        pytest.param(loud_frame(), id="a network"),
    ],
)
def test_a_base_that_is_not_equivariant_is_rejected(base) -> None:
    torch.manual_seed(4)
    x, mask = few()
    rejected(Symmetrised(PointNet(), base=base, returns=RETURNS), x, mask=mask, match="not equivariant", draws=1024)
    # The same as f_theta of eq. 7 is harmless: it may be anything.
    check_equivariance(Symmetrised(PointNet(), frame=base, returns=RETURNS), x, mask=mask, draws=512)


@pytest.mark.parametrize("wrong", [{"energy": "vector"}, {"stress": "vector"}, {"dipole": "invariant"}])
def test_an_output_that_is_declared_wrongly_is_rejected(wrong: dict[str, str]) -> None:
    torch.manual_seed(5)
    x, mask = few()

    points = PointNet()

    def network(x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        out = points(x, mask)
        return {**out, "energy": out["energy"].expand(len(x), 3)}

    outputs = Symmetrised(network, returns=RETURNS)
    check_equivariance(outputs, x, mask=mask, draws=DRAWS // 2)
    (name,) = wrong
    rejected(outputs, x, mask=mask, returns={**RETURNS, **wrong}, match=rf"coupled draws.*the output\['{name}'\]")


def test_an_argument_that_turns_must_be_declared() -> None:
    torch.manual_seed(6)
    x, v = torch.randn(2, 2, 4, 3).double()
    network = lambda x, velocity: torch.sin(2 * x) + velocity**2  # noqa: E731
    takes = {"velocity": "vector"}
    found = check_equivariance(Symmetrised(network, takes=takes, frame=loud_frame_of(v)), x, velocity=v, draws=DRAWS)
    assert found.coupled < 1e-9
    rejected(Symmetrised(network), x, velocity=v, takes=takes, match="an argument that turns is not in `takes`")
    check_equivariance(Symmetrised(network), x, velocity=v, draws=DRAWS)  # as a mere feature it is no fault


def loud_frame_of(v: Tensor):
    frame = loud_frame()
    return lambda x, velocity: frame(x + velocity)


def test_networks_and_frames_may_be_random_themselves() -> None:
    torch.manual_seed(7)
    x, mask = few()
    frame = loud_frame()
    noisy = lambda x, mask: frame(x + 0.1 * torch.randn_like(x), mask)  # noqa: E731
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 3)).double()
    model = Symmetrised(lambda x, mask: network(x), frame=noisy)
    assert check_equivariance(model, x, mask=mask, draws=DRAWS).coupled < 1e-9
    assert check_equivariance(model, x[0, :3], mask=mask[0, :3], draws=64).coupled < 1e-9  # no batch


def test_functions_that_need_no_symmetrising() -> None:
    """Deterministic ones, whose moments have no error but rounding."""
    torch.manual_seed(8)
    x = torch.randn(3, 4, 3)
    gravity = lambda x: x * x.square().sum(-1, keepdim=True)  # noqa: E731
    assert check_equivariance(gravity, x, group="O(3)", draws=256).coupled is None
    pseudo = lambda x: torch.linalg.cross(x, x.roll(1, -2))  # noqa: E731
    check_equivariance(pseudo, x, group="SO(3)", draws=256)
    rejected(pseudo, x, group="O(3)", draws=256, match=r"under O\(3\)")
    rejected(lambda x: gravity(x) + 1e-2, x, group="SO(3)", draws=256, match=r"under SO\(3\)")
    rejected(lambda x: x / 0, x, group="SO(3)", draws=256, match="not finite")
    with pytest.raises(ValueError, match=r"the output\[1\] has no entry for each molecule"):
        check_equivariance(lambda x: (x, x.sum()), x, group="O(3)", returns=("vector", "invariant"), draws=256)


@pytest.mark.parametrize(("name", "passes"), [("symdiff_tiny", True), ("symdiff_h_tiny", True), ("dit_tiny", False)])
def test_edms_dynamics_is_checked_like_any_other(name: str, passes: bool) -> None:
    torch.manual_seed(9)
    sizes = {"hidden_size": 32, "depth": 1, "xh_hidden_size": 16, "K": 16, "enc_hidden_size": 16, "enc_depth": 1}
    model = randomise(build_dynamics(name, 6, **sizes), std=0.25)
    t, xh, mask = (value[:2].float() for value in qm9_batch(length=29))
    length = int(mask.sum(1).max())

    def dynamics(x: Tensor, h: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        out = model(t, torch.cat([x, h], dim=-1), mask.clone())
        return out[..., :3], out[..., 3:]

    inputs = (xh[:, :length, :3], xh[:, :length, 3:], t, mask[:, :length])
    options = {"group": "O(3)", "returns": ("vector", "invariant"), "draws": 1024}
    if passes:
        check_equivariance(dynamics, *inputs, **options)
    else:
        rejected(dynamics, *inputs, **options, match="the output")


def test_false_alarms_are_as_rare_as_said() -> None:
    """The largest of the errors, over fifty checks of an equivariant model, is that of so many normal numbers."""
    torch.manual_seed(10)
    x = torch.randn(1, 3, 3).double()
    model = Symmetrised(lambda x: torch.sin(2 * x))
    found = [check_equivariance(model, x, draws=1024) for _ in range(50)]
    assert max(f.errors for f in found) < 5
    assert min(f.errors for f in found) > 1.5  # nor are errors taken for larger than they are


def test_a_check_leaves_the_model_as_it_was() -> None:
    model = Symmetrised(nn.Linear(3, 3).double(), frame=lambda x: sample_haar(len(x), dtype=x.dtype))
    x = torch.randn(2, 4, 3).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_equivariance(model, x, draws=64)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
