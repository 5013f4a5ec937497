"""What gamma is: angles against SciPy, the three kinds on networks made so, the model with gamma's parts taken away."""

from __future__ import annotations

import pytest
import torch
from molecules import model_and_batch, qm9_batch
from scipy.spatial.transform import Rotation
from torch import Tensor

from symdiff_plugin import SymDiffDynamics, build_dynamics
from symdiff_plugin.model.groups import gram_schmidt, sample_haar
from symdiff_plugin.model.learned_gamma import (
    angle,
    common_element,
    constant,
    draw_twice,
    gamma_figures,
    with_rotation,
)
from symdiff_plugin.packed.atoms import AtomLayout


def inputs_of_f_theta(model: SymDiffDynamics, t: Tensor, xh: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, AtomLayout]:
    """What f_theta was called with."""
    kept = []
    hook = model.f_theta.register_forward_pre_hook(lambda module, inputs: kept.append(inputs))
    with torch.no_grad():
        model(t, xh, mask)
    hook.remove()
    return kept[0]


def test_angles_are_those_of_rotations() -> None:
    rotations = Rotation.random(50, random_state=0)
    R = torch.from_numpy(rotations.as_matrix())
    degrees = torch.from_numpy(rotations.magnitude()).rad2deg()
    Q = sample_haar(50, dtype=torch.float64)
    torch.testing.assert_close(angle(Q @ R, Q), degrees)
    torch.testing.assert_close(angle(R @ Q, Q), degrees)
    assert angle(Q, Q).max() < 1e-5
    assert angle(-R, torch.eye(3, dtype=torch.float64)).min() >= 90
    assert angle(Q, -Q).min() == 180


def test_the_common_element_is_the_nearest_of_all() -> None:
    torch.manual_seed(0)
    f = gram_schmidt(torch.diag(torch.tensor([1.0, 1, -1])).double() + 0.4 * torch.randn(30, 3, 3).double())
    C = common_element(f)
    torch.testing.assert_close(C @ C.mT, torch.eye(3, dtype=torch.float64))
    distances = (f - C).square().sum((-2, -1)).mean()
    small = torch.linalg.matrix_exp(1e-3 * (lambda a: a - a.mT)(torch.randn(200, 3, 3).double()))
    others = torch.cat([small @ C, sample_haar(2000, dtype=torch.float64)])
    assert ((f[:, None] - others).square().sum((-2, -1)).mean(0) > distances).all()


@pytest.mark.parametrize("kind", ["constant", "deterministic", "stochastic"])
def test_the_three_kinds_are_told_apart(kind: str) -> None:
    model, t, xh, mask, _ = model_and_batch()
    f_theta = model.f_theta
    with torch.no_grad():
        if kind == "constant":
            f_theta.fc2.weight.zero_()
        elif kind == "deterministic":
            f_theta.x_embedder.weight[:, 3:6] = 0
    inputs = inputs_of_f_theta(model, t, xh, mask)
    figures = gamma_figures(*draw_twice(f_theta, *inputs, noise_dims=3))
    assert figures.kind == kind
    assert (figures.molecules > 1) == (kind != "constant")
    if kind == "constant":  # the bias is all there is of the raw matrix
        torch.testing.assert_close(
            torch.tensor(figures.raw_scale), f_theta.fc2.bias.square().mean().sqrt().float(), rtol=1e-5, atol=0
        )
        bias = f_theta.fc2.bias.detach().view(3, 3)
        assert figures.raw_condition == pytest.approx(torch.linalg.cond(bias).item(), rel=1e-6)


def test_one_common_rotation_is_no_difference_between_molecules() -> None:
    C = sample_haar(1, dtype=torch.float64).expand(20, 3, 3)
    assert gamma_figures(C, C, C).molecules < 1e-4
    spread = Rotation.from_rotvec([[0, 0, 0.2 * sign] for sign in (-1, 1) * 10]).as_matrix()
    turned = C @ torch.from_numpy(spread)
    assert gamma_figures(turned, turned, turned).molecules == pytest.approx(
        torch.tensor(0.2).rad2deg().item(), rel=1e-3
    )


