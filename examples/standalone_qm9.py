r"""SymDiff on QM9 in one file, without EDM: how to carry the plugin into a codebase of your own.

    python -m symdiff_plugin.data.qm9 --datadir data      # once: QM9 as npz files
    python examples/standalone_qm9.py --datadir data      # about four minutes on two CPU cores
    python examples/standalone_qm9.py --model own         # your network in SymDiff's place, made equivariant

The only part of the model that comes from the plugin is the network that, given a noisy molecule and a time, predicts
the noise: ``build_dynamics`` gives the paper's, symmetrised by gamma_theta; ``Symmetrised`` makes one of any network,
here of a transformer in fifteen lines. All the rest of a diffusion model is below. Equations and algorithms are those
of Zhang et al. (2024); the diffusion is EDM's (Hoogeboom et al., 2022).

    z_0 = [x, h]     positions x with zero centre of mass, and scaled features h: atom type, atomic number
    q(z_t | z_0) = N(alpha_t z_0, sigma_t^2)      t = 0, ..., T;   sigma_t^2 = 1 - alpha_t^2
    alpha_{t|s} = alpha_t / alpha_s,   sigma_{t|s}^2 = 1 - alpha_{t|s}^2

This is not EDM: it has EDM's diffusion, but neither its bond rules, hence its stability metrics, nor its likelihood.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from symdiff_plugin import PRESETS, Symmetrised, build_dynamics, check_equivariance
from symdiff_plugin.common.command_line import OneLineParser
from symdiff_plugin.common.files import write_json
from symdiff_plugin.common.kinds import SAMPLES, SEED, real, whole
from symdiff_plugin.data import DataError, load_split
from symdiff_plugin.molecules.molecule import Molecule, from_padded, write_xyz
from symdiff_plugin.molecules.perception import perceive, perceived_fractions
from symdiff_plugin.molecules.picture import write_picture

SYMBOLS, ATOMIC_NUMBERS = ("H", "C", "N", "O", "F"), (1, 6, 7, 8, 9)
TYPE_SCALE, NUMBER_SCALE = 4.0, 10.0  # EDM divides the features by these (normalize_factors [1, 4, 10])
NF = len(SYMBOLS) + 1


def load_molecules(datadir: str, split: str, max_atoms: int = 29) -> tuple[Tensor, Tensor]:
    """A split of QM9, or its smaller molecules, as z_0 (B, N, 3 + NF) and the node mask (B, N, 1)."""
    arrays = load_split(datadir, split)
    small = arrays["num_atoms"] <= max_atoms
    if not small.any():
        raise DataError(f"{datadir} has no molecule of at most {max_atoms} atoms: raise --max_atoms")
    arrays = {name: values[small] for name, values in arrays.items()}
    numbers = torch.from_numpy(arrays["charges"])  # (B, N), 0 on padding
    mask = (numbers > 0).float().unsqueeze(-1)
    x = remove_mean(torch.from_numpy(arrays["positions"]).float(), mask)
    types = (numbers.unsqueeze(-1) == torch.tensor(ATOMIC_NUMBERS)).float()  # (B, N, 5)
    return torch.cat([x, types / TYPE_SCALE, numbers.unsqueeze(-1) / NUMBER_SCALE], dim=-1), mask


def remove_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Move the centre of mass of the real atoms to the origin; x (B, N, 3), zero on padding."""
    return (x - x.sum(1, keepdim=True) / mask.sum(1, keepdim=True)) * mask


def centred_noise(mask: Tensor) -> Tensor:
    """epsilon ~ N_U(0, I), (B, N, 3 + NF): normal, without centre of mass in x, zero on padding."""
    noise = torch.randn(*mask.shape[:2], 3 + NF, device=mask.device) * mask
    return torch.cat([remove_mean(noise[..., :3], mask), noise[..., 3:]], dim=-1)


