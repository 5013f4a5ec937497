"""Optimiser and gradient clipping: the paper's for the plugin's models, EDM's own for EDM's.

Appendix C.2.2 of Zhang et al. (2024): AdamW with amsgrad, gradients clipped at a fixed norm. EDM clips at
1.5 times the mean plus twice the standard deviation of the last 50 norms, which one NaN poisons for good.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from symdiff_plugin.arguments import is_plugin_model

MAX_SKIPPED = 10


def get_optim(args: Any, model: nn.Module) -> torch.optim.Optimizer | None:
    """AdamW with amsgrad at ``args.lr`` and ``args.weight_decay``; None for EDM's models, which have their own."""
    if not is_plugin_model(args):
        return None
    return torch.optim.AdamW(model.parameters(), lr=args.lr, amsgrad=True, weight_decay=args.weight_decay)


def clip_gradients(args: Any, model: nn.Module, queue: Any) -> torch.Tensor:
    """Clip the gradients of ``model`` in place before a step of the optimiser.

    EDM's models: EDM's own adaptive clipping, unchanged. The plugin's: the total norm is limited to
    ``args.clip_norm``. If it is not finite, the gradients are cleared, so that the optimiser's step does
    nothing.

    Args:
        args: the run's arguments.
        model: the model, after ``backward()``.
        queue: EDM's queue of recent norms; with the plugin's models it only carries the number of steps
            skipped in a row.

    Returns:
        The norm before clipping, a scalar.

    Raises:
        SystemExit: status 1 and one line after ``MAX_SKIPPED`` steps in a row without a finite gradient.
    """
    if not is_plugin_model(args):
        import utils  # EDM's

        return utils.gradient_clipping(model, queue)
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.clip_norm)
    if math.isfinite(norm.item()):
        queue.skipped_in_a_row = 0
        return norm
    for parameter in model.parameters():
        parameter.grad = None
    queue.skipped_in_a_row = getattr(queue, "skipped_in_a_row", 0) + 1
    if queue.skipped_in_a_row == MAX_SKIPPED:
        raise SystemExit(
            f"Stopped: {MAX_SKIPPED} steps in a row without a finite gradient. Continue from the last checkpoint "
            f"(--resume outputs/{args.exp_name}) with a smaller --lr (now {args.lr:g}), and check the data."
        )
    print(f"Gradient norm {norm.item()}: step skipped ({queue.skipped_in_a_row} in a row)")
    return norm
