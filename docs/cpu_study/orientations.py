"""How much of a model's likelihood is knowledge of QM9's orientations: its errors on molecules as stored and turned.

    python docs/cpu_study/orientations.py outputs/dit_tiny outputs/dit_aug_tiny ... --datadir data

QM9's coordinates are not isotropic: they come from the programs that built and relaxed the molecules. A model that is
not equivariant can predict noise, and so gain likelihood, from the orientation alone, which no metric of a sampled
molecule rewards; one whose distribution is O(3)-invariant cannot. For every run, the error of its noise prediction on
test molecules as stored, and with one Haar rotation or reflection each, noise and all, at the same times t ~ U{1..T}:

    loss    |eps - eps_hat|^2 / (2 N (3 + nf)), much as the training loss
    nats    T w(t) / 2 |eps - eps_hat|^2, EDM's estimate of sum_t L_t, the bound's diffusion part

and the paired difference, turned minus stored, each with its standard error over the draws.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from symdiff_plugin.common.progress import progress
from symdiff_plugin.data.schema import CHARGES
from symdiff_plugin.model.groups import sample_haar
from symdiff_plugin.model.symmetrisation import act
from symdiff_plugin.packed.atoms import remove_mean
from symdiff_plugin.pretrained import Pretrained, load
from symdiff_plugin.pretrained.export import export
from symdiff_plugin.process.diffusion import centred_noise


def read(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Centred positions (B, N, 3) in Angstrom, charges (B, N) and the node mask (B, N, 1) of QM9's arrays."""
    with np.load(path) as arrays:
        charges = torch.from_numpy(arrays["charges"]).long()
        positions = torch.from_numpy(arrays["positions"]).float()
    mask = (charges > 0).float().unsqueeze(-1)
    return remove_mean(positions * mask, mask), charges, mask


def anisotropy(x: Tensor, charges: Tensor) -> str:
    """Second moments, and where the heavy atoms lie, each of them zero or alike on all axes if isotropic."""
    second = x.square().sum(1)
    heavy = (x * (charges > 1).unsqueeze(-1)).sum(1)
    rows = (("sum over atoms of x^2, y^2, z^2 (A^2)", second), ("sum over heavy atoms of x, y, z (A)", heavy))
    return "\n".join(
        f"{name}: " + ", ".join(f"{m:.2f} +- {s / len(x) ** 0.5:.2f}" for m, s in zip(v.mean(0), v.std(0), strict=True))
        for name, v in rows
    )


@torch.no_grad()
def errors(model: Pretrained, x: Tensor, h: Tensor, mask: Tensor, batch_size: int) -> dict[str, Tensor]:
    """``loss`` and ``nats`` of every molecule, (B, 2): as stored and turned."""
    gamma, steps = model.schedule.gamma, model.schedule.steps
    found: dict[str, list[Tensor]] = {"loss": [], "nats": []}
    for rows in progress(torch.arange(len(x)).split(batch_size), "Errors"):
        t = torch.randint(1, steps + 1, (len(rows), 1))
        m, g = mask[rows], gamma[t].unsqueeze(-1)
        noise = centred_noise(m, h.shape[-1])
        z = (-g).sigmoid().sqrt() * torch.cat([x[rows], h[rows]], -1) + g.sigmoid().sqrt() * noise
        weight = torch.expm1(gamma[t].double() - gamma[t - 1].double()).squeeze(-1)
        R = sample_haar(len(rows))
        squares = []
        for turn in (torch.eye(3).expand_as(R), R):
            turned, eps = (torch.cat([act(turn, v[..., :3]), v[..., 3:]], -1) for v in (z, noise))
            prediction = model.dynamics._forward(t / steps, turned, m)
            squares.append((prediction - eps).double().square().sum((1, 2)))
        square = torch.stack(squares, -1)
        found["loss"].append(square / (2 * m.sum((1, 2)).unsqueeze(-1) * (3 + h.shape[-1])))
        found["nats"].append(steps * weight.unsqueeze(-1) / 2 * square)
    return {key: torch.cat(values) for key, values in found.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Errors on QM9's test molecules as stored and turned.")
    parser.add_argument("runs", type=Path, nargs="+", help="outputs/NAME of the plugin's models")
    parser.add_argument("--datadir", type=Path, default=Path("data"))
    parser.add_argument("--draws", type=int, default=1, help="times and noises a molecule (%(default)s)")
    parser.add_argument("--batch_size", type=int, default=128)
    options = parser.parse_args()

    x, charges, mask = read(options.datadir / "qm9" / "test.npz")
    print(anisotropy(x, charges), flush=True)
    types = (charges.unsqueeze(-1) == torch.tensor(list(CHARGES.values()))).float()
    for run in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            export(run, "model", Path(folder))
            model = load("model", folder=Path(folder))
        position_scale, of_types, of_charges = model.card["normalize_factors"]
        h = torch.cat([types / of_types, charges.unsqueeze(-1) / of_charges], -1)
        torch.manual_seed(0)
        print(run, flush=True)
        draws = [errors(model, x / position_scale, h, mask, options.batch_size) for _ in range(options.draws)]
        for key, n in (("loss", 5), ("nats", 2)):
            values = torch.cat([draw[key] for draw in draws])
            columns = torch.cat([values, values[:, 1:] - values[:, :1]], -1)
            mean, error = columns.mean(0).tolist(), (columns.std(0) / len(columns) ** 0.5).tolist()
            words = zip(("stored", "turned", "difference"), mean, error, strict=True)
            print(f"  {key}: " + ", ".join(f"{w} {a:.{n}f} +- {b:.{n}f}" for w, a, b in words), flush=True)


if __name__ == "__main__":
    main()
