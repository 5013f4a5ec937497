"""EDM's diffusion without EDM, for sampling: Algorithm 2 of Zhang et al. (2024), by EDM's sampler or another.

z = [x, h], x positions of zero centre of mass and h the scaled features: one column an atom type and, if it is
modelled, the charge. With EDM's sampler and from the same state of torch's generator :func:`sample` returns the
molecules of EDM's own ``sample``: the draws have the same shapes and order. A test holds the one against the other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from symdiff_plugin.packed.atoms import remove_mean
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.sampling_step import told
from symdiff_plugin.process.schedule import NoiseSchedule
from symdiff_plugin.process.walk import N_DIMS, last, walk


def centred_noise(node_mask: Tensor, n_features: int) -> Tensor:
    """epsilon ~ N_U(0, I): normal, x without centre of mass, zero on padding.

    Args:
        node_mask: (B, N, 1) of 0 and 1, in the dtype of the noise.
        n_features: columns of h.

    Returns:
        (B, N, 3 + n_features).
    """
    like: dict[str, Any] = {"device": node_mask.device, "dtype": node_mask.dtype}
    x = torch.randn(*node_mask.shape[:2], N_DIMS, **like) * node_mask
    h = torch.randn(*node_mask.shape[:2], n_features, **like) * node_mask  # a draw of its own, as in EDM
    return torch.cat([remove_mean(x, node_mask), h], dim=-1)


def padded_mask(sizes: Tensor, dtype: torch.dtype = torch.float32, length: int | None = None) -> Tensor:
    """The node mask (B, N, 1) of molecules of ``sizes`` (B,) atoms, N being ``length`` or else the largest."""
    length = int(sizes.max()) if length is None else length
    return (torch.arange(length, device=sizes.device) < sizes[:, None]).to(dtype).unsqueeze(-1)


@torch.no_grad()
def sample(
    dynamics: Any,
    path: NoiseSchedule | FlowPath,
    node_mask: Tensor,
    n_types: int,
    n_features: int,
    position_scale: float = 1.0,
    sampler: Sampler | None = None,
) -> tuple[Tensor, Tensor]:
    """Molecules from noise, along the path and by its decoding: of a diffusion p(x, h | z_0).

    Args:
        dynamics: predicts the noise, or of a flow the velocity; called as EDM calls it, see
            :meth:`symdiff_plugin.model.dynamics.DiTDynamics._forward`.
        path: the one that the network was trained with.
        node_mask: (B, N, 1) of 0 and 1; its device and dtype are those of the computation.
        n_types: atom types, the first columns of h.
        n_features: columns of h, one more than ``n_types`` where the charge is modelled.
        position_scale: Angstrom a unit of x, the first of EDM's ``normalize_factors``; the others, of h, do not
            change which type is the most probable.
        sampler: one of the network's process; the usual one, of a diffusion EDM's with all T steps, if not given.

    Returns:
        Positions (B, N, 3) in Angstrom, of zero centre of mass and zero on padding, and the atom types (B, N),
        integers, of no meaning on padding.
    """
    batch, device = len(node_mask), node_mask.device
    sampler = sampler or Sampler.of({"probabilistic_model": path.process}, path.steps)
    levels = sampler.levels(path)

    def predict(z: Tensor, level: Level) -> Prediction:
        time = torch.full((1, 1), level.time, device=device, dtype=node_mask.dtype)
        return path.read(z, dynamics._forward(time.expand(batch, 1), z, node_mask, None, None), level)

    def draw() -> Tensor:
        return centred_noise(node_mask, n_features)

    with told(dynamics, sampler.hold_frame):
        z = last(walk(draw(), levels, sampler, predict, draw, node_mask))
        xh = path.decode(z, predict, draw)
    x = remove_mean(xh[..., :N_DIMS], node_mask) * position_scale
    return x, z[..., N_DIMS : N_DIMS + n_types].argmax(dim=-1)
