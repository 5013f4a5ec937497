"""Whether gamma is alive, in the history of a run: what f_theta did on the batch that it saw last.

The line of the history that is due gets the figures of :mod:`symdiff_plugin.model.learned_gamma` and f_theta's share of
the gradient's norm. The run's own random numbers are not touched.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from symdiff_plugin.model.dynamics import SymDiffDynamics
from symdiff_plugin.model.learned_gamma import draw_twice, gamma_figures
from symdiff_plugin.packed.atoms import AtomLayout

# Molecules of a batch that are looked at: enough for a median.
MOLECULES = 64
COLLAPSED_AFTER = 1000


class GammaHistory:
    """Looks at a network's f_theta when it is called, and at nothing where the network has none.

    Args:
        dynamics: the network in training, from which copies have been made already.
    """

    def __init__(self, dynamics: Any) -> None:
        self._seen: tuple[Tensor, Tensor, AtomLayout] | None = None
        self._said = False
        self._dynamics: SymDiffDynamics | None = dynamics if isinstance(dynamics, SymDiffDynamics) else None
        if self._dynamics is not None and self._dynamics.f_theta is not None:
            self._dynamics.f_theta.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:  # and not in the samples that a run draws
            features, t, layout = inputs
            self._seen = (features.detach(), t.detach(), layout)

    def __call__(self, step: int) -> dict[str, float]:
        """The figures of a line of the history, ``gamma_...`` each, at training step ``step``; none without f_theta.

        Once, after ``COLLAPSED_AFTER`` steps, it is said if gamma is constant.
        """
        if self._dynamics is None or self._dynamics.f_theta is None or self._seen is None:
            return {}
        a, f_theta = self._dynamics.architecture, self._dynamics.f_theta
        features, t, layout = self._seen
        generator = torch.Generator(features.device).manual_seed(step)
        draws = draw_twice(f_theta, features, t, layout, a.noise_dims, a.noise_std, generator)
        if not len(draws[0]):
            return {}
        figures = gamma_figures(*(each[:MOLECULES] for each in draws))
        share = _share_of_gradient(self._dynamics, f_theta)
        if figures.kind == "constant" and step >= COLLAPSED_AFTER and not self._said:
            self._said = True
            print(
                f"gamma is constant at step {step} (f_theta turns by {figures.draws:.2f} degrees between draws, "
                f"{figures.molecules:.2f} between molecules): this is SymDiff-H now. A smaller --f_theta_lr keeps it "
                "alive"
            )
        return {**{f"gamma_{name}": value for name, value in asdict(figures).items()}, **share}


def _share_of_gradient(whole: nn.Module, part: nn.Module) -> dict[str, float]:
    """The norm of ``part``'s gradient over that of all, as the last step left them; nothing where there is none."""
    inside = set(part.parameters())
    squares: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in whole.parameters():
        if parameter.grad is not None:
            squares[parameter in inside].append(parameter.grad.norm().square())
    if not squares[True]:
        return {}
    of_part = torch.stack(squares[True]).sum()
    return {"gamma_gradient_share": (of_part / torch.stack(squares[True] + squares[False]).sum()).sqrt().item()}
