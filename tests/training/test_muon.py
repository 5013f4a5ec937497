"""Muon and AdamW as one optimiser."""

from __future__ import annotations

import copy
from argparse import Namespace

import pytest
import torch

from symdiff_plugin import build_dynamics
from symdiff_plugin.training.muon import MuonAndAdamW
from symdiff_plugin.training.optim import clip_gradients, get_optim

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs PyTorch 2.9")
ARGS = Namespace(
    model="symdiff_tiny", lr=0.01, muon_lr=3.0, f_theta_lr=0.1, optimizer="muon", weight_decay=0.0, clip_norm=2.0,
    clip_grad=True, fused=True, exp_name="run",
)  # fmt: skip


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_dynamics("symdiff_tiny", 6, hidden_size=32, depth=1, num_heads=2, xh_hidden_size=16, K=16, enc_depth=1)


def names(model: torch.nn.Module, group: dict[str, list[torch.Tensor]]) -> set[str]:
    return {name for name, p in model.named_parameters() if any(p is one for one in group["params"])}


def descend(model: torch.nn.Module, optim: torch.optim.Optimizer, steps: int, scale: float = 1.0) -> None:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
        clip_gradients(ARGS, model, optim, Namespace())
        optim.step()


def test_muon_has_attention_and_mlp_of_epsilon_theta(model: torch.nn.Module) -> None:
    rest, inside, matrices = get_optim(ARGS, model).param_groups
    block = {f"dit.blocks.0.{name}.weight" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert names(model, matrices) == block
    assert all(name.startswith("f_theta.") for name in names(model, inside))
    assert len(rest["params"]) + len(inside["params"]) + 4 == len(list(model.parameters()))
    assert [group["lr"] for group in (rest, inside, matrices)] == pytest.approx([0.01, 0.001, 0.03])


def test_each_steps_as_it_does_alone(model: torch.nn.Module) -> None:
    """The oracle: torch's two optimisers on the same gradients, each with its own parameters."""
    other = copy.deepcopy(model)
    both = get_optim(ARGS, model)
    rest, inside, matrices = ([other.get_parameter(name) for name in sorted(names(model, group))]
                              for group in both.param_groups)  # fmt: skip
    adamw = torch.optim.AdamW([{"params": rest, "lr": 0.01}, {"params": inside, "lr": 0.001}], amsgrad=True,
                              weight_decay=0.0, fused=True)  # fmt: skip
    muon = torch.optim.Muon(matrices, lr=0.03, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    descend(model, both, 3)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for parameter in other.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        torch.nn.utils.clip_grad_norm_(other.parameters(), 2.0)
        adamw.step()
        muon.step()
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_muons_step_is_orthogonal(model: torch.nn.Module) -> None:
    before = model.dit.blocks[0].attn.proj.weight.detach().clone()
    descend(model, get_optim(ARGS, model), 1)
    step = (model.dit.blocks[0].attn.proj.weight.detach() - before) / (0.03 * 0.2 * 32**0.5)
    values = torch.linalg.svdvals(step)
    assert values.median() == pytest.approx(0.9, abs=0.2)
    assert torch.linalg.cond(step) < 4  # five steps of Newton and Schulz; the gradient's is another:
    assert torch.linalg.cond(model.dit.blocks[0].attn.proj.weight.grad) > 10


def test_a_restored_one_goes_on_exactly(model: torch.nn.Module) -> None:
    optim = get_optim(ARGS, model)
    descend(model, optim, 2)
    again = copy.deepcopy(model)
    restored = get_optim(ARGS, again)
    restored.load_state_dict(copy.deepcopy(optim.state_dict()))
    descend(model, optim, 2)
    descend(again, restored, 2)
    for (name, one), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_without_a_finite_gradient_does_nothing(
    model: torch.nn.Module, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    optim = get_optim(ARGS, model)
    descend(model, optim, 1)
    before, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optim.state_dict()["state"])
    descend(model, optim, 1, scale=value)
    assert "step skipped" in capsys.readouterr().out
    assert all(torch.equal(model.state_dict()[name], kept) for name, kept in before.items())
    after = optim.state_dict()["state"]
    assert all(torch.equal(after[i][key], kept[key]) for i, kept in state.items() for key in kept)


def test_without_blocks_there_is_adamw_alone() -> None:
    assert isinstance(get_optim(ARGS, torch.nn.Linear(2, 2)), torch.optim.AdamW)
    other = Namespace(**{**vars(ARGS), "optimizer": "adamw"})
    assert not isinstance(get_optim(other, build_dynamics("dit_tiny", 6, depth=1)), MuonAndAdamW)
