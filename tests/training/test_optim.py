"""The optimiser and the clipping of the plugin's models; nothing of EDM is needed."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from symdiff_plugin import build_dynamics
from symdiff_plugin.training import checkpoint
from symdiff_plugin.training import optim as optim_module
from symdiff_plugin.training.optim import MAX_SKIPPED, SkippedSteps, clip_gradients, get_optim, skipped_steps

ARGS = Namespace(model="symdiff", lr=0.1, weight_decay=0.03, clip_norm=2.0, clip_grad=True, fused=True, exp_name="run")
UNFUSED = Namespace(**{**vars(ARGS), "fused": False})
IMPLEMENTATIONS = pytest.mark.parametrize("args", [ARGS, UNFUSED], ids=["fused", "for-loop"])


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
    assert (group["lr"], group["weight_decay"], group["amsgrad"]) == (0.1, 0.03, True)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}


def test_f_theta_has_a_rate_of_its_own() -> None:
    args = Namespace(**{**vars(ARGS), "f_theta_lr": 0.1})
    model = torch.nn.ModuleDict({"dynamics": build_dynamics("symdiff_tiny", 6)})
    rest, inside = get_optim(args, model).param_groups
    assert (rest["lr"], inside["lr"]) == (0.1, pytest.approx(0.01))
    assert {*map(id, inside["params"])} == {*map(id, model["dynamics"].f_theta.parameters())}
    assert len(rest["params"]) + len(inside["params"]) == len(list(model.parameters()))
    assert rest["weight_decay"] == inside["weight_decay"] == 0.03
    assert len(get_optim(Namespace(**{**vars(args), "f_theta_lr": 1.0}), model).param_groups) == 1


@pytest.mark.parametrize("name", ["egnn_dynamics", "gnn_dynamics"])
def test_edms_models_have_edms_optimiser(name: str, model: torch.nn.Linear) -> None:
    assert get_optim(Namespace(model=name, lr=1.0), model) is None  # an old pickle has no weight_decay


@IMPLEMENTATIONS
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_the_norm_is_limited_and_returned(model: torch.nn.Linear, scale: float, args: Namespace) -> None:
    optim = get_optim(args, model)
    before = backward(model, scale)
    norm = torch.stack([grad.norm() for grad in before]).norm()
    returned, loss = clip_gradients(args, model, optim, Namespace(), model.weight.sum().view(1))
    assert float(loss) == pytest.approx(float(model.weight.detach().sum()))
    assert not getattr(loss, "requires_grad", False)
    assert {isinstance(value, float) for value in (returned, loss)} == {not args.fused}  # what the host has read
    factor = min(1.0, 2.0 / float(norm))
    assert float(returned) == pytest.approx(float(norm))
    for parameter, grad in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, grad * factor, rtol=1e-6, atol=0)


def test_whether_the_fused_optimiser_heeds_the_private_attribute_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    heeds = optim_module._heeds_found_inf.__wrapped__
    assert heeds(torch.device("cpu"))
    monkeypatch.setattr(torch.optim, "AdamW", lambda weights, fused: torch.optim.Adadelta(weights))  # heeds nothing
    assert not heeds(torch.device("cpu"))


@pytest.mark.parametrize("heeds", [True, False])
@IMPLEMENTATIONS
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_a_finite_gradient_does_nothing(
    model: torch.nn.Linear,
    value: float,
    args: Namespace,
    heeds: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``heeds``: whether PyTorch's fused AdamW heeds the private attribute which says that."""
    optim, queue = get_optim(args, model), Namespace()
    monkeypatch.setattr(optim_module, "_heeds_found_inf", lambda device: heeds)
    backward(model)
    clip_gradients(args, model, optim, queue)
    optim.step()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    moments = [{key: value.clone() for key, value in state.items()} for state in optim.state.values()]

    backward(model, value)
    clip_gradients(args, model, optim, queue)
    if not heeds:
        vars(optim).pop("found_inf", None)
    optim.step()
    assert "step skipped (1 in a row)" in capsys.readouterr().out
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))
    for state, kept in zip(optim.state.values(), moments, strict=True):
        assert all(torch.equal(state[key], kept[key]) for key in kept)

    backward(model)
    clip_gradients(args, model, optim, queue)
    optim.step()
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert not torch.equal(model.weight, weights[0])


