"""The release's Gram-Schmidt, LAPACK's QR in float64 on the host, beside the closed form: same values, what time?

python docs/cpu_study/gram_schmidt.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from symdiff_plugin.model.groups import gram_schmidt

BATCH = 64  # of a training step: each takes one call for f and one for R0
ROUNDS, CALLS = 15, 100


def by_qr(a: Tensor) -> Tensor:
    """As the release does it, the diagonal of U made positive."""
    q, u = torch.linalg.qr(a.double().cpu())
    return (q * torch.diagonal(u, dim1=-2, dim2=-1).sign().unsqueeze(-2)).to(a)


def forward_and_backward(function: Callable[[Tensor], Tensor], a: Tensor) -> None:
    """One call as in training."""
    function(a.detach().requires_grad_()).square()[..., 0].sum().backward()


def milliseconds(function: Callable[[Tensor], Tensor], a: Tensor) -> float:
    """Of a call, over ``CALLS`` of them."""
    start = time.perf_counter()
    for _ in range(CALLS):
        forward_and_backward(function, a)
    return (time.perf_counter() - start) / CALLS * 1e3


def main() -> None:
    """Print both."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    a = torch.randn(1_000_000, 3, 3)
    difference = (gram_schmidt(a) - by_qr(a.double())).abs().amax((1, 2))
    median, rare, largest = difference.median(), difference.quantile(0.999), difference.max()
    print(f"{len(a):,} normal matrices in float32, largest difference of an entry to float64's QR:")
    print(f"  median {median:.1e}, exceeded once in 1,000 {rare:.1e}, of any {largest:.1e}")
    pairs = [(milliseconds(by_qr, a[:BATCH]), milliseconds(gram_schmidt, a[:BATCH])) for _ in range(ROUNDS)]
    ratios = sorted(qr / closed for qr, closed in pairs)
    print(f"a call forward and backward, batches of {BATCH}: closed form {min(c for _, c in pairs):.2f} ms")
    print(f"  QR's time over the closed form's: median {ratios[ROUNDS // 2]:.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
