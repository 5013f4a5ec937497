"""Whether gamma is alive, in the history of a run: what f_theta did on the batch that it saw last.

The line of the history that is due gets the figures of :mod:`symdiff_plugin.model.learned_gamma` and f_theta's share of
the gradient's norm. The run's own random numbers are not touched.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from symdiff_plugin.model.learned_gamma import draw_twice, gamma_figures
from symdiff_plugin.model.symmetrisation import LearnedRotation
from symdiff_plugin.packed.atoms import AtomLayout

# Molecules of a batch that are looked at: enough for a median.
MOLECULES = 64
COLLAPSED_AFTER = 1000


class GammaHistory:
    """Looks at a network's f_theta when it is called, and at nothing where the network has none.

    Args:
        dynamics: the network in training, from which copies have been made already.
    """

    def __init__(self, dynamics: nn.Module) -> None:
        self._dynamics = dynamics
        self._seen: tuple[Tensor, Tensor, AtomLayout] | None = None
        self._said = False
        f_theta = getattr(dynamics, "f_theta", None)
        self.f_theta = f_theta if isinstance(f_theta, LearnedRotation) else None
        if self.f_theta is not None:
            self.f_theta.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:  # and not in the samples that a run draws
            features, t, layout = inputs
            self._seen = (features.detach(), t.detach(), layout)

    def __call__(self, step: int) -> dict[str, float]:
        """The figures of a line of the history, ``gamma_...`` each, at training step ``step``; none without f_theta.

        Once, after ``COLLAPSED_AFTER`` steps, it is said if gamma is constant.
        """
        if self.f_theta is None or self._seen is None:
            return {}
        architecture = self._dynamics.architecture
        features, t, layout = self._seen
        generator = torch.Generator(features.device).manual_seed(step)
        draws = draw_twice(
            self.f_theta,
            features.float(),
            t.float(),
            layout,
            architecture.noise_dims,
            architecture.noise_std,
            generator,
        )
        figures = gamma_figures(*(each[:MOLECULES] for each in draws))
        share = {} if (found := self._share_of_gradient()) is None else {"gamma_gradient_share": found}
        if figures.kind == "constant" and step >= COLLAPSED_AFTER and not self._said:
            self._said = True
            print(
                f"gamma is constant at step {step} (f_theta turns by {figures.draws:.2f} degrees between draws, "
                f"{figures.molecules:.2f} between molecules): this is SymDiff-H now. A smaller --f_theta_lr keeps it "
                "alive"
            )
        return {**{f"gamma_{name}": value for name, value in asdict(figures).items()}, **share}

    def _share_of_gradient(self) -> float | None:
        """The norm of f_theta's gradient over that of all, as the last step left them."""
        inside = {id(parameter) for parameter in self.f_theta.parameters()}
        norms: dict[bool, list[Tensor]] = {True: [], False: []}
        for parameter in self._dynamics.parameters():
            if parameter.grad is not None:
                norms[id(parameter) in inside].append(parameter.grad.norm())
        if not norms[True]:
            return None
        part = torch.stack(norms[True]).square().sum()
        rest = torch.stack(norms[False]).square().sum() if norms[False] else torch.zeros_like(part)
        return (part / (part + rest)).sqrt().item()