def test_the_draws_are_the_models_own() -> None:
    """The law of eta: with one of no width the draws are f at eta = 0; and the moments of the centred noise."""
    model, t, xh, mask, _ = model_and_batch()
    features, times, layout = inputs_of_f_theta(model, t, xh, mask)
    still = features.clone()
    still[:, 3:6] = 0
    first, second, raw = draw_twice(model.f_theta, features, times, layout, noise_dims=3, noise_std=0.0)
    torch.testing.assert_close(first, model.f_theta(still, times, layout))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(gram_schmidt(raw), first)

    seen = []
    model.f_theta.matrix = lambda features, t, layout: seen.append(features) or torch.eye(3).expand(8, 3, 3)
    for _ in range(300):
        draw_twice(model.f_theta, features, times, layout, noise_dims=3, noise_std=0.7)
    eta = torch.stack(seen)[..., 3:6]
    assert all(torch.equal(one[:, :3], features[:, :3]) and torch.equal(one[:, 6:], features[:, 6:]) for one in seen)
    sums = layout.unpack(eta.mean(0)).sum(1)
    assert sums.abs().max() < 1e-10  # no centre of mass in any draw, hence none in their mean
    n = layout.expand(layout.counts).to(eta.dtype)
    variance = eta.square().mean((0, 2), keepdim=False)[:, None] / (0.49 * (1 - 1 / n))
    assert abs(variance.mean() - 1) < 5 * (2 / eta.numel()) ** 0.5


def test_a_generator_of_its_own_leaves_the_global_one_alone() -> None:
    model, t, xh, mask, _ = model_and_batch()
    inputs = inputs_of_f_theta(model, t, xh, mask)
    before = torch.get_rng_state()
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 3, 4)]
    a, b, c = (draw_twice(model.f_theta, *inputs, noise_dims=3, generator=generator)[0] for generator in generators)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)


def test_the_parts_of_gamma_taken_away() -> None:
    model, t, xh, mask, _ = model_and_batch()
    haar = build_dynamics("symdiff_h_tiny", 6, depth=2).double()
    plain = build_dynamics("dit_tiny", 6, depth=2).double()
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("f_theta.")}
    haar.load_state_dict(weights)
    plain.load_state_dict(weights)
    draws = model.draw(xh, mask)
    C = sample_haar(1, dtype=torch.float64)[0]
    as_it_is = model.given_draws(t, xh, mask, **draws)
    for rule, wanted in (
        (lambda R0: R0, haar.given_draws(t, xh, mask, R0=draws["R0"])),
        (constant(C), haar.given_draws(t, xh, mask, R0=draws["R0"] @ C)),
        (lambda R0: None, plain.given_draws(t, xh, mask)),
    ):
        with with_rotation(model, rule):
            torch.testing.assert_close(model.given_draws(t, xh, mask, **draws), wanted)
        assert (as_it_is - wanted).abs().max() > 1e-3
    with pytest.raises(KeyboardInterrupt), with_rotation(model, lambda R0: None):
        raise KeyboardInterrupt
    torch.testing.assert_close(model.given_draws(t, xh, mask, **draws), as_it_is)


def test_what_is_left_out_takes_the_same_random_numbers() -> None:
    model, t, xh, mask, _ = model_and_batch()
    states = []
    for rule in (lambda R0: R0, lambda R0: None):
        torch.manual_seed(5)
        with with_rotation(model, rule):
            model(t, xh, mask)
        states.append(torch.get_rng_state())
    torch.manual_seed(5)
    model(t, xh, mask)
    assert all(torch.equal(state, torch.get_rng_state()) for state in states)


def test_at_the_start_f_theta_sees_nothing_of_eta() -> None:
    """The blocks begin as the identity, so that the mean over atoms is that of the inputs, and eta has none."""
    torch.manual_seed(0)
    model = build_dynamics("symdiff_tiny", 6).double()
    t, xh, mask = qm9_batch()
    figures = gamma_figures(*draw_twice(model.f_theta, *inputs_of_f_theta(model, t, xh, mask), noise_dims=3))
    assert figures.draws < 1e-3
    assert figures.molecules > 0.1  # by Psi
    assert 0 < figures.raw_scale < 2