class Transformer(nn.Module):
    """A network of one's own, which knows nothing of rotations: PyTorch's transformer over the atoms."""

    def __init__(self, width: int = 96, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(3 + NF + 1, width)
        block = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.read_out = nn.Linear(width, 3 + NF)

    def forward(self, x: Tensor, h: Tensor, t: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The noise of x (B, N, 3) and of h (B, N, NF), at the times t (B, 1) in [0, 1]."""
        times = t.reshape(-1, 1, 1).expand(*x.shape[:2], 1)
        z = self.blocks(self.embed(torch.cat([x, h, times], dim=-1)), src_key_padding_mask=mask.squeeze(-1) == 0)
        out = self.read_out(z) * mask
        return remove_mean(out[..., :3], mask), out[..., 3:]


class OwnDynamics(nn.Module):
    """That network, symmetrised by the Haar measure (Theorem 1), and called as the models of ``build_dynamics`` are."""

    def __init__(self) -> None:
        super().__init__()
        self.symmetrised = Symmetrised(Transformer(), group="O(3)", returns=("vector", "invariant"))

    def forward(self, t: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        return torch.cat(self.symmetrised(z[..., :3], z[..., 3:], t, mask=mask), dim=-1)

    def check(self, z: Tensor, mask: Tensor) -> str:
        """That it is equivariant at the molecules z: by the moments of its outputs, and by coupled draws."""
        t = torch.rand(len(z), 1, device=z.device)
        found = check_equivariance(self.symmetrised, z[..., :3], z[..., 3:], t, mask=mask, draws=1024)
        return f"equivariant under {found.group}, by {found.comparisons} moments of {found.draws:,} draws"


class NoiseSchedule:
    """EDM's polynomial_2: alpha_t^2 = (1 - 2s) (1 - (t/T)^2)^2 + s, with s = 1e-5."""

    def __init__(self, steps: int, device: torch.device, precision: float = 1e-5) -> None:
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        alpha2 = (1 - 2 * precision) * (1 - t**2) ** 2 + precision
        self.steps = steps
        self.alpha = alpha2.sqrt().float().to(device)  # (T + 1,)
        self.sigma = (1 - alpha2).sqrt().float().to(device)

    def step(self, t: int) -> tuple[float, float, float]:
        """What a step from t to t - 1 needs: 1 / alpha_{t|t-1}, the factor of epsilon, sigma_q(t)."""
        alpha, sigma, sigma_s = self.alpha[t].item(), self.sigma[t].item(), self.sigma[t - 1].item()
        alpha_ts = alpha / self.alpha[t - 1].item()
        sigma2_ts = sigma**2 - alpha_ts**2 * sigma_s**2
        return 1 / alpha_ts, sigma2_ts / (alpha_ts * sigma), math.sqrt(sigma2_ts) * sigma_s / sigma


def diffusion_loss(dynamics: nn.Module, schedule: NoiseSchedule, z_0: Tensor, mask: Tensor) -> Tensor:
    """Algorithm 1: eq. (14) with w(t) = 1, as a mean over atoms and columns; t = 0 trains the last step too."""
    t = torch.randint(0, schedule.steps + 1, (len(z_0), 1), device=z_0.device)
    epsilon = centred_noise(mask)
    z_t = schedule.alpha[t].unsqueeze(-1) * z_0 + schedule.sigma[t].unsqueeze(-1) * epsilon
    # Lines 3 to 5: R_0 and eta are drawn, f_theta and epsilon_theta evaluated, and R . epsilon_theta returned.
    predicted = dynamics(t / schedule.steps, z_t, mask)
    return ((epsilon - predicted) ** 2).sum() / (mask.sum() * (3 + NF))


@torch.no_grad()
def sample(dynamics: nn.Module, schedule: NoiseSchedule, sizes: Tensor) -> list[Molecule]:
    """Algorithm 2: one molecule for every number of atoms in ``sizes`` (B,)."""
    device = schedule.alpha.device
    mask = (torch.arange(int(sizes.max())) < sizes[:, None]).float().unsqueeze(-1).to(device)
    z = centred_noise(mask)  # line 1
    for t in tqdm(range(schedule.steps, 0, -1), desc="Sampling", unit="step", mininterval=0.5):
        scale, factor, sigma_q = schedule.step(t)
        predicted = dynamics(torch.full((1,), t / schedule.steps, device=device), z, mask)  # lines 3, 4
        z = scale * z - factor * predicted + sigma_q * centred_noise(mask)  # line 5, the mean is eq. (13)
        z = torch.cat([remove_mean(z[..., :3], mask), z[..., 3:]], dim=-1)  # against the drift of rounding
    # p(x, h | z_0) (Appendix C.1): x is normal about the denoised positions, h the most probable type.
    alpha, sigma = schedule.alpha[0], schedule.sigma[0]
    predicted = dynamics(torch.zeros(1, device=device), z, mask)
    x = (z - sigma * predicted)[..., :3] / alpha + sigma / alpha * centred_noise(mask)[..., :3]
    types = z[..., 3 : 3 + len(SYMBOLS)].argmax(dim=-1)
    return from_padded(x.cpu().numpy(), types.cpu().numpy(), mask[..., 0].cpu().numpy(), SYMBOLS)


def train(
    dynamics: nn.Module, schedule: NoiseSchedule, z_0: Tensor, mask: Tensor, arguments: argparse.Namespace
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train until ``--steps`` or ``--minutes`` are used up; returns the averaged model and the loss curve."""
    average = copy.deepcopy(dynamics).requires_grad_(False)
    optimiser = torch.optim.AdamW(dynamics.parameters(), lr=arguments.lr, weight_decay=1e-12, amsgrad=True)
    device, curve, recent = schedule.alpha.device, [], []
    start, used, step = time.monotonic(), 0.0, 0
    bar = tqdm(total=100, desc="Training", unit="%", bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")
    while used < 1:
        rows = torch.randint(0, len(z_0), (arguments.batch_size,))
        longest = int(mask[rows].sum(1).max())
        loss = diffusion_loss(dynamics, schedule, z_0[rows, :longest].to(device), mask[rows, :longest].to(device))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(dynamics.parameters(), 2.0)
        warm_up = min(1.0, (step + 1) / 100)
        optimiser.param_groups[0]["lr"] = arguments.lr * warm_up * (1 - used)
        optimiser.step()
        step += 1
        decay = min(arguments.ema_decay, (1 + step) / (10 + step))  # short memory at first
        for slow, fast in zip(average.parameters(), dynamics.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - decay)
        recent.append(loss.item())
        used = max(step / arguments.steps, (time.monotonic() - start) / (60 * arguments.minutes))
        if used >= (len(curve) + 1) / 10 or used >= 1:  # ten points, then the last
            curve.append({"step": step, "loss": sum(recent) / len(recent)})
            tqdm.write(f"  step {step:6,d}   training loss {curve[-1]['loss']:.4f}", file=sys.stdout)
            recent = []
        bar.update(min(100, round(100 * used)) - bar.n)
        bar.set_postfix_str(f"step {step:,}, loss {loss.item():.3f}", refresh=False)
    bar.close()
    return average, curve


def assess(molecules: list[Molecule]) -> tuple[dict[str, float], list[str | None], list[int]]:
    """Fractions of the samples, each one's SMILES (None: not valid), and into how many pieces it falls."""
    perceived = [perceive(molecule) for molecule in molecules]
    return perceived_fractions(perceived), [one.smiles for one in perceived], [one.pieces for one in perceived]


def parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description="SymDiff on QM9 without EDM: train, sample, judge, draw.")
    add = parser.add_argument
    add("--datadir", default="data", help="where python -m symdiff_plugin.data.qm9 put QM9 (%(default)s)")
    add("--out", type=Path, default=Path("outputs/standalone"), help="folder of the results (%(default)s)")
    # None of those that turn the data or start from another model's weights.
    models = ["own", *(name for name, p in PRESETS.items() if not (p.training.data_augmentation or p.starts_from))]
    words = "a preset's name, or own: the transformer of this file (%(default)s)"
    add("--model", default="symdiff_tiny", choices=models, metavar="PRESET|own", help=words)
    add("--steps", type=whole(), default=2000, help="training ends after this many steps (%(default)s) ...")
    add("--minutes", type=real("(0, inf)"), default=4.0, help="... or after this time, on a slow machine (%(default)s)")
    add("--max_atoms", type=whole(), default=15, help="learn molecules up to this size; 29 is all of QM9 (%(default)s)")
    add("--batch_size", type=whole(), default=40, help="molecules a training step (%(default)s)")
    add("--lr", type=real("(0, inf)"), default=3e-3, help="learning rate, falling linearly to zero (%(default)s)")
    add("--ema_decay", type=real("[0, 1)"), default=0.99, help="of the averaged weights that sample (%(default)s)")
    add("--diffusion_steps", type=whole(1, 1_000_000), default=250, help="T; the paper has 1000 (%(default)s)")
    add("--n_samples", type=SAMPLES, default=100, help="molecules to sample (%(default)s)")
    add("--seed", type=SEED, default=0, help="(%(default)s)")
    add("--because", default="", metavar="TEXT", help="why this runs in place of EDM; printed in a banner")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.because:
        print("=" * 100 + f"\nTHIS IS NOT EDM: {arguments.because}\nThe standalone example runs instead; its "
              "numbers do not compare with EDM's.\n" + "=" * 100)  # fmt: skip
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    z_0, mask = load_molecules(arguments.datadir, "train", arguments.max_atoms)
    own = arguments.model == "own"
    dynamics = (OwnDynamics() if own else build_dynamics(arguments.model, in_node_nf=NF)).to(device)
    schedule = NoiseSchedule(arguments.diffusion_steps, device)
    size = sum(parameter.numel() for parameter in dynamics.parameters())
    print(f"{len(z_0):,} molecules of at most {arguments.max_atoms} atoms on {device}; "
          f"{arguments.model}, {size:,} parameters")  # fmt: skip
    if own:
        print(dynamics.check(z_0[:2].to(device), mask[:2].to(device)))

    average, curve = train(dynamics, schedule, z_0, mask, arguments)
    average.eval()
    sizes = mask.sum((1, 2)).long()[torch.randint(0, len(mask), (arguments.n_samples,))]
    start = time.monotonic()
    molecules = sample(average, schedule, sizes)
    seconds = (time.monotonic() - start) / len(molecules)
    metrics, smiles, pieces = assess(molecules)

    settings = {key: str(value) if key == "out" else value for key, value in vars(arguments).items()}
    write_json(arguments.out / "metrics.json", {
        "note": "standalone example, not EDM: validity is RDKit's DetermineBondOrders on distance bonds",
        **metrics, "seconds_per_sample": seconds, "training_loss": curve, "parameters": size, "settings": settings,
    })  # fmt: skip
    write_xyz(arguments.out / "molecules.xyz", molecules, [one or "not valid" for one in smiles])
    shown = sorted(range(len(molecules)), key=lambda i: (smiles[i] is None, pieces[i]))[:20]
    n_valid = sum(one is not None for one in smiles)
    write_picture(
        arguments.out / "samples.png",
        [molecules[i] for i in shown],
        [("valid", True) if smiles[i] else ("not valid", False) for i in shown],
        f"{len(shown)} of {len(molecules)} samples, valid ones first ({n_valid} of {len(molecules)} are valid)",
    )
    print(f"training loss {curve[0]['loss']:.4f} at first, {curve[-1]['loss']:.4f} at the end")
    print("".join(f"{name:12s} {value:7.1%}\n" for name, value in metrics.items()), end="")
    print(f"written: metrics.json, molecules.xyz and samples.png in {arguments.out}")


if __name__ == "__main__":
    try:
        main()
    except (DataError, OSError) as error:
        print(f"standalone_qm9.py: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_status", 1))
