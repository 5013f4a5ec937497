"""What the patches of EDM call: each name here stands in a line of ``patches/``, the work is done elsewhere.

``wandb`` (EDM imports it from here) is :data:`symdiff_plugin.tracking.tracker`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from symdiff_plugin.arguments import architecture_overrides, is_plugin_model, parse_args
from symdiff_plugin.optim import clip_gradients, get_optim
from symdiff_plugin.progress import progress
from symdiff_plugin.tracking import tracker as wandb

__all__ = ["augment", "build_dynamics", "clip_gradients", "get_optim", "parse_args", "progress", "wandb"]


def build_dynamics(args: Any, in_node_nf: int) -> nn.Module | None:
    """The network that a run's arguments ask for; None for EDM's models, which EDM builds itself.

    Args:
        args: the run's arguments, old pickles included.
        in_node_nf: atom types plus charge, without EDM's column for the time.
    """
    if not is_plugin_model(args):
        return None
    from symdiff_plugin.dynamics import build_dynamics as build

    return build(args.model, in_node_nf, args.context_node_nf, **architecture_overrides(args))


def augment(args: Any, x: torch.Tensor) -> torch.Tensor:
    """Turn every molecule at random, under ``--data_augmentation True``.

    The plugin's models: by a Haar draw from O(3) (eq. 15 of the paper). EDM's: EDM's ``random_rotation``, which
    is neither Haar (composed Euler angles) nor ever a reflection.

    Args:
        args: the run's arguments.
        x: (B, N, 3) coordinates.
    """
    if not is_plugin_model(args):
        import utils  # EDM's

        return utils.random_rotation(x)
    from symdiff_plugin.groups import sample_haar

    return x @ sample_haar(x.size(0), device=x.device, dtype=x.dtype).transpose(1, 2)
