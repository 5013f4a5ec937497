"""Negative log-likelihood of held-out molecules, by EDM's estimator of its variational bound or a tighter one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.common.progress import progress
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.trained_run import TrainedRun
from symdiff_plugin.process.importance_bound import importance_weighted_nll
from symdiff_plugin.process.probabilistic_model import NO_LIKELIHOOD, has_likelihood

PARTITIONS = {"test": "Test", "val": "Validation"}


def negative_log_likelihood(
    run: TrainedRun,
    partition: str,
    n_molecules: int | None = None,
    batch_size: int | None = None,
    draws: int = 1,
) -> dict[str, Any]:
    """EDM's NLL of a partition, in nats a molecule: one draw of the time and of the noise for each molecule.

    For the plugin's models this is the bound of eq. (9), with one draw of R too; with more draws it is the tighter
    one of :mod:`symdiff_plugin.process.importance_bound`.

    Args:
        run: the run; its random numbers come from torch's global generator.
        partition: ``test`` or ``val``.
        n_molecules: take this many molecules, the same ones whatever the seed; all if not given.
        batch_size: molecules at once; the run's if not given.
        draws: K, draws of R a step, for K times the work; 1 is EDM's own estimator, unchanged.

    Returns:
        ``nll``, ``nll_standard_error`` (from the spread over molecules; None for a single one) and
        ``nll_molecules``. With more than one draw also ``nll_gain``, how much lower the estimate is than that of
        eq. (9) on the same draws, and ``nll_gain_standard_error``.

    Raises:
        EvaluationError: there is no such partition, or the run's process has no likelihood.
    """
    if not has_likelihood(run.args):
        raise EvaluationError(f"{run.folder}: {NO_LIKELIHOOD}")
    loader = partition_loader(run, partition, n_molecules, batch_size or run.args.batch_size)
    values, gains = [], []
    with torch.no_grad():
        for data in progress(loader, f"{PARTITIONS[partition]} NLL"):
            x, h, node_mask, edge_mask, context = batch_inputs(run, data)
            edges = edge_mask.view(len(x), -1)
            if draws == 1:
                nll = run.model(x, h, node_mask, edges, context)  # as in qm9.losses.compute_loss_and_nll
            else:
                nll, gain = importance_weighted_nll(run.model, x, h, node_mask, edges, context, draws)
                gains.append(gain)
            values.append(nll - run.nodes_dist.log_prob(node_mask.sum((1, 2)).long()))
    mean, error = _mean_and_error(torch.cat(values))
    found = {"nll": mean, "nll_standard_error": error, "nll_molecules": sum(map(len, values))}
    if gains:
        found["nll_gain"], found["nll_gain_standard_error"] = _mean_and_error(torch.cat(gains))
    return found


def _mean_and_error(values: torch.Tensor) -> tuple[float, float | None]:
    """The mean over the molecules and its standard error.

    The spread over batches would not do for the latter: GEOM-Drugs' batches are sorted by size, on which the NLL
    depends more than on anything else.
    """
    values = values.double()
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return values.mean().item(), error


def partition_loader(run: TrainedRun, partition: str, n_molecules: int | None, batch_size: int) -> DataLoader:
    """Batches of a partition in the order of the data: all of it, or ``n_molecules``, the same ones whatever the seed.

    Raises:
        EvaluationError: there is no such partition.
    """
    # EDM calls the validation partition of QM9 "valid" and that of GEOM-Drugs "val".
    name = {"test": "test", "val": "valid" if run.geom is None else "val"}.get(partition)
    if name is None:
        raise EvaluationError(f"there is no partition {partition!r}: choose test or val")
    loader = run.loaders[name]
    dataset: Any = loader.dataset
    if getattr(dataset, "perm", None) is not None:
        dataset.perm = None  # EDM shuffles at loading, with the seed: the subset below should not depend on it
    if n_molecules is None or n_molecules >= len(dataset):
        rows = torch.arange(len(dataset))
    else:
        rows = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:n_molecules].sort().values
    subset = Subset(dataset, rows.tolist())
    return DataLoader(subset, batch_size=batch_size, collate_fn=loader.collate_fn)


def batch_inputs(run: TrainedRun, data: dict[str, torch.Tensor]) -> tuple[Any, ...]:
    """A batch as EDM's test loop hands it to the model."""
    to: dict[str, Any] = {"device": run.device, "dtype": torch.float32}
    node_mask = data["atom_mask"].to(**to).unsqueeze(2)
    x = import_edm("equivariant_diffusion.utils").remove_mean_with_mask(data["positions"].to(**to), node_mask)
    charges = (data["charges"] if run.args.include_charges else torch.zeros(0)).to(**to)
    h = {"categorical": data["one_hot"].to(**to), "integer": charges}
    context = None
    if run.args.conditioning:
        prepare = import_edm("qm9.utils").prepare_context
        context = prepare(run.args.conditioning, data, run.property_norms).to(**to)
    return x, h, node_mask, data["edge_mask"].to(**to), context
