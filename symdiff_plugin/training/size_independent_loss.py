"""The size by which EDM's l2 loss of training divides a molecule's squared error.

Upstream it is the size that the batch is padded to, which makes the weight of a molecule depend on the rest of its
batch. Where batches are sorted by size (``main_geom_drugs.py --sequential``) it is what gives each molecule the
weight that it has on average in a shuffled batch; everywhere else it is upstream's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from symdiff_plugin.data.geom.batches import SizeBucketedBatches, expected_inverse_size


class PaddedSizes(nn.Module):
    """The size for each molecule of a batch, see :func:`~symdiff_plugin.data.geom.batches.expected_inverse_size`.

    Args:
        batches: of the training.
    """

    table: Tensor

    def __init__(self, batches: SizeBucketedBatches) -> None:
        super().__init__()
        inverse = expected_inverse_size(batches.sizes.numpy(), batches.batch_size)
        # A buffer, so that it follows the model to its devices; not one of those that are saved with it.
        self.register_buffer("table", torch.from_numpy(inverse).reciprocal().float(), persistent=False)
        self.batch_size = batches.batch_size
        self.whole = True  # whether the step's batch is; the short one is drawn as upstream draws it

    def forward(self, node_mask: Tensor) -> Tensor:
        """(B,) from a mask (B, N, 1)."""
        return self.table[node_mask.sum((1, 2)).long()]


def attach_sizes(diffusion: nn.Module, loader: DataLoader) -> None:
    """Give EDM's diffusion model the sizes that go with the batches of ``loader``, if it sorts them by size."""
    batches = loader.batch_sampler
    if isinstance(batches, SizeBucketedBatches) and len(batches.sizes) >= batches.batch_size:
        diffusion.padded_sizes = PaddedSizes(batches)


def begin_step(diffusion: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Tell the model what batch of training comes; before DataParallel cuts it up."""
    sizes = getattr(diffusion, "padded_sizes", None)
    if sizes is not None:
        sizes.whole = len(batch["atom_mask"]) == sizes.batch_size


def loss_size(diffusion: nn.Module, node_mask: Tensor) -> Tensor | int:
    """What the l2 loss divides by: (B,) for batches sorted by size, else N.

    Args:
        diffusion: EDM's diffusion model.
        node_mask: (B, N, 1).
    """
    sizes = getattr(diffusion, "padded_sizes", None)
    return sizes(node_mask) if sizes is not None and sizes.whole else node_mask.shape[1]