@IMPLEMENTATIONS
def test_a_run_stops_after_many_skipped_steps_in_a_row(model: torch.nn.Linear, args: Namespace) -> None:
    optim, queue = get_optim(args, model), Namespace()

    def step(scale: float) -> None:
        backward(model, scale)
        clip_gradients(args, model, optim, queue)

    for _ in range(MAX_SKIPPED - 1):
        step(float("nan"))
    step(1.0)  # starts the count again
    for _ in range(MAX_SKIPPED - 1):
        step(float("nan"))
    with pytest.raises(SystemExit, match=r"10 steps in a row without a finite gradient\. Start again") as stop:
        step(float("nan"))
    assert "\n" not in str(stop.value)


def test_a_run_that_stops_names_the_checkpoint_that_is_there(
    model: torch.nn.Linear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs/run").mkdir(parents=True)
    (tmp_path / "outputs/run/checkpoint.pt").touch()
    optim, queue = get_optim(ARGS, model), Namespace()
    backward(model, float("nan"))
    clip_gradients(ARGS, model, optim, queue)
    with pytest.raises(SystemExit, match=r"checkpoint \(--resume outputs/run\) with a smaller --lr"):
        skipped_steps(queue).finish(ARGS)


def test_a_run_that_ends_without_a_step_is_stopped(model: torch.nn.Linear) -> None:
    """Fewer steps than MAX_SKIPPED, none of them taken: it must not end as trained."""
    optim, queue = get_optim(ARGS, model), Namespace()
    backward(model, float("nan"))
    clip_gradients(ARGS, model, optim, queue)
    with pytest.raises(SystemExit, match="Stopped: 1 steps in a row"):
        skipped_steps(queue).finish(ARGS)
    backward(model)
    clip_gradients(ARGS, model, optim, queue)
    backward(model, float("nan"))
    clip_gradients(ARGS, model, optim, queue)
    skipped_steps(queue).finish(ARGS)  # something was learnt


@IMPLEMENTATIONS
def test_without_clipping_the_gradients_are_left_alone(model: torch.nn.Linear, args: Namespace) -> None:
    before = backward(model)
    args = Namespace(**{**vars(args), "clip_grad": False})
    optim, queue = get_optim(args, model), Namespace()
    clip_gradients(args, model, optim, queue)
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), before, strict=True))
    backward(model, float("nan"))
    clip_gradients(args, model, optim, queue)
    optim.step()
    assert skipped_steps(queue).in_a_row == 1
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("clip", [True, False])
def test_edms_models_skip_and_stop_as_the_plugins(
    model: torch.nn.Linear, clip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With EDM's clipping, which takes a NaN norm into its queue, and whose optimiser is not fused."""

    def gradient_clipping(model: torch.nn.Module, queue: Namespace, *losses: torch.Tensor) -> list[float]:
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 3000.0))
        queue.items.insert(0, norm)
        return [norm, *map(float, losses)]

    monkeypatch.setitem(sys.modules, "utils", Namespace(gradient_clipping=gradient_clipping))
    args = Namespace(model="egnn_dynamics", lr=0.1, clip_grad=clip, exp_name="run")
    optim, queue = torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True), Namespace(items=[3000.0])

    def step(scale: float) -> None:
        backward(model, scale)
        clip_gradients(args, model, optim, queue)
        optim.step()

    step(1.0)
    for _ in range(MAX_SKIPPED - 1):
        step(float("nan"))
    assert len(queue.items) == 1 + clip
    assert all(map(math.isfinite, queue.items))
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    with pytest.raises(SystemExit, match="10 steps in a row without a finite gradient"):
        step(float("nan"))


