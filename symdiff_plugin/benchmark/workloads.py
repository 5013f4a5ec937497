"""What is timed: a training step and a denoising call, on batches like those of EDM's runs.

QM9: real molecules of the validation set. GEOM-Drugs: numbers of atoms drawn from EDM's histogram, since the data are
not at hand; neither time nor memory depends on where the atoms are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from symdiff_plugin.benchmark.contenders import Model
from symdiff_plugin.data.plausible import NEEDED
from symdiff_plugin.data.store import load_split
from symdiff_plugin.edm import import_edm
from symdiff_plugin.training.optim import clip_gradients

# Training molecules of an epoch (QM9), conformers in EDM's split (GEOM-Drugs).
TRAINING_SET = {"qm9": 100_000, "geom": 5_538_014}


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    Attributes:
        label: what it is.
        dataset: ``qm9`` or ``geom``.
        training: a training step, padded to the largest molecule of the batch as EDM's loader does; or else one
            denoising call, padded as EDM's sampler does, to the largest molecule of the data set.
        molecules: in the batch.
    """

    label: str
    dataset: str
    training: bool
    molecules: int


WORKLOADS = {
    "qm9_train": Workload("QM9 training step", "qm9", True, 64),
    "qm9_call": Workload("QM9 denoising call", "qm9", False, 100),
    "geom_train": Workload("GEOM-Drugs training step", "geom", True, 16),
    "geom_call": Workload("GEOM-Drugs denoising call", "geom", False, 8),
}


@dataclass
class Batch:
    """Molecules as EDM's loaders give them: x (B, N, 3), atom types (B, N, C), charges (B, N, 1), masks."""

    x: Tensor
    one_hot: Tensor
    charges: Tensor
    node_mask: Tensor
    edge_mask: Tensor

    @property
    def atoms(self) -> int:
        return int(self.node_mask.sum())

    @property
    def length(self) -> int:
        return self.x.shape[1]


def molecules(workload: Workload, datadir: Path, dataset_info: dict[str, Any], seed: int = 0) -> list[np.ndarray]:
    """Atomic numbers and positions (n, 4) of the batch, drawn with ``seed``.

    Raises:
        ValueError: QM9 is not in ``datadir``; the message says how to get it.
    """
    generator = np.random.default_rng(seed)
    if workload.dataset == "qm9":
        data = load_split(datadir, "valid", NEEDED)
        rows = generator.choice(len(data["num_atoms"]), workload.molecules, replace=False)
        counts, charges, positions = (data[key][rows] for key in NEEDED)
        return [np.c_[z[:n], x[:n]] for n, z, x in zip(counts, charges, positions, strict=True)]
    sizes, counts = (np.array(list(column)) for column in zip(*dataset_info["n_nodes"].items(), strict=True))
    numbers = np.array(_numbers(dataset_info))
    drawn = generator.choice(sizes, workload.molecules, p=counts / counts.sum())
    return [np.c_[generator.choice(numbers, n), 2 * generator.standard_normal((n, 3))] for n in drawn]


def _numbers(dataset_info: dict[str, Any]) -> list[int]:
    """Atomic numbers of EDM's atom types; its description of QM9 leaves them out."""
    return dataset_info.get("atomic_nb", [1, 6, 7, 8, 9])


def padded(chosen: list[np.ndarray], dataset_info: dict[str, Any], length: int, charges: bool, device: Any) -> Batch:
    """A batch of molecules, padded to ``length`` atoms and centred."""
    numbers = torch.tensor(_numbers(dataset_info))
    z = torch.zeros(len(chosen), length, dtype=torch.long)
    x = torch.zeros(len(chosen), length, 3)
    for i, molecule in enumerate(chosen):
        n = len(molecule)
        z[i, :n] = torch.from_numpy(molecule[:, 0].astype(np.int64))
        x[i, :n] = torch.from_numpy(molecule[:, 1:] - molecule[:, 1:].mean(0)).float()
    mask = (z > 0).float()
    one_hot = F.one_hot((z[..., None] == numbers).long().argmax(-1), len(numbers)).float() * mask[..., None]
    edges = mask[:, :, None] * mask[:, None, :] * (1 - torch.eye(length))
    integer = (z.float() * mask)[..., None] if charges else torch.zeros(0)
    return Batch(*(t.to(device) for t in (x, one_hot, integer, mask[..., None], edges.flatten(1))))


@dataclass
class Step:
    """The work of one contender, ready to be run again and again.

    Attributes:
        run: all of it; a training step with clipping, optimiser and moving average, or a denoising call.
        network: of a training step, the loss and its gradients alone; of a call, the same as ``run``.
    """

    run: Callable[[], Any]
    network: Callable[[], Any]


def training_step(model: Model, batch: Batch) -> Step:
    """A step as EDM's ``train_epoch`` takes it, from the loss to the moving average."""

    diffusion, args = model.diffusion.train(), model.args
    average = copy.deepcopy(diffusion)
    ema = import_edm("equivariant_diffusion.utils").EMA(args.ema_decay)
    optimiser = import_edm("qm9.models").get_optim(args, diffusion)
    queue = import_edm("utils").Queue()
    queue.add(3000)
    losses = import_edm("qm9.losses")

    def network() -> Tensor:
        optimiser.zero_grad()
        h = {"categorical": batch.one_hot, "integer": batch.charges}
        loss, _, _ = losses.compute_loss_and_nll(
            args, diffusion, model.nodes_dist, batch.x, h, batch.node_mask, batch.edge_mask, None
        )
        loss.backward()
        return loss

    def run() -> None:
        loss = network()
        clip_gradients(args, diffusion, optimiser, queue, loss)
        optimiser.step()
        ema.update_model_average(average, diffusion)

    return Step(run, network)


def denoising_call(model: Model, batch: Batch) -> Step:
    """One step of EDM's sampler, from z_t to z_s, half-way through."""
    diffusion = model.diffusion.eval()
    device, count = batch.x.device, len(batch.x)
    z = diffusion.sample_combined_position_feature_noise(count, batch.length, batch.node_mask)
    edge_mask = batch.edge_mask.reshape(-1, 1)
    t = torch.full((1, 1), 0.5, device=device).expand(count, 1)  # as EDM's patched loop makes it
    s = t - 1 / diffusion.T

    @torch.no_grad()
    def run() -> None:
        diffusion.sample_p_zs_given_zt(s, t, z, batch.node_mask, edge_mask, None)

    return Step(run, run)


def prepare(workload: Workload, model: Model, chosen: list[np.ndarray], device: torch.device) -> tuple[Step, Batch]:
    """The workload for one contender, on the given molecules."""
    longest = max(map(len, chosen)) if workload.training else model.dataset_info["max_n_nodes"]
    batch = padded(chosen, model.dataset_info, longest, model.args.include_charges, device)
    return (training_step if workload.training else denoising_call)(model, batch), batch
