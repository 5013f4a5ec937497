"""Batches of real QM9 molecules for the tests, as EDM hands them to its dynamics."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from symdiff_plugin import build_dynamics

CHARGES = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
SIZES = {"depth": 2, "enc_depth": 2}
MOLECULES = json.loads((Path(__file__).parents[1] / "files" / "qm9_molecules.json").read_text())


def qm9_batch(
    count: int = 8, length: int | None = None, dtype: torch.dtype = torch.float64, seed: int = 0, noise: float = 0.3
) -> tuple[Tensor, Tensor, Tensor]:
    """A batch (t, xh, node_mask) of ``count`` molecules of 3 to 29 atoms: positions, one-hot types, charges.

    The molecules stand in a shuffled order, always the same for one ``count``: in order of size, which is the order in
    which :class:`symdiff_plugin.packed.atoms.AtomLayout` packs them, nothing would tell when molecules are mixed up.

    Values are scaled as in EDM's runs ([1, 4, 10]), with ``noise`` added, centred and masked, so that no coordinate
    is special.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(18)).tolist()
    chosen = [MOLECULES[i * len(MOLECULES) // count] for i in order]
    length = length or max(len(m["symbols"]) for m in chosen)
    xh = torch.zeros(count, length, 9, dtype=dtype)
    mask = torch.zeros(count, length, 1, dtype=dtype)
    for i, molecule in enumerate(chosen):
        n = len(molecule["symbols"])
        mask[i, :n] = 1
        x = torch.tensor(molecule["positions"], dtype=dtype)
        z = torch.tensor([CHARGES[s] for s in molecule["symbols"]])
        one_hot = (z[:, None] == torch.tensor(list(CHARGES.values()))).to(dtype)
        values = torch.cat([x, one_hot / 4, z[:, None].to(dtype) / 10], dim=-1)
        values = values + noise * torch.randn(n, 9, generator=generator, dtype=torch.float64).to(dtype)
        values[:, :3] -= values[:, :3].mean(0)
        xh[i, :n] = values
    t = torch.rand(count, 1, generator=generator, dtype=torch.float64).to(dtype)
    return t, xh, mask


def randomise(model: nn.Module, std: float = 0.15, seed: int = 0) -> nn.Module:
    """Gives every parameter a generic value: at the start a DiT predicts zero, which would test nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("means", "stds")):
                continue
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(p + std * noise.to(p.dtype))
    return model


def model_and_batch(name="symdiff_tiny", context=0, length=None, **overrides):
    """A shallow model of the preset with random weights, and a batch (t, xh, node_mask, context) of QM9, in float64."""
    torch.manual_seed(0)
    model = randomise(build_dynamics(name, 6, context_node_nf=context, **{**SIZES, **overrides}).double())
    t, xh, mask = qm9_batch(length=length)
    extra = torch.randn(*xh.shape[:2], context, dtype=xh.dtype) * mask if context else None
    return model, t, xh, mask, extra
