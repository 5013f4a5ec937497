"""Batches of molecules of about one size, drawn so that training on them is training on shuffled ones.

Upstream's ``--sequential`` goes through the data by size: no padding, but the order is the same every epoch, small
molecules first. Here every epoch, of n molecules in batches of B,

1. permutes all molecules; the last n mod B of them are the one short batch, at the end, as in EDM's shuffle;
2. cuts the rest into pools of ``POOL`` batches, sorts each pool by size and cuts it into batches of exactly B;
3. shuffles those batches over the epoch.

What is expected of a step is what EDM's shuffle gives. Let g_i be anything that a molecule adds to a mean over its
batch, such as its gradient. Given the molecules that are not in the short batch, each full step takes one of the
batches uniformly; they are equally large, so the mean over batches of the batches' means is the mean over these
molecules; and they are a uniform draw of all. So E[mean of g over the batch] = (1/n) sum_i g_i, at each step.
Its variance is larger than a shuffled batch's, as molecules of one size are alike, and what is not linear in the
gradient, such as clipping it, is not covered.

That takes a g_i which does not depend on the rest of the batch. EDM's l2 loss of training does: it divides by the
size that the batch is padded to. :func:`expected_inverse_size` has what becomes of that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

# Batches. With GEOM's sizes 2% of the positions are padding then, of shuffled batches of 64 and 256 40% and 50%.
POOL = 100


class SizeBucketedBatches(Sampler[list[int]]):
    """Batches of indices, anew in every epoch.

    As torch's own shuffle does, an epoch takes one number from torch's global generator, at its first batch, so a
    run that goes on with a restored generator sees the same batches as one that was never interrupted.

    Args:
        sizes: (n,) atoms of each molecule.
        batch_size: B.
        pool: batches that are sorted by size together; 1 is a plain shuffle.
    """

    def __init__(self, sizes: np.ndarray, batch_size: int, pool: int = POOL) -> None:
        self.sizes = torch.as_tensor(np.asarray(sizes, dtype=np.int64))
        self.batch_size = batch_size
        self.pool = pool

    def __len__(self) -> int:
        return -(-len(self.sizes) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        seed = int(torch.empty((), dtype=torch.int64).random_().item())
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.sizes), generator=generator)
        whole = len(order) - len(order) % self.batch_size
        span = self.pool * self.batch_size
        batches: list[torch.Tensor] = []
        for first in range(0, whole, span):
            part = order[first : min(first + span, whole)]
            batches += part[self.sizes[part].argsort(stable=True)].split(self.batch_size)
        shuffled = [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]
        if whole < len(order):
            shuffled.append(order[whole:])
        for batch in shuffled:
            yield batch.tolist()


def padding_fraction(sizes: np.ndarray, batches: list[list[int]]) -> float:
    """The part of all positions of the batches, each padded to its largest molecule, that is padding."""
    padded = sum(len(batch) * int(sizes[batch].max()) for batch in batches)
    return 1 - sum(int(sizes[batch].sum()) for batch in batches) / padded


def expected_inverse_size(sizes: np.ndarray, batch_size: int) -> np.ndarray:
    """E[1 / size that a molecule's batch is padded to] when batches are shuffled, by the molecule's own size.

    EDM's l2 loss of training is the squared error over the padded size (en_diffusion.py, compute_error), so in a
    shuffled batch a molecule of s atoms weighs E[1 / max(s, M)], M the largest of B - 1 others. In a batch of its
    own size it would weigh 1/s: three times as much for small drugs as for large ones. Where batches are sorted,
    each molecule's error is multiplied by this expectation instead, exactly: with c(m) of n molecules of m atoms or
    fewer, P(max(s, M) <= m) = C(c(m) - 1, B - 1) / C(n - 1, B - 1) for m >= s.

    Args:
        sizes: (n,) atoms of each molecule, n >= B.
        batch_size: B.

    Returns:
        (max(sizes) + 1,) float64, at s the expectation for a molecule of s atoms; 1/s where there is no such molecule.
    """
    counts = np.bincount(sizes)
    up_to = np.cumsum(counts).astype(np.float64)
    drawn = np.arange(1, batch_size, dtype=np.float64)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(up_to[:, None] - drawn, 0)) - np.log(len(sizes) - drawn)
    below = np.exp(logs.sum(axis=1))  # P(max <= m)
    m = np.arange(len(counts), dtype=np.float64)
    inverse = np.divide(1, m, out=np.zeros_like(m), where=m > 0)
    exactly = np.diff(below, prepend=0.0) * inverse
    above = np.concatenate([np.cumsum(exactly[::-1])[::-1][1:], [0.0]])  # sum over m > s
    return np.where(counts > 0, below * inverse + above, inverse)
