r"""Padded and packed atoms, and the centre of mass.

EDM hands over molecules padded to a common length: (B, N, C) with a node mask (B, N, 1). The networks work on
*packed* atoms (T, C), the T real atoms of the batch and nothing else, so that padding costs nothing.

The molecules are packed in ascending order of size. Molecules of n atoms then stand next to each other, and a
bucket of b such molecules is a *view* (b, n, C) of the packed tensor: what couples atoms (attention, distances)
runs on those views, without masks and without a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor


class AtomLayout:
    """Where the real atoms of a padded batch are, and how they are packed.

    Args:
        node_mask: (B, N, 1) or (B, N), non-zero at real atoms, which may stand anywhere.

    Attributes:
        shape: (B, N) of the padded batch.
        buckets: pairs (b, n), ascending in n: b molecules of n atoms; the sum of b n is T.
        order: (B,) the molecules in the order in which they are packed.
        counts: (B, 1) number of atoms of each molecule, at least 1, in packed order, of the mask's dtype.

    Building it reads the sizes on the host, once a batch. On the ``meta`` device, where there is nothing to read,
    every atom is taken for real.

    Raises:
        ValueError: the mask has another shape.
    """

    def __init__(self, node_mask: Tensor) -> None:
        if node_mask.dim() == 3 and node_mask.shape[-1] == 1:
            node_mask = node_mask.squeeze(-1)
        if node_mask.dim() != 2:
            raise ValueError(f"node_mask must be (B, N, 1), not {tuple(node_mask.shape)}")
        self.shape = tuple(node_mask.shape)
        batch, length = self.shape
        device = node_mask.device
        dtype = node_mask.dtype if node_mask.is_floating_point() else torch.get_default_dtype()
        if node_mask.is_meta:
            self.order = torch.arange(batch, device=device)
            self.buckets = ((batch, length),)
            self._index = torch.arange(batch * length, device=device)
            self._molecule = self._index // length
            self.counts = torch.full((batch, 1), float(length), device=device, dtype=dtype)
        else:
            real = node_mask != 0
            sizes, self.order = real.sum(1).sort(stable=True)
            self.buckets = tuple((len(list(group)), n) for n, group in groupby(sizes.tolist()))
            self._molecule, column = real[self.order].nonzero(as_tuple=True)
            self._index = self.order[self._molecule] * length + column
            self.counts = sizes.clamp(min=1).to(dtype)[:, None]
        self.inverse = torch.argsort(self.order)
        self.tokens = sum(b * n for b, n in self.buckets)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, N, C) -> (T, C), the rows of the real atoms."""
        return padded.flatten(0, 1).index_select(0, self._index)

    def unpack(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (B, N, C), zero on padding."""
        batch, length = self.shape
        padded = tokens.new_zeros(batch * length, tokens.shape[-1])
        return padded.index_copy(0, self._index, tokens).view(batch, length, -1)

    def sort(self, molecules: Tensor) -> Tensor:
        """(B, ...) one row a molecule, from EDM's order to the packed one."""
        return molecules.index_select(0, self.order)

    def unsort(self, molecules: Tensor) -> Tensor:
        """(B, ...) one row a molecule, from the packed order back to EDM's."""
        return molecules.index_select(0, self.inverse)

    def split(self, tokens: Tensor) -> list[Tensor]:
        """(T, C) -> one view (b, n, C) a bucket."""
        parts = tokens.split([b * n for b, n in self.buckets])
        return [part.view(b, n, tokens.shape[-1]) for part, (b, n) in zip(parts, self.buckets, strict=True)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of :meth:`split`: tensors (b, n, C) -> (T, C)."""
        return torch.cat([p.reshape(b * n, p.shape[-1]) for p, (b, n) in zip(parts, self.buckets, strict=True)])

    def expand(self, molecules: Tensor) -> Tensor:
        """(B, C) in packed order -> (T, C): to each atom its molecule's row."""
        return molecules.index_select(0, self._molecule)

    def rows(self, molecules: Tensor) -> list[Tensor]:
        """(B, C) in packed order -> one view (b, 1, C) a bucket, to broadcast against :meth:`split`."""
        parts = molecules.split([b for b, _ in self.buckets])
        return [part.unsqueeze(1) for part in parts]

    def mean(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (B, C) in packed order: the mean over the atoms of each molecule."""
        sums = torch.cat([part.sum(1) for part in self.split(tokens)])
        return sums / self.counts.to(sums.dtype)


class LayoutCache:
    """The layout of the last mask seen.

    EDM passes one and the same mask through all T denoising steps of a sampling run; its layout, and the host
    read that goes with it, are then needed once. Copies start empty, so that models stay cheap to copy and pickle.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, int, AtomLayout] | None = None

    def __call__(self, node_mask: Tensor) -> AtomLayout:
        # One read and one write of a tuple: DataParallel's replicas share this object between threads.
        last = self._last
        if last is None or last[0] is not node_mask or last[1] != node_mask._version:
            last = self._last = (node_mask, node_mask._version, AtomLayout(node_mask))
        return last[2]

    def __deepcopy__(self, memo: dict[int, Any]) -> LayoutCache:
        return LayoutCache()

    def __reduce__(self) -> tuple[type[LayoutCache], tuple[()]]:
        return LayoutCache, ()


def remove_mean(x: Tensor, node_mask: Tensor) -> Tensor:
    """Projects positions to zero centre of mass (proj_U of section 2.3).

    Args:
        x: (B, N, C), zero on padding.
        node_mask: (B, N, 1) of 0 and 1.

    Returns:
        (B, N, C), zero on padding, whose mean over real atoms is zero.
    """
    mask = node_mask.to(x.dtype)
    count = mask.sum(1, keepdim=True).clamp(min=1)
    return x - x.sum(1, keepdim=True) / count * mask
