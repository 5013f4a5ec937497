"""SymDiff once more, plainly: one molecule after the other, for reading and as the oracle of the tests.

It takes its numbers from a model's state dict and shares no code with the package: nothing is packed, Psi is made from
a tensor (N, N, K), softmax is written out, Gram-Schmidt is LAPACK's QR. In float64 it is exact; it is slow.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, silu


def linear(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def psi(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """Psi of one molecule: x (n, 3) -> (n, n_emb)."""
    mu, s = p["pair_embedding.means"], p["pair_embedding.stds"].abs() + 0.01
    d = (x[:, None] - x[None]).norm(dim=-1)
    kernel = torch.exp(-(((d[..., None] - mu) / s) ** 2) / 2) / (math.sqrt(2 * math.pi) * s)  # (n, n, K)
    return linear(p, "pair_embedding.proj", kernel).mean(1)


def release_psi(p: dict[str, Tensor], x: Tensor, length: int) -> Tensor:
    """The release's: psi of padding is zero, its image under the linear layer is not; summed over all, over n."""
    n = len(x)
    mu, s = p["pair_embedding.means"], p["pair_embedding.stds"].abs() + 0.01
    d = (x[:, None] - x[None]).norm(dim=-1)
    kernel = torch.exp(-(((d[..., None] - mu) / s) ** 2) / 2) / (math.sqrt(2 * math.pi) * s)
    padded = torch.cat([kernel, kernel.new_zeros(n, length - n, len(mu))], dim=1)
    return linear(p, "pair_embedding.proj", padded).sum(1) / n


def dit(p: dict[str, Tensor], x: Tensor, t: Tensor, heads: int, final: bool) -> Tensor:
    """The DiT of one molecule: tokens x (n, D), t a scalar."""
    freqs = torch.exp(-math.log(10000) * torch.arange(128, dtype=x.dtype) / 128)
    c = torch.cat([torch.cos(t * freqs), torch.sin(t * freqs)])
    c = linear(p, "t_embedder.mlp.2", silu(linear(p, "t_embedder.mlp.0", c)))
    dim = x.shape[1]
    norm = lambda v: layer_norm(v, (dim,), eps=1e-6)  # noqa: E731
    depth = 1 + max(int(name.split(".")[1]) for name in p if name.startswith("blocks."))
    for i in range(depth):
        block = f"blocks.{i}"
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(p, f"{block}.adaLN_modulation.1", silu(c)).chunk(6)
        q, k, v = linear(p, f"{block}.attn.qkv", norm(x) * (1 + scale1) + shift1).chunk(3, dim=-1)
        out = []
        for head in range(heads):
            cols = slice(head * dim // heads, (head + 1) * dim // heads)
            weights = torch.softmax(q[:, cols] @ k[:, cols].T / math.sqrt(dim // heads), dim=-1)
            out.append(weights @ v[:, cols])
        x = x + gate1 * linear(p, f"{block}.attn.proj", torch.cat(out, dim=-1))
        a, b = linear(p, f"{block}.mlp.fc1", norm(x) * (1 + scale2) + shift2).chunk(2, dim=-1)
        x = x + gate2 * linear(p, f"{block}.mlp.fc2", silu(a) * b)
    if not final:
        return x
    shift, scale = linear(p, "final_layer.adaLN_modulation.1", silu(c)).chunk(2)
    return linear(p, "final_layer.linear", norm(x) * (1 + scale) + shift)


def sub(p: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}


def qr(a: Tensor) -> Tensor:
    q, r = torch.linalg.qr(a)
    return q * torch.sign(torch.diagonal(r))[None]


def symdiff(
    model: torch.nn.Module, t: Tensor, xh: Tensor, mask: Tensor, context: Tensor | None, R0: Tensor, eta: Tensor
) -> Tensor:
    """The prediction of a model with a learned gamma, or of a plain DiT (R0 ignored), molecule by molecule."""
    a: Any = model.architecture
    p: dict[str, Tensor] = dict(model.named_parameters())
    out = torch.zeros_like(xh)
    for i in range(len(xh)):
        real = mask[i, :, 0] != 0
        x, h = xh[i, real, :3], xh[i, real, 3:]
        time = (t.reshape(-1).expand(len(xh))[i] * a.time_scale).to(x.dtype)
        features = psi(p, x) if a.compat == "paper" else release_psi(p, x, xh.shape[1])
        R = torch.eye(3, dtype=x.dtype)
        if a.frame != "none":
            R = R0[i]
        if a.frame == "learned":
            z = torch.cat([x @ R0[i], eta[i, real], features], dim=-1)
            hidden = dit(sub(p, "f_theta.dit."), linear(p, "f_theta.x_embedder", z), time, a.enc_num_heads, False)
            f = linear(p, "f_theta.fc2", gelu(linear(p, "f_theta.fc1", hidden.mean(0))))
            f = qr(f.view(3, 3).T).T if a.compat == "release_fix_qr" else qr(f.view(3, 3))
            R = R0[i] @ f if a.compat == "paper" else f @ R0[i].T
        inputs = [x @ R, h] if context is None else [x @ R, h, context[i, real]]
        z = torch.cat([linear(p, "xh_embedder", torch.cat(inputs, dim=-1)), features], dim=-1)
        eps = dit(sub(p, "dit."), z, time, a.num_heads, True)
        eps_x = eps[:, :3] - eps[:, :3].mean(0)
        out[i, real] = torch.cat([eps_x @ R.T, eps[:, 3:]], dim=-1)
    return out
