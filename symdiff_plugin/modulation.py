r"""The two affine maps of adaLN, with one row of coefficients a sequence and no copy of them a token.

    modulated_norm:  y = (1 + scale_m) * LayerNorm(x) + shift_m
    gated_sum:       y = x + gate_m * h

for token i of sequence m(i); x, h, y are (T, D) and the coefficients (B, D), in packed order. Written with
expanded coefficients, six tensors (T, D) a block would be made, kept for the backward pass and reduced again. On a
CPU, where that memory traffic is what they cost, buckets of equally long sequences are views (b, n, D) against which
(b, 1, D) broadcasts. Elsewhere a kernel for each bucket would cost more than the copies, so coefficients are gathered.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from symdiff_plugin.atoms import AtomLayout

EPS = 1e-6


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, layout: AtomLayout) -> Tensor:
    """(1 + scale) * LayerNorm(x) + shift, the norm without affine parameters.

    Args:
        x: (T, D) tokens.
        shift, scale: (B, D), one row a sequence, in packed order.
    """
    shift, scale = shift.to(x.dtype), scale.to(x.dtype)
    if x.device.type == "cpu":
        return _ModulatedNorm.apply(x, shift, scale, layout)
    return torch.addcmul(layout.expand(shift), F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + layout.expand(scale))


def gated_sum(x: Tensor, gate: Tensor, h: Tensor, layout: AtomLayout) -> Tensor:
    """x + gate * h.

    Args:
        x, h: (T, D) tokens; h may be of lower precision.
        gate: (B, D), one row a sequence, in packed order.
    """
    gate, h = gate.to(x.dtype), h.to(x.dtype)
    if x.device.type == "cpu":
        return _GatedSum.apply(x, gate, h, layout)
    return torch.addcmul(x, layout.expand(gate), h)


class _ModulatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, layout: AtomLayout) -> Tensor:
        out, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, EPS)
        for y, a, b in zip(layout.split(out), layout.rows(scale), layout.rows(shift), strict=True):
            y.mul_(1 + a).add_(b)
        ctx.save_for_backward(x, mean, rstd, scale)
        ctx.layout = layout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, scale = ctx.saved_tensors
        layout = ctx.layout
        normed = (x - mean).mul_(rstd)
        grad_shift, grad_scale = torch.empty_like(scale), torch.empty_like(scale)
        grad_normed = torch.empty_like(x)
        for g, y, a, to_shift, to_scale, to_normed in zip(
            layout.split(grad.contiguous()), layout.split(normed), layout.rows(scale),
            layout.rows(grad_shift), layout.rows(grad_scale), layout.split(grad_normed), strict=True,
        ):  # fmt: skip
            torch.sum(g, dim=1, keepdim=True, out=to_shift)
            torch.sum(y.mul_(g), dim=1, keepdim=True, out=to_scale)
            torch.mul(g, 1 + a, out=to_normed)
        grad_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            grad_normed, x, x.shape[-1:], mean, rstd, None, None, [True, False, False]
        )
        return grad_x, grad_shift, grad_scale, None


class _GatedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, h: Tensor, layout: AtomLayout) -> Tensor:
        out = torch.empty_like(x)
        for y, a, g, b in zip(
            layout.split(out), layout.split(x), layout.rows(gate), layout.split(h), strict=True
        ):
            torch.addcmul(a, b, g, out=y)
        ctx.save_for_backward(gate, h)
        ctx.layout = layout
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, h = ctx.saved_tensors
        layout = ctx.layout
        grad_gate, grad_h = torch.empty_like(gate), torch.empty_like(h)
        for g, a, b, to_gate, to_h in zip(
            layout.split(grad.contiguous()), layout.rows(gate), layout.split(h),
            layout.rows(grad_gate), layout.split(grad_h), strict=True,
        ):  # fmt: skip
            torch.sum(g * b, dim=1, keepdim=True, out=to_gate)
            torch.mul(g, a, out=to_h)
        return grad, grad_gate, grad_h, None
