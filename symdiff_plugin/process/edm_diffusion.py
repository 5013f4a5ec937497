"""EDM's diffusion model with another sampler than its own; everything else, the decoding of z_0 too, is EDM's."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from symdiff_plugin.common.progress import progress
from symdiff_plugin.packed.atoms import remove_mean
from symdiff_plugin.process.flow_path import FlowPath
from symdiff_plugin.process.level import Level, Prediction
from symdiff_plugin.process.sampler import Sampler
from symdiff_plugin.process.sampling_step import sampling
from symdiff_plugin.process.schedule import NoiseSchedule, tabulated
from symdiff_plugin.process.walk import last, walk


@functools.cache
def with_sampler(edms: Any, chosen: Sampler) -> Any:
    """A class like ``edms`` that samples by ``chosen``.

    Args:
        edms: EDM's ``EnVariationalDiffusion``, or one that keeps its ``phi``, ``gamma`` and ``sample_p_xh_given_z0``.
        chosen: the sampler.
    """

    class Diffusion(edms):
        sampler = chosen

        def path(self) -> NoiseSchedule | FlowPath:
            """What z is of noise and data at any time, and how the network is read."""
            return tabulated(self.gamma, self.T, self.buffer.device)

        @sampling
        @torch.no_grad()
        def sample(
            self, n_samples: int, n_nodes: int, node_mask: Tensor, edge_mask: Tensor, context: Tensor | None,
            fix_noise: bool = False,
        ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
            """As EDM's: x (B, N, 3) and h, with ``fix_noise`` one noise for all molecules."""
            given = (node_mask, edge_mask, context)
            z = last(self._walk(1 if fix_noise else n_samples, n_nodes, *given))
            x, h = self.sample_p_xh_given_z0(z, *given, fix_noise=fix_noise)
            return remove_mean(x, node_mask), h

        @sampling
        @torch.no_grad()
        def sample_chain(
            self, n_samples: int, n_nodes: int, node_mask: Tensor, edge_mask: Tensor, context: Tensor | None,
            keep_frames: int | None = None,
        ) -> Tensor:  # fmt: skip
            """As EDM's: (frames * B, N, 3 + nf), the result first; of no more frames than there are steps."""
            given, steps = (node_mask, edge_mask, context), self.sampler.intervals
            frames: list[Any] = [None] * min(keep_frames or steps, steps)
            for done, z in enumerate(self._walk(n_samples, n_nodes, *given), 1):
                frames[(steps - done) * len(frames) // steps] = self.unnormalize_z(z, node_mask)
            x, h = self.sample_p_xh_given_z0(z, *given)
            frames[0] = torch.cat([x, h["categorical"], h["integer"]], dim=2)
            return torch.stack(frames).view(n_samples * len(frames), *z.size()[1:])

        def _walk(
            self, n_draws: int, n_nodes: int, node_mask: Tensor, edge_mask: Tensor, context: Tensor | None
        ) -> Iterator[Tensor]:
            path = self.path()

            def draw() -> Tensor:  # one draw is spread over the batch by the mask
                return self.sample_combined_position_feature_noise(n_draws, n_nodes, node_mask)

            def predict(z: Tensor, level: Level) -> Prediction:
                time = torch.full((1, 1), level.time, device=z.device, dtype=z.dtype).expand(len(z), 1)
                return path.read(z, self.phi(z, time, node_mask, edge_mask, context), level)

            way = walk(draw(), self.sampler.levels(path), self.sampler, predict, draw, node_mask)
            return progress(way, "Denoising", self.sampler.intervals)

    Diffusion.__name__ = Diffusion.__qualname__ = f"{edms.__name__}[{chosen}]"
    return Diffusion
