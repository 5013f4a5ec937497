r"""Padded and packed atoms, and the centre of mass.

EDM hands over molecules padded to a common length: (B, N, C) with a node mask (B, N, 1). The networks work on
*packed* atoms (T, C), the T real atoms of the batch and nothing else, so that padding costs nothing.

The molecules are packed in ascending order of size. Molecules of n atoms then stand next to each other, and a
bucket of b such molecules is a *view* (b, n, C) of the packed tensor: what couples atoms (attention, distances)
runs on those views, without masks and without a copy. That order is the layout's own affair: what has one row a
molecule is in EDM's order everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

ALL = slice(None)


class AtomLayout:
    """Where the real atoms of a padded batch are, and how they are packed.

    Args:
        node_mask: (B, N, 1) or (B, N), non-zero at real atoms, which may stand anywhere.

    Attributes:
        shape: (B, N) of the padded batch.
        buckets: pairs (b, n), ascending in n: b molecules of n atoms; the sum of b n is T.
        counts: (B, 1) number of atoms of each molecule, at least 1 and of the mask's dtype, to divide by.

    Building it reads the sizes on the host: the one time in a batch that the host waits for a device. Where there is
    nothing to read, on the ``meta`` device, every atom is taken for real.

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
        dtype = node_mask.dtype if node_mask.is_floating_point() else torch.get_default_dtype()
        real = node_mask != 0
        sizes = real.sum(1)
        self.counts = sizes.clamp(min=1).to(dtype)[:, None]
        self._sizes, order = sizes.sort(stable=True)  # as the molecules are packed
        on_host = [length] * batch if node_mask.is_meta else self._sizes.tolist()
        self.buckets = tuple((len(list(group)), n) for n, group in groupby(on_host))
        self.tokens = sum(on_host)
        places = _places(real[order], self.tokens)
        self._molecule = order[places // length]  # of each token
        self._index = self._molecule * length + places % length

    def pack(self, padded: Tensor) -> Tensor:
        """(B, N, C) -> (T, C), the rows of the real atoms."""
        return padded.flatten(0, 1).index_select(0, self._index)

    def unpack(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (B, N, C), zero on padding."""
        batch, length = self.shape
        padded = tokens.new_zeros(batch * length, tokens.shape[-1])
        return padded.index_copy(0, self._index, tokens).view(batch, length, -1)

    def split(self, tokens: Tensor) -> list[Tensor]:
        """(T, C) -> one view (b, n, C) a bucket."""
        parts = tokens.split([b * n for b, n in self.buckets])
        return [part.view(b, n, tokens.shape[-1]) for part, (b, n) in zip(parts, self.buckets, strict=True)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of :meth:`split`: tensors (b, n, C) -> (T, C)."""
        return torch.cat([p.reshape(b * n, p.shape[-1]) for p, (b, n) in zip(parts, self.buckets, strict=True)])

    def expand(self, molecules: Tensor, rows: slice = ALL) -> Tensor:
        """(B, C) -> (T, C): to each atom its molecule's row, for a slice of the atoms.

        (1, C) is returned as it is, to broadcast.
        """
        return molecules if molecules.shape[0] == 1 else molecules.index_select(0, self._molecule[rows])

    def add_to(self, molecules: Tensor, tokens: Tensor, rows: slice = ALL) -> Tensor:
        """The adjoint of :meth:`expand`: add the tokens of a slice of the atoms to their molecules' rows, in place."""
        if molecules.shape[0] == 1:
            return molecules.add_(tokens.sum(0, keepdim=True))
        return molecules.index_add_(0, self._molecule[rows], tokens)

    def mean(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (B, C): the mean over the atoms of each molecule."""
        zeros = tokens.new_zeros(self.shape[0], tokens.shape[1])
        return zeros.index_add(0, self._molecule, tokens) / self.counts.to(tokens.dtype)

    @property
    def exact(self) -> bool:
        """Whether work on pairs goes by :attr:`buckets` of one exact size, views without padding, or by :attr:`groups`.

        On a CPU the arithmetic on padding is what costs, elsewhere the number of kernels.
        """
        return self._molecule.device.type == "cpu"

    @cached_property
    def groups(self) -> list[PaddedGroup]:
        """The molecules in groups of similar size, ascending, for kernels that want few and large tensors.

        A group's smallest molecule has at least three quarters of the atoms of its largest.
        """
        groups: list[PaddedGroup] = []
        molecule, token = self.shape[0], self.tokens
        buckets = list(self.buckets)
        while buckets:
            longest = buckets[-1][1]
            if longest == 0:
                break
            last_molecule, last_token = molecule, token
            while buckets and 4 * buckets[-1][1] >= 3 * longest:
                count, n = buckets.pop()
                molecule, token = molecule - count, token - count * n
            sizes = self._sizes[molecule:last_molecule]
            groups.append(PaddedGroup(sizes, slice(token, last_token), longest))
        return groups[::-1]


class PaddedGroup:
    """Some molecules that are packed one after the other, padded to the largest of them.

    Args:
        sizes: (b,) their numbers of atoms.
        tokens: which of the packed atoms are theirs.
        longest: the largest of their sizes.

    Attributes:
        mask: (b, n) bool, true at real atoms.
    """

    def __init__(self, sizes: Tensor, tokens: slice, longest: int) -> None:
        device = sizes.device
        self._shape = (sizes.shape[0], longest)
        self.mask = torch.arange(longest, device=device) < sizes[:, None]
        self._place = _places(self.mask, tokens.stop - tokens.start)
        token = torch.arange(tokens.start, tokens.stop, device=device)
        self._token = torch.zeros(self.mask.numel(), dtype=torch.long, device=device).index_copy(0, self._place, token)

    def pad(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (b, n, C), any token's values on padding."""
        return tokens.index_select(0, self._token).view(*self._shape, -1)

    def real(self, padded: Tensor) -> Tensor:
        """(b, n, C) -> (t, C), the group's rows of a packed tensor."""
        return padded.flatten(0, 1).index_select(0, self._place)


def _places(real: Tensor, count: int) -> Tensor:
    """(B, N) -> (count,), where in the flattened batch the real atoms are.

    ``nonzero()`` would find them too, but would make the host wait to know how many.
    """
    return (~real).flatten().sort(stable=True).indices[:count]


class LayoutCache:
    """The layout of the last mask seen.

    EDM passes one and the same mask through all T denoising steps of a sampling run; its layout, and the host
    read that goes with it, are then needed once. Copies start empty, so that models stay cheap to copy and pickle.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, int | None, AtomLayout] | None = None

    def __call__(self, node_mask: Tensor) -> AtomLayout:
        # One read and one write of a tuple: DataParallel's replicas share this object between threads.
        last, version = self._last, _version(node_mask)
        if last is None or version is None or last[0] is not node_mask or last[1] != version:
            last = self._last = (node_mask, version, AtomLayout(node_mask))
        return last[2]

    def __deepcopy__(self, memo: dict[int, Any]) -> LayoutCache:
        return LayoutCache()

    def __reduce__(self) -> tuple[type[LayoutCache], tuple[()]]:
        return LayoutCache, ()


def _version(tensor: Tensor) -> int | None:
    """How often the tensor was written to in place; None where it does not say, as one of ``torch.inference_mode``.

    PyTorch has no public name for this counter.
    """
    try:
        return tensor._version  # noqa: SLF001
    except (AttributeError, RuntimeError):
        return None


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
