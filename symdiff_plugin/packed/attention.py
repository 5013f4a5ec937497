r"""Multi-head self-attention of packed sequences, each token attending to those of its own sequence.

    O = softmax(Q K^T / sqrt(d)) V       for every head of every sequence, d the width of a head

Molecules are short: a matrix Q K^T has some twenty rows. The fused kernel is made for long sequences, and on a CPU its
backward pass in bfloat16 takes three times as long as batched matrix products over all heads of the sequences of one
length, in float32; in float32 the two are equally fast. So a CPU takes the products. Nothing but qkv is kept for the
backward pass, and a slice of sequences at a time is worked on, so that no more than a slice's softmax exists.
Elsewhere, where many small kernels would cost more than some padding, sequences of similar length are padded to a
common one for the fused kernel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from symdiff_plugin.packed.atoms import AtomLayout
from symdiff_plugin.packed.precision import autocast

# Elements of q, k or v in a slice: with the softmax, what a core's second-level cache holds.
_SLICE = 1 << 16


class Attention(nn.Module):
    """Multi-head self-attention with one Linear for q, k and v and one behind it.

    Args:
        dim: D, width of the tokens.
        num_heads: a divisor of D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attend = attention

    def forward(self, x: Tensor, layout: AtomLayout) -> Tensor:
        return self.proj(self.attend(self.qkv(x), self.num_heads, layout))  # (T, D)

    def leave_uncompiled(self) -> None:
        """Keep ``torch.compile`` out of what is between the two Linears.

        Its shapes are those of the batch: each would be compiled anew. Only asked for, since it imports the compiler,
        which takes longer than sampling some molecules.
        """
        self.attend = torch.compiler.disable(attention)


def attention(qkv: Tensor, num_heads: int, layout: AtomLayout) -> Tensor:
    """Attention between the tokens of each sequence.

    Args:
        qkv: (T, 3 D), rows [q, k, v], the heads inside each.
        num_heads: a divisor of D.
        layout: which tokens belong to which sequence.

    Returns:
        (T, D), of qkv's type.
    """
    if layout.exact:
        return _BySlices.apply(qkv, num_heads, layout)
    outs = []
    for group in layout.groups:
        q, k, v = _heads(group.pad(qkv), 3, num_heads)  # (b, heads, n, D / heads) each
        mask = group.mask[:, None, None, :]  # of the keys; rows of padding are dropped
        outs.append(group.real(F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)))
    return torch.cat(outs)


def _heads(tokens: Tensor, parts: int, num_heads: int) -> Tensor:
    """(b, n, parts D) -> (parts, b, heads, n, D / heads), a view."""
    b, n, width = tokens.shape
    return tokens.view(b, n, parts, num_heads, width // parts // num_heads).permute(2, 0, 3, 1, 4)


class _BySlices(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, num_heads: int, layout: AtomLayout) -> Tensor:
        ctx.save_for_backward(qkv)
        ctx.num_heads, ctx.layout = num_heads, layout
        out = qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)
        with autocast(qkv.device.type, enabled=False):
            for (tokens, to), (b, n) in _slices(layout, qkv, out):
                q, k, v = _contiguous(tokens, (b, n), 3, num_heads)
                o = torch.bmm(_softmax(q, k), v)
                _heads(to.view(b, n, -1), 1, num_heads).copy_(o.view(1, b, num_heads, n, -1))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (qkv,) = ctx.saved_tensors
        num_heads = ctx.num_heads
        grad_qkv = torch.empty_like(qkv)
        for (tokens, to, grads), (b, n) in _slices(ctx.layout, qkv, grad_qkv, grad):
            q, k, v = _contiguous(tokens, (b, n), 3, num_heads)
            (g,) = _contiguous(grads, (b, n), 1, num_heads)
            p = _softmax(q, k)
            grad_s = _products(g, v).mul_(p)  # p grad_p / sqrt(d), and from here on that of the scores
            grad_s.addcmul_(p, grad_s.sum(-1, keepdim=True), value=-1)
            out = q.new_empty(3, *q.shape)
            torch.bmm(grad_s, k, out=out[0])
            torch.bmm(grad_s.mT, q, out=out[1])
            torch.bmm(p.mT, g, out=out[2])
            _heads(to.view(b, n, -1), 3, num_heads).copy_(out.view(3, b, num_heads, n, -1))
        return grad_qkv, None, None


def _slices(layout: AtomLayout, *tensors: Tensor) -> Iterator[tuple[list[Tensor], tuple[int, int]]]:
    """Rows of the tensors (T, ...) that hold some b sequences of n tokens each, and (b, n), until all are through."""
    start = 0
    width = tensors[0].shape[1] // 3
    for count, n in layout.buckets:
        if n == 0:
            continue
        at_once = max(1, _SLICE // (n * width))
        for first in range(0, count, at_once):
            b = min(at_once, count - first)
            yield [tensor.narrow(0, start, b * n) for tensor in tensors], (b, n)
            start += b * n


def _contiguous(tokens: Tensor, shape: tuple[int, int], parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """(b n, parts D) -> parts tensors (b heads, n, D / heads), contiguous, float32 or better."""
    view = _heads(tokens.view(*shape, -1), parts, num_heads)
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    return torch.empty(view.shape, dtype=dtype).copy_(view).flatten(1, 2).unbind()


def _softmax(q: Tensor, k: Tensor) -> Tensor:
    """(B, n, d), (B, n, d) -> softmax(q k^T / sqrt(d)), (B, n, n)."""
    return torch.softmax(_products(q, k), dim=-1)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """(B, n, d), (B, n, d) -> a b^T / sqrt(d), (B, n, n)."""
    return torch.baddbmm(a.new_empty(()), a, b.mT, beta=0, alpha=1 / math.sqrt(a.shape[-1]))
