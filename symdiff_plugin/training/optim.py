"""Optimiser and gradient clipping: the release's for the plugin's models, EDM's own for EDM's.

Zhang et al. (2024) train with AdamW (Appendix C.2.2); amsgrad and clipping at a fixed norm, of which the paper says
nothing, are the authors' release's. EDM clips at 1.5 times the mean plus twice the standard deviation of the last 50
norms.

A step without a finite gradient is skipped, whatever the model: upstream would set every weight to NaN with it, poison
the mean of the norms, train on to the end and say so of no step. The fused AdamW is told so on the device, and the
host, which only counts and reports, reads the norm of a GPU one step late, when it has long arrived.
"""

from __future__ import annotations

import math
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from symdiff_plugin.training.arguments import is_plugin_model
from symdiff_plugin.training.checkpoint import find_checkpoint
from symdiff_plugin.training.host_reads import Arriving, read
from symdiff_plugin.training.learning_rate import factor
from symdiff_plugin.training.muon import MuonAndAdamW, is_for_muon

MAX_SKIPPED = 10
# Devices where the fused AdamW was found to be the fastest (a step of 31M parameters on one CPU thread: 26 ms; 78 in
# the for-loop, 88 with foreach).
_FUSED = {"cpu", "cuda"}


def get_optim(args: Any, model: nn.Module) -> torch.optim.Optimizer | None:
    """AdamW with amsgrad at ``args.lr`` and ``args.weight_decay``; None for EDM's models, which have their own.

    It is torch's fused implementation unless ``args.fused`` is False. It is not given what
    :func:`symdiff_plugin.training.init_from.freeze` froze. f_theta's rate is ``args.f_theta_lr`` times ``args.lr``, for
    Gram-Schmidt does not see the scale of f_theta's matrix, which grows the faster the higher the rate, until f_theta
    turns no more (:mod:`symdiff_plugin.model.learned_gamma`). With ``args.optimizer`` ``muon`` the matrices of
    epsilon_theta's blocks are Muon's.
    """
    if not is_plugin_model(args):
        return None
    frozen: frozenset[str] = getattr(model, "frozen_parameters", frozenset())
    with_muon = getattr(args, "optimizer", "adamw") == "muon"
    slower = getattr(args, "f_theta_lr", 1.0)
    matrices: list[nn.Parameter] = []
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name in frozen:
            continue
        if with_muon and is_for_muon(name, parameter):
            matrices.append(parameter)
        else:
            groups.setdefault(slower if ".f_theta." in f".{name}" else 1.0, []).append(parameter)
    fused = getattr(args, "fused", True) and {p.device.type for group in groups.values() for p in group} <= _FUSED
    adamw = torch.optim.AdamW(
        [{"params": group, "lr": times * args.lr, "initial_lr": times * args.lr} for times, group in groups.items()],
        lr=args.lr, amsgrad=True, weight_decay=args.weight_decay, fused=True if fused else None,
    )  # fmt: skip
    return MuonAndAdamW(adamw, matrices, args.muon_lr * args.lr) if matrices else adamw


