r"""The two affine maps of adaLN, with one row of coefficients a sequence.

    modulated_norm:  y = (1 + scale_m) * LayerNorm(x) + shift_m
    gated_sum:       y = x + gate_m * h

for token i of sequence m(i); x, h, y are (T, D) and the coefficients (B, D), or (1, D) where all
sequences share them. A coefficient is gathered to its tokens when it is needed and dropped again, and its gradient is
scattered back by ``index_add_``: autograd would keep six copies (T, D) a block for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from symdiff_plugin.packed.atoms import AtomLayout
from symdiff_plugin.packed.precision import compute_dtype
from symdiff_plugin.packed.row_slices import row_slices

EPS = 1e-6


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, layout: AtomLayout) -> Tensor:
    """(1 + scale) * LayerNorm(x) + shift, the norm without affine parameters.

    Args:
        x: (T, D) tokens.
        shift, scale: (B, D), one row a sequence, or (1, D).

    Returns:
        (T, D), under autocast already of the type in which the next Linear computes.
    """
    shift, scale = shift.to(x.dtype), scale.to(x.dtype)
    if torch.compiler.is_compiling():  # which fuses the formula, and cannot see into the functions below
        return torch.addcmul(layout.expand(shift), F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + layout.expand(scale))
    return _ModulatedNorm.apply(x, shift, scale, layout, compute_dtype(x))


def gated_sum(x: Tensor, gate: Tensor, h: Tensor, layout: AtomLayout) -> Tensor:
    """x + gate * h.

    Args:
        x, h: (T, D) tokens; h may be of lower precision.
        gate: (B, D), one row a sequence, or (1, D).
    """
    gate = gate.to(x.dtype)
    if torch.compiler.is_compiling():
        return torch.addcmul(x, layout.expand(gate), h.to(x.dtype))
    return _GatedSum.apply(x, gate, h, layout)


class _ModulatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, layout: AtomLayout, dtype: torch.dtype) -> Tensor:
        gain = 1 + scale
        out = torch.empty_like(x, dtype=dtype)
        mean, rstd = x.new_empty(x.shape[0], 1), x.new_empty(x.shape[0], 1)
        # With a weight and a bias, even trivial ones, the CPU's kernel is three times as fast as without.
        shared = scale.shape[0] == 1
        weight, bias = (gain[0], shift[0]) if shared else (x.new_ones(x.shape[1]), x.new_zeros(x.shape[1]))
        for rows in row_slices(len(x), x.shape[1], x.device):
            y, mean[rows], rstd[rows] = torch.native_layer_norm(x[rows], x.shape[-1:], weight, bias, EPS)
            if not shared:
                y = torch.addcmul(layout.expand(shift, rows), y, layout.expand(gain, rows), out=y)
            out[rows] = y
        ctx.save_for_backward(x, mean, rstd, gain)
        ctx.layout = layout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, gain = ctx.saved_tensors
        layout = ctx.layout
        grad_x, grad_shift, grad_scale = torch.empty_like(x), torch.zeros_like(gain), torch.zeros_like(gain)
        for rows in row_slices(len(x), x.shape[1], x.device):
            g = grad[rows].to(x.dtype)
            layout.add_to(grad_shift, g, rows)
            layout.add_to(grad_scale, (x[rows] - mean[rows]).mul_(rstd[rows]).mul_(g), rows)
            grad_x[rows], _, _ = torch.ops.aten.native_layer_norm_backward(
                g * layout.expand(gain, rows), x[rows], x.shape[-1:], mean[rows], rstd[rows],
                None, None, [True, False, False],
            )  # fmt: skip
        return grad_x, grad_shift, grad_scale, None, None


class _GatedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, h: Tensor, layout: AtomLayout) -> Tensor:
        ctx.save_for_backward(gate, h)
        ctx.layout = layout
        out = torch.empty_like(x)
        for rows in row_slices(len(x), x.shape[1], x.device):
            torch.addcmul(x[rows], layout.expand(gate, rows), h[rows].to(x.dtype), out=out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, h = ctx.saved_tensors
        layout = ctx.layout
        grad_gate, grad_h = torch.zeros_like(gate), torch.empty_like(h)
        for rows in row_slices(len(h), h.shape[1], h.device):
            g = grad[rows]
            layout.add_to(grad_gate, g * h[rows], rows)
            torch.mul(g, layout.expand(gate, rows), out=grad_h[rows])
        return grad, grad_gate, grad_h, None
