"""The optimiser and the clipping of the plugin's models; nothing of EDM is needed."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

from symdiff_plugin.optim import MAX_SKIPPED, clip_gradients, get_optim

ARGS = Namespace(model="symdiff", lr=0.1, weight_decay=0.01, clip_norm=2.0, exp_name="run")


@pytest.fixture
def model() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(4, 3, dtype=torch.float64)


def backward(model: torch.nn.Linear, scale: float = 1.0) -> list[torch.Tensor]:
    model.zero_grad()
    (scale * model(torch.arange(4, dtype=torch.float64)).pow(2).sum()).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_adamw_with_amsgrad_at_the_runs_settings(model: torch.nn.Linear) -> None:
    optim = get_optim(ARGS, model)
    assert isinstance(optim, torch.optim.AdamW)
    (group,) = optim.param_groups
    assert (group["lr"], group["weight_decay"], group["amsgrad"]) == (0.1, 0.01, True)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("name", ["egnn_dynamics", "gnn_dynamics"])
def test_edms_models_have_edms_optimiser(name: str, model: torch.nn.Linear) -> None:
    assert get_optim(Namespace(model=name, lr=1.0), model) is None  # an old pickle has no weight_decay


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_the_norm_is_limited_and_returned(model: torch.nn.Linear, scale: float) -> None:
    before = backward(model, scale)
    norm = torch.stack([grad.norm() for grad in before]).norm()
    returned = clip_gradients(ARGS, model, Namespace())
    factor = min(1.0, 2.0 / float(norm))
    assert float(returned) == pytest.approx(float(norm))
    for parameter, grad in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, grad * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_a_finite_gradient_does_nothing(
    model: torch.nn.Linear, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    optim, queue = get_optim(ARGS, model), Namespace()
    backward(model)
    clip_gradients(ARGS, model, queue)
    optim.step()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    moments = [{key: value.clone() for key, value in state.items()} for state in optim.state.values()]

    backward(model, value)
    clip_gradients(ARGS, model, queue)
    optim.step()
    assert "step skipped (1 in a row)" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))
    for state, kept in zip(optim.state.values(), moments, strict=True):
        assert all(torch.equal(state[key], kept[key]) for key in kept)

    backward(model)
    clip_gradients(ARGS, model, queue)
    optim.step()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert not torch.equal(model.weight, weights[0])


def test_a_run_stops_after_many_skipped_steps_in_a_row(model: torch.nn.Linear) -> None:
    queue = Namespace()

    def step(scale: float) -> None:
        backward(model, scale)
        clip_gradients(ARGS, model, queue)

    for _ in range(MAX_SKIPPED - 1):
        step(float("nan"))
    step(1.0)  # starts the count again
    for _ in range(MAX_SKIPPED - 1):
        step(float("nan"))
    with pytest.raises(SystemExit, match=r"10 steps in a row without a finite gradient.*--resume outputs/run") as stop:
        step(float("nan"))
    assert "\n" not in str(stop.value)
