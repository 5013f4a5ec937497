"""Samples of a run, by EDM's own sampler or another, in batches of molecules of about the same size.

EDM pads every batch to the largest size of the data set (29 atoms on QM9, 181 on GEOM-Drugs). Here all sizes are
drawn first and sorted, so that a batch needs padding to its own largest molecule only; EGNN, whose work grows with
the square of the padded length, gains most. The largest molecules come first: if memory is short, it shows at once.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symdiff_plugin.common.progress import counting
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.by_size import in_batches
from symdiff_plugin.evaluate.trained_run import TrainedRun
from symdiff_plugin.molecules.molecule import Molecule, from_padded
from symdiff_plugin.process.divergence import DivergenceGuard


@contextlib.contextmanager
def guarded(model: Any, tick: Callable[[], Any]) -> Iterator[DivergenceGuard]:
    """Put a :class:`DivergenceGuard` in the place of ``model.dynamics`` for the length of one batch."""
    dynamics = model.dynamics
    model.dynamics = DivergenceGuard(dynamics, tick)
    try:
        yield model.dynamics
    finally:
        model.dynamics = dynamics
        # EDM's EGNN keeps the edges of every shape of batch that it has ever met, and here each has its own.
        getattr(dynamics, "_edges_dict", {}).clear()


@dataclass(frozen=True)
class Samples:
    """Sampled molecules.

    Attributes:
        molecules: in Angstrom, in the order in which their sizes were drawn. One for which the network returned
            something not finite has NaN for its coordinates.
        context: (n_samples, n_properties), the normalised properties that were asked for; None for an unconditional
            model.
        batch_sizes: how many molecules were sampled at once, batch by batch.
        seconds: that all of it took.
    """

    molecules: list[Molecule]
    context: Tensor | None
    batch_sizes: list[int]
    seconds: float


def sample_molecules(run: TrainedRun, n_samples: int, batch_size: int) -> Samples:
    """Draw molecules, their sizes (and properties, for a conditional model) from EDM's distributions.

    Sizes, then properties, are drawn for all molecules before the first is sampled: they do not depend on the
    batches, while the molecules do. Where a GPU's memory does not suffice, the batch is halved, for good, and begun
    again with the random numbers of its first attempt: from there all is as with the smaller ``batch_size``.

    Args:
        run: the run; its random numbers come from torch's global generators.
        n_samples: how many.
        batch_size: how many at once; the last batch may be smaller.

    Raises:
        EvaluationError: a single molecule does not fit into the memory of the GPU.
    """
    start = time.monotonic()
    sizes = run.nodes_dist.sample(n_samples)
    context = None if run.prop_dist is None else run.prop_dist.sample_batch(sizes)
    with counting(f"Sampling {n_samples:,} molecules", n_samples, "molecules") as advance:
        molecules, batch_sizes = in_batches(
            sizes, batch_size, run.device,
            lambda batch: _sample_batch(run, sizes[batch], None if context is None else context[batch], advance),
        )  # fmt: skip
    return Samples(molecules, context, batch_sizes, time.monotonic() - start)


def _sample_batch(
    run: TrainedRun, sizes: Tensor, context: Tensor | None, advance: Callable[[float], None]
) -> list[Molecule] | None:
    """Molecules of the given sizes (B,) and properties (B, n_properties); None if the GPU's memory is too small."""
    # EDM pads to the largest size that the description of the data set allows, which only the release's models need.
    dataset_info = run.dataset_info
    if not getattr(run.model.dynamics, "depends_on_padding", False):
        dataset_info = {**dataset_info, "max_n_nodes": int(sizes.max())}
    part = len(sizes) / run.sampler.calls  # a call of the network brings all molecules on alike
    try:
        with (
            guarded(run.model, lambda: advance(part)) as dynamics,
            contextlib.redirect_stdout(io.StringIO()),
            torch.no_grad(),
        ):
            one_hot, _, x, node_mask = import_edm("qm9.sampling").sample(
                run.args, run.device, run.model, dataset_info,
                prop_dist=run.prop_dist, nodesxsample=sizes, context=context,
            )  # fmt: skip
    except torch.cuda.OutOfMemoryError:
        advance(-part * dynamics.calls)
        return None
    types = one_hot.argmax(dim=-1).cpu().numpy()
    mask = node_mask.squeeze(-1).cpu().numpy()
    return from_padded(dynamics.marked(x), types, mask, run.dataset_info["atom_decoder"])
