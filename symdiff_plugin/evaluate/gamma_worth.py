"""What gamma is of a trained model, and what it is worth: the training loss of held-out molecules without its parts.

The loss is EDM's in training, of a prediction at one random time for each molecule, so it is not the likelihood. Every
variant meets the same molecules, times, noise and draws of R0, and differences are taken molecule by molecule. The
spread is that over molecules; how another training would have come out it does not know.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from symdiff_plugin.evaluate.likelihood import batch_inputs, partition_loader
from symdiff_plugin.evaluate.trained_run import TrainedRun
from symdiff_plugin.model.dynamics import SymDiffDynamics
from symdiff_plugin.model.learned_gamma import (
    Rule,
    common_element,
    constant,
    draw_twice,
    gamma_figures,
    with_rotation,
)
from symdiff_plugin.training.arguments import seed_everything

MOLECULES = 1000
# The variants by their names in metrics.json.
LABELS = {
    "f_identity": "f = I, as in SymDiff-H",
    "f_constant": "f = the constant nearest to it",
    "R_identity": "R = I: not symmetrised",
}


def gamma_worth(run: TrainedRun, partition: str, n_molecules: int, batch_size: int, seed: int) -> dict[str, Any] | None:
    """The figures of gamma and the loss with and without it.

    Args:
        run: the run.
        partition: ``test`` or ``val``.
        n_molecules: of it, the same ones whatever the seed.
        batch_size: molecules at once.
        seed: of the times, the noise and the draws.

    Returns:
        None where the model has no gamma. Else ``loss`` of the model and, for every variant of ``LABELS`` that it has,
        ``loss_NAME`` and ``cost_NAME``, by how much that is higher, with its ``_standard_error``; ``molecules``; and,
        of a learned gamma, ``kind`` and the figures of :class:`symdiff_plugin.model.learned_gamma.GammaFigures`.
    """
    dynamics = run.model.dynamics
    if not isinstance(dynamics, SymDiffDynamics):
        return None
    found: dict[str, Any] = {}
    variants: dict[str, Rule] = {}
    loader = partition_loader(run, partition, n_molecules, batch_size)
    with _drawing(dynamics, seed) as draws:
        loss = _losses(run, loader, seed)
    if draws:
        first, second, raw = (torch.cat(parts) for parts in zip(*draws, strict=True))
        variants["f_identity"] = lambda R0: R0
        if len(first):
            figures = gamma_figures(first, second, raw)
            found = {"kind": figures.kind, **asdict(figures), "of_molecules": len(first)}
            variants["f_constant"] = constant(common_element(first))
    variants["R_identity"] = lambda R0: None
    found["loss"] = loss.mean().item()
    found["loss_molecules"] = len(loss)
    for name, rule in variants.items():
        without = _losses(run, loader, seed, rule)
        cost = without - loss
        found[f"loss_{name}"] = without.mean().item()
        found[f"cost_{name}"] = cost.mean().item()
        found[f"cost_{name}_standard_error"] = cost.std().item() / math.sqrt(len(cost)) if len(cost) > 1 else None
    return found


def gamma_lines(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The record of :func:`gamma_worth` as rows of a table."""
    lines = []
    if "kind" in record:
        note = ": this is SymDiff-H" if record["kind"] == "constant" else ""
        lines.append(
            (
                "Gamma",
                f"{record['kind']}{note}; f_theta turns by {record['draws']:.2f} degrees between draws, by "
                f"{record['molecules']:.2f} between molecules",
            )
        )
    for name, label in LABELS.items():
        if record.get(f"cost_{name}") is not None:  # JSON's NaN
            error = record[f"cost_{name}_standard_error"]
            spread = "" if error is None else f" +- {error:.5f}"
            lines.append((f"Loss with {label}", f"{record[f'cost_{name}']:+.5f}{spread} (of {record['loss']:.5f})"))
    return lines


def _losses(run: TrainedRun, loader: DataLoader, seed: int, rule: Rule | None = None) -> Tensor:
    """EDM's training loss of each molecule, float64 (M,); with ``rule`` in the place of gamma."""
    model, values = run.model, []
    replaced: AbstractContextManager[None] = (
        contextlib.nullcontext() if rule is None else with_rotation(model.dynamics, rule)
    )
    seed_everything(seed)
    model.training = True  # EDM's class alone: its loss. Its network stays in evaluation.
    try:
        with torch.no_grad(), replaced:
            for data in loader:
                x, h, node_mask, edge_mask, context = batch_inputs(run, data)
                values.append(model(x, h, node_mask, edge_mask.view(len(x), -1), context).double().cpu())
    finally:
        model.training = False
    return torch.cat(values)


@contextlib.contextmanager
def _drawing(dynamics: SymDiffDynamics, seed: int) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """Until the end of the block f_theta is drawn from twice more at each call, with random numbers of its own.

    Yields:
        What :func:`draw_twice` returns, an entry a call; it stays empty where there is no f_theta.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    if dynamics.f_theta is None:
        yield found
        return
    a = dynamics.architecture
    generator = torch.Generator(dynamics.f_theta.fc1.weight.device).manual_seed(seed)

    def keep(f_theta: Any, inputs: tuple[Any, ...]) -> None:
        # Not by calling f_theta, whose hook this is: draw_twice calls what is within it.
        features, t, layout = inputs
        found.append(draw_twice(f_theta, features, t, layout, a.noise_dims, a.noise_std, generator))

    hook = dynamics.f_theta.register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        hook.remove()