def train(model: torch.nn.Module, optim: torch.optim.Optimizer, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for i, parameter in enumerate(model.parameters()):
            parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** -(i % 5)
        optim.step()


def test_fused_is_the_for_loop_but_for_rounding() -> None:
    models = [build_dynamics("symdiff_tiny", 6) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    start = {name: value.clone() for name, value in models[0].state_dict().items()}
    for model, args in zip(models, (ARGS, UNFUSED), strict=True):
        optim = get_optim(Namespace(**{**vars(args), "lr": 1e-3}), model)
        assert bool(optim.param_groups[0]["fused"]) == args.fused
        train(model, optim, steps=20, seed=0)
    weights = [model.state_dict() for model in models]
    for name, begin in start.items():
        moved = (weights[0][name] - begin).abs().max()
        assert 1e-3 < moved < 0.03  # twenty steps of 1e-3, so that the tolerance below says something
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("before", "after"), [(ARGS, UNFUSED), (UNFUSED, ARGS)])
def test_a_run_goes_on_with_another_implementation(before: Namespace, after: Namespace, tmp_path: Path) -> None:
    def start(args: Namespace) -> checkpoint.TrainingState:
        torch.manual_seed(0)
        model = torch.nn.Linear(30, 20)
        return checkpoint.TrainingState(model, model, get_optim(args, model), Namespace(items=[]))

    old = start(before)
    train(old.model, old.optim, 3, seed=0)
    checkpoint.save_checkpoint(tmp_path / "checkpoint.pt", old, before, checkpoint.Position(1))
    new = start(after)
    checkpoint.restore(tmp_path / "checkpoint.pt", new, after)
    assert bool(new.optim.param_groups[0]["fused"]) == after.fused
    assert {float(state["step"]) for state in new.optim.state.values()} == {3.0}
    for state in (old, new):
        train(state.model, state.optim, 3, seed=1)
    torch.testing.assert_close(new.model.weight, old.model.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@IMPLEMENTATIONS
def test_on_a_gpu_too_a_step_without_a_finite_gradient_does_nothing(args: Namespace) -> None:
    model = torch.nn.Linear(4, 3, device="cuda", dtype=torch.float64)
    optim, queue = get_optim(args, model), Namespace()
    weights = [parameter.detach().clone() for parameter in model.parameters()]

    def step() -> None:
        model.zero_grad()
        (float("nan") * model(torch.ones(4, device="cuda", dtype=torch.float64)).sum()).backward()
        clip_gradients(args, model, optim, queue)
        optim.step()
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))

    for _ in range(MAX_SKIPPED - 1):
        step()
    with pytest.raises(SystemExit, match="10 steps in a row without a finite gradient"):
        step() or step()  # the host may look at a norm one step late


def test_frozen_parameters_are_no_business_of_the_optimiser(model: torch.nn.Linear) -> None:
    model.frozen_parameters = frozenset({"weight"})
    (group,) = get_optim(ARGS, model).param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(model.bias)]


def test_fused_is_the_default_where_torch_has_it() -> None:
    old = Namespace(**{name: value for name, value in vars(ARGS).items() if name != "fused"})
    assert get_optim(old, torch.nn.Linear(2, 2)).param_groups[0]["fused"]
    assert not get_optim(ARGS, torch.nn.Linear(2, 2, device="meta")).param_groups[0]["fused"]


def test_edms_models_are_clipped_by_edm(model: torch.nn.Linear, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    edms = SimpleNamespace(gradient_clipping=lambda *arguments: seen.append(arguments) or [1.5, 2.5])
    monkeypatch.setitem(sys.modules, "utils", edms)
    args, loss, queue = Namespace(model="egnn_dynamics", clip_grad=True), torch.ones(1), Namespace(items=[])
    assert clip_gradients(args, model, torch.optim.AdamW(model.parameters()), queue, loss) == [1.5, 2.5]
    assert seen == [(model, queue, loss)]


def test_losses_lose_their_graph_with_or_without_clipping(model: torch.nn.Linear) -> None:
    for clip in (True, False):
        args = Namespace(**{**vars(ARGS), "clip_grad": clip})
        backward(model)
        norm, loss = clip_gradients(args, model, get_optim(args, model), Namespace(), model.weight.sum())
        assert not loss.requires_grad
        assert float(norm) > 0


def test_a_number_that_has_not_arrived_is_looked_at_one_step_late(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a GPU's."""
    monkeypatch.setattr(optim_module, "Arriving", lambda norm: SimpleNamespace(there=False, value=lambda: float(norm)))
    steps = SkippedSteps()
    for norm, in_a_row in ((math.nan, 0), (1.0, 1), (math.nan, 0), (math.nan, 1), (2.0, 2), (2.0, 0)):
        steps.add(torch.tensor(norm), ARGS)
        assert steps.in_a_row == in_a_row
    assert capsys.readouterr().out.count("step skipped") == 3
    for last, stops in ((math.nan, True), (1.0, False)):
        steps = SkippedSteps()
        steps.add(torch.tensor(last), ARGS)
        assert steps.in_a_row == 0
        if stops:
            with pytest.raises(SystemExit, match="Stopped: 1 steps in a row"):
                steps.finish(ARGS)
        else:
            steps.finish(ARGS)
    for count in range(1, 3):
        steps = SkippedSteps()
        for _ in range(count):
            steps.add(math.inf, ARGS)
        assert steps.in_a_row == count
