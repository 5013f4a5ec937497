r"""SwiGLU (Shazeer 2020):  W_2 (SiLU(W_s x) * (W_l x)), W_s and W_l being the halves of one Linear."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from symdiff_plugin.packed.row_slices import row_slices


class SwiGLU(nn.Module):
    """A gated two-layer network; fc1 holds [W_s; W_l].

    Args:
        dim: width of input and output.
        hidden_dim: of the product, half the width of fc1.
        dropout: on the product.
    """

    def __init__(self, dim: int, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.dropout(gated(self.fc1(x))))


def gated(halves: Tensor) -> Tensor:
    """[a, b] -> SiLU(a) * b: (T, 2 hidden) -> (T, hidden)."""
    if torch.compiler.is_compiling():  # which fuses the formula, and cannot see into the function below
        gate, value = halves.chunk(2, dim=-1)
        return F.silu(gate) * value
    return _Gated.apply(halves)


class _Gated(torch.autograd.Function):
    """[a, b] -> SiLU(a) * b. Keeps its input alone, and writes both halves of its gradient into one tensor."""

    @staticmethod
    def forward(ctx: Any, halves: Tensor) -> Tensor:
        ctx.save_for_backward(halves)
        gate, value = halves.chunk(2, dim=-1)
        out = halves.new_empty(gate.shape)
        for rows in row_slices(len(gate), gate.shape[1], gate.device):
            torch.mul(F.silu(gate[rows]), value[rows], out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (halves,) = ctx.saved_tensors
        gate, value = halves.chunk(2, dim=-1)
        out = torch.empty_like(halves)
        to_gate, to_value = out.chunk(2, dim=-1)
        for rows in row_slices(len(gate), gate.shape[1], gate.device):
            g = grad[rows]
            torch.mul(F.silu(gate[rows]), g, out=to_value[rows])
            torch.ops.aten.silu_backward(g * value[rows], gate[rows], grad_input=to_gate[rows])
        return out
