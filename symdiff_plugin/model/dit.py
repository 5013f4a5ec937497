r"""The Diffusion Transformer (Peebles & Xie 2023) with SwiGLU, on packed sequences. Nothing molecular in it.

A block, with c the embedding of the time and (shift, scale, gate)_{1,2} = W SiLU(c) + b, zero at the start
(adaLN-Zero):

    x <- x + gate_1 * Attention((1 + scale_1) * LayerNorm(x) + shift_1)
    x <- x + gate_2 * SwiGLU((1 + scale_2) * LayerNorm(x) + shift_2)

SwiGLU(x) = W_2 (SiLU(W_s x) * (W_l x)) (Shazeer 2020). Tokens are packed (T, D), see
:mod:`symdiff_plugin.packed.atoms`; what belongs to a whole sequence, the time among it, has one row a sequence.

Parameters are stored as in the reference DiT: qkv as rows [q; k; v] with the heads inside each, modulations as
rows shift, scale, gate of attention and then of the MLP, and fc1 as rows [W_s; W_l].
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from symdiff_plugin.packed.atoms import AtomLayout
from symdiff_plugin.packed.attention import Attention
from symdiff_plugin.packed.modulation import gated_sum, modulated_norm
from symdiff_plugin.packed.swiglu import SwiGLU


class TimestepEmbedder(nn.Module):
    """(B,) times -> (B, D): sinusoids of 256 frequencies down to 1/10000, then a two-layer SiLU MLP."""

    def __init__(self, hidden_size: int, frequencies: int = 256) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    def sinusoids(self, t: Tensor) -> Tensor:
        """(B,) -> (B, 256), cosines and then sines of t f, f = 10000^(-i / 128), i = 0..127."""
        half = self.frequencies // 2
        i = torch.arange(half, device=t.device, dtype=t.dtype)
        angles = t[:, None] * torch.exp(-math.log(10000) / half * i)
        return torch.cat((angles.cos(), angles.sin()), dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(self.sinusoids(t))


class DiTBlock(nn.Module):
    """One transformer block with adaLN-Zero."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.attn = Attention(dim, num_heads)
        self.mlp = SwiGLU(dim, int(mlp_ratio * dim) // 2, dropout)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, c: Tensor, layout: AtomLayout) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=-1)  # (B, D) each
        x = gated_sum(x, gate1, self.attn(modulated_norm(x, shift1, scale1, layout), layout), layout)
        return gated_sum(x, gate2, self.mlp(modulated_norm(x, shift2, scale2, layout)), layout)


class FinalLayer(nn.Module):
    """Modulated LayerNorm and a Linear to the output, zero at the start."""

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out_features)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, c: Tensor, layout: AtomLayout) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)  # (B, D) each
        return self.linear(modulated_norm(x, shift, scale, layout))


class DiT(nn.Module):
    """A stack of blocks from token embeddings to token outputs.

    Args:
        hidden_size: D.
        depth: number of blocks.
        num_heads: a divisor of D.
        mlp_ratio: of fc1's width, both halves of the SwiGLU counted, to D.
        out_features: width of the output, or None to leave out the final layer.
        dropout: inside the SwiGLUs.
    """

    def __init__(
        self,
        hidden_size: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        out_features: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.blocks = nn.ModuleList(DiTBlock(hidden_size, num_heads, mlp_ratio, dropout) for _ in range(depth))
        self.final_layer = None if out_features is None else FinalLayer(hidden_size, out_features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial weights: Xavier-uniform, the exceptions being those of DiT and of its SwiGLU."""
        xavier_uniform(self)
        times: Any = self.t_embedder.mlp  # Any: what is in a Sequential or a ModuleList, its type does not say
        blocks: Any = self.blocks
        final: Any = self.final_layer
        for linear in (times[0], times[2]):
            nn.init.normal_(linear.weight, std=0.02)
        for block in blocks:
            nn.init.zeros_(block.adaLN_modulation[1].weight)
            # The linear half starts near the constant 1, so that the gate alone decides at first.
            hidden = block.mlp.fc2.in_features
            nn.init.normal_(block.mlp.fc1.weight[hidden:], std=1e-6)
            nn.init.ones_(block.mlp.fc1.bias[hidden:])
        if final is not None:
            nn.init.zeros_(final.adaLN_modulation[1].weight)
            nn.init.zeros_(final.linear.weight)

    def forward(self, x: Tensor, t: Tensor, layout: AtomLayout) -> Tensor:
        """
        Args:
            x: (T, D) embedded tokens.
            t: (B,) times, one a sequence, or (1,), one for all.
            layout: which tokens belong to which sequence.

        Returns:
            (T, out_features), or the last hidden state (T, D) without a final layer.
        """
        c = self.t_embedder(t)  # (B, D)
        x = x.to(t.dtype)  # under autocast, the residual stream keeps full precision
        for block in self.blocks:
            x = block(x, c, layout)  # (T, D)
        return x if self.final_layer is None else self.final_layer(x, c, layout)


def xavier_uniform(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every Linear in ``module``."""
    for linear in module.modules():
        if isinstance(linear, nn.Linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
