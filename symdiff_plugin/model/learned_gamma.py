r"""Whether a learned gamma does anything: how far f_theta turns, and the model with gamma's parts taken away.

Gram-Schmidt does not see the scale of f_theta's raw matrix A, so nothing keeps A from growing in training; its angular
steps then shrink, and f_theta may end as one constant C. A constant f_theta is none, for

    R = R0 C,   and R0 C is Haar distributed when R0 is:   SymDiff with f_theta = C is SymDiff-H.

So three kinds of gamma are told apart: ``constant``, ``deterministic`` (f_theta depends on the molecule, not on eta)
and ``stochastic``. Angles are those of a rotation, arccos((tr(A B^T) - 1) / 2), with 180 degrees for all traces below
-1; two elements of different determinant are 90 degrees apart at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symdiff_plugin.model.dynamics import SymDiffDynamics
from symdiff_plugin.model.symmetrisation import LearnedRotation, compose
from symdiff_plugin.packed.atoms import AtomLayout

# Below this many degrees nothing turns. A collapsed f_theta is at 0.0 to 0.3, a living one at 5 and more.
STILL = 1.0
# R as a function of R0; None is the identity.
Rule = Callable[[Tensor], "Tensor | None"]


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Degrees between elements of O(3), (..., 3, 3), as above: (...)."""
    trace = (a * b).sum(dim=(-2, -1))
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))


def common_element(f: Tensor) -> Tensor:
    """The element of O(3) nearest to f (..., 3, 3) on the average, in the Frobenius norm: the mean's polar factor."""
    U, _, Vh = torch.linalg.svd(f.reshape(-1, *f.shape[-2:]).mean(0))
    return U @ Vh


@dataclass(frozen=True)
class GammaFigures:
    """What f_theta does on a batch of molecules.

    Attributes:
        draws: median angle between two draws of eta for one molecule, in degrees.
        molecules: median angle of the molecules' f to the element common to all, in degrees.
        raw_scale: root mean square of the raw matrix' entries, before Gram-Schmidt.
        raw_condition: median condition number of the raw matrix.
    """

    draws: float
    molecules: float
    raw_scale: float
    raw_condition: float

    @property
    def kind(self) -> str:
        """``constant``, ``deterministic`` or ``stochastic``."""
        if self.draws >= STILL:
            return "stochastic"
        return "deterministic" if self.molecules >= STILL else "constant"


def gamma_figures(first: Tensor, second: Tensor, raw: Tensor) -> GammaFigures:
    """The figures of two draws of f_theta for each molecule, (B, 3, 3) both, and the raw matrix of the first."""
    raw = raw.double()
    singular = torch.linalg.svdvals(raw)
    return GammaFigures(
        draws=angle(first, second).median().item(),
        molecules=angle(first, common_element(first)).median().item(),
        raw_scale=raw.square().mean().sqrt().item(),
        raw_condition=(singular[..., 0] / singular[..., -1]).median().item(),
    )


@torch.no_grad()
def draw_twice(
    f_theta: LearnedRotation,
    features: Tensor,
    t: Tensor,
    layout: AtomLayout,
    noise_dims: int,
    noise_std: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """f_theta at its inputs with eta drawn twice anew.

    Args:
        f_theta: of the model.
        features: (T, 3 + m_noise + n_emb), rows [x, eta, Psi] of packed atoms; eta is replaced.
        t: (B,), or (1,), as f_theta takes it.
        layout: of the atoms.
        noise_dims, noise_std: m_noise, and eta's standard deviation.
        generator: of the draws, on the features' device; torch's global one if None.

    Returns:
        Two draws of f and the raw matrix of the first, (B', 3, 3) each, of the molecules where all are finite.
    """
    raws = []
    for _ in range(2):
        shape, device = (len(features), noise_dims), features.device
        eta = noise_std * torch.randn(shape, device=device, dtype=features.dtype, generator=generator)
        eta = eta - layout.expand(layout.mean(eta))
        turned = torch.cat([features[:, :3], eta, features[:, 3 + noise_dims :]], dim=-1)
        raws.append(f_theta.matrix(turned, t, layout))
    draws = f_theta.orthogonalise(raws[0]), f_theta.orthogonalise(raws[1]), raws[0]
    finite = torch.stack(draws).isfinite().all(0).flatten(1).all(1)
    return draws[0][finite], draws[1][finite], draws[2][finite]


@contextmanager
def with_rotation(dynamics: SymDiffDynamics, rule: Rule) -> Iterator[None]:
    """Until the end of the block R is what ``rule`` makes of R0, f_theta or not; the draws are the same as ever.

    ``lambda R0: R0`` is the model with f = I, ``lambda R0: None`` the one with R = I, and
    ``lambda R0: compose(R0, C)`` the one with f = C.
    """

    def rotation(x: Tensor, psi: Tensor, t: Tensor, layout: AtomLayout, R0: Tensor, eta: Tensor | None) -> Any:
        return rule(R0)

    dynamics.rotation = rotation  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del dynamics.rotation


def constant(C: Tensor) -> Rule:
    """The rule of f = C, an element of O(3)."""
    return lambda R0: compose(R0, C.to(R0).expand_as(R0))