def set_learning_rates(args: Any, optim: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Multiply the rates of a model of the plugin by what its schedule says for ``step``, from 0, of ``steps``."""
    if not is_plugin_model(args):
        return
    now = factor(step, steps, args.warmup_steps, args.decay, args.decay_shape)
    for group in optim.param_groups:
        group["lr"] = now * group["initial_lr"]


def clip_gradients(
    args: Any, model: nn.Module, optim: torch.optim.Optimizer, queue: Any, *losses: Tensor
) -> list[Tensor | float]:
    """Clip the gradients of ``model`` in place before a step of the optimiser, unless ``args.clip_grad`` is False.

    EDM's models: EDM's own adaptive clipping, unchanged, which has to read the norm; the losses are read with it.
    The plugin's: the total norm is limited to ``args.clip_norm``. If the norm is not finite, the optimiser's step will
    do nothing, and EDM's queue does not learn of it.

    Args:
        args: the run's arguments.
        model: the model, after ``backward()``.
        optim: its optimiser.
        queue: EDM's queue of recent norms, which also carries the count of skipped steps.
        losses: tensors of one element.

    Returns:
        The norm before clipping, then the losses: floats if the host has read them, else tensors without a graph.

    Raises:
        SystemExit: status 1 and one line after ``MAX_SKIPPED`` steps in a row without a finite gradient.
    """
    recent = list(getattr(queue, "items", ()))
    if args.clip_grad and not is_plugin_model(args):
        import utils  # EDM's

        values = utils.gradient_clipping(model, queue, *losses)
    else:
        most = args.clip_norm if args.clip_grad else math.inf  # with inf every gradient is multiplied by 1
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=most)
        values = [norm, *(loss.detach() for loss in losses)]
    if (
        isinstance(optim, torch.optim.AdamW)
        and optim.param_groups[0].get("fused")
        and _heeds_found_inf(values[0].device)
    ):
        optim.found_inf = (~values[0].isfinite()).float()  # type: ignore[attr-defined]
    else:
        values = read(*values)
        if not math.isfinite(values[0]):
            queue.items = recent
            for parameter in model.parameters():
                parameter.grad = None
    skipped_steps(queue).add(values[0], args)
    return values


@cache
def _heeds_found_inf(device: torch.device) -> bool:
    """Whether the fused AdamW skips a step on the device by itself, as torch's GradScaler has it do.

    PyTorch has no public name for that; one which no longer heeds this one would set every weight to NaN.
    """
    weight = torch.zeros(1, device=device, requires_grad=True)
    optim = torch.optim.AdamW([weight], fused=True)
    weight.grad = torch.ones_like(weight)
    optim.found_inf = torch.ones((), device=device)  # type: ignore[attr-defined]
    optim.step()
    return not weight.any()


def skipped_steps(queue: Any) -> SkippedSteps:
    """The count of skipped steps that EDM's queue of norms carries along."""
    if not hasattr(queue, "skipped"):
        queue.skipped = SkippedSteps()
    return queue.skipped


class SkippedSteps:
    """Reports the steps that are skipped, and stops a run that does nothing but skip.

    Attributes:
        in_a_row: how many were skipped last.
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self._has_stepped = False
        self._norms: deque[Arriving] = deque()

    def add(self, norm: Tensor | float, args: Any) -> None:
        """Take in the norm of one step; a GPU's is looked at when the next one's is added.

        Raises:
            SystemExit: see :func:`clip_gradients`.
        """
        if not isinstance(norm, Tensor):
            self._count(norm, args)
            return
        self._norms.append(Arriving(norm))
        while self._norms and (self._norms[0].there or len(self._norms) > 1):
            self._count(self._norms.popleft().value(), args)

    def finish(self, args: Any) -> None:
        """Look at what has not been looked at, and stop a run that has come to its end without a single step.

        Raises:
            SystemExit: status 1 and one line, as :func:`clip_gradients`.
        """
        while self._norms:
            self._count(self._norms.popleft().value(), args)
        if self.in_a_row and not self._has_stepped:
            self._stop(args)

    def _count(self, norm: float, args: Any) -> None:
        if math.isfinite(norm):
            self.in_a_row = 0
            self._has_stepped = True
            return
        self.in_a_row += 1
        if self.in_a_row == MAX_SKIPPED:
            self._stop(args)
        print(f"Gradient norm {norm}: step skipped ({self.in_a_row} in a row)")

    def _stop(self, args: Any) -> NoReturn:
        folder = Path("outputs") / args.exp_name
        there = find_checkpoint(folder).is_file()
        go_on = f"Continue from the last checkpoint (--resume {folder})" if there else "Start again"
        raise SystemExit(
            f"Stopped: {self.in_a_row} steps in a row without a finite gradient. {go_on} with a smaller --lr (now "
            f"{args.lr:g}), and check the data."
        )
