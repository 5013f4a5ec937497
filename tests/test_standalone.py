"""The example without EDM: its mathematics against oracles, and a few steps of it from end to end."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from molecules import CHARGES, MOLECULES
from rdkit import Chem
from torch import nn

from symdiff_plugin.data.splits import make_molecule, tabulate
from symdiff_plugin.data.store import save_splits
from symdiff_plugin.model.equivariance import NotEquivariantError
from symdiff_plugin.molecules.molecule import Molecule, read_xyz
from symdiff_plugin.molecules.perception import perceive

SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "standalone_qm9.py"
REAL = [Molecule(tuple(m["symbols"]), np.array(m["positions"])) for m in MOLECULES]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("standalone_qm9", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def datadir(tmp_path_factory) -> Path:
    """Real molecules of QM9 in EDM's layout; their properties, which the example ignores, are zero."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "qm9").mkdir()
    table = tabulate(
        (
            make_molecule(m["index"], m["symbols"], np.ravel(m["positions"]).tolist(), [0.0] * 15, [0.0])
            for m in MOLECULES
        ),
        len(MOLECULES),
    )
    save_splits(folder, {"train": table, "valid": table, "test": table})
    return folder


class KnowsTheAnswer(nn.Module):
    """The perfect network where the data are one molecule z_0: epsilon = (z_t - alpha_t z_0) / sigma_t."""

    def __init__(self, schedule, z_0):
        super().__init__()
        self.schedule, self.z_0 = schedule, z_0

    def forward(self, t, z_t, mask):
        index = (t.reshape(-1) * self.schedule.steps).round().long()
        alpha, sigma = self.schedule.alpha[index][:, None, None], self.schedule.sigma[index][:, None, None]
        return (z_t - alpha * self.z_0) / sigma * mask


def test_molecules_become_centred_positions_and_scaled_features(example, datadir):
    z_0, mask = example.load_molecules(datadir, "train")
    assert z_0.shape == (len(MOLECULES), 29, 9)
    by_index = sorted(MOLECULES, key=lambda m: m["index"])
    for row, real, molecule in zip(z_0, mask, by_index, strict=True):
        n = len(molecule["symbols"])
        assert real.squeeze().tolist() == [1.0] * n + [0.0] * (29 - n)
        assert not row[n:].any()
        centred = np.array(molecule["positions"]) - np.mean(molecule["positions"], axis=0)
        np.testing.assert_allclose(row[:n, :3], centred, atol=1e-5)
        assert [list(CHARGES)[i] for i in row[:n, 3:8].argmax(1)] == molecule["symbols"]
        np.testing.assert_allclose(row[:n, 3:8].sum(1), 0.25)
        np.testing.assert_allclose(10 * row[:n, 8], [CHARGES[s] for s in molecule["symbols"]], rtol=1e-6)


def test_the_schedule_is_polynomial_and_its_steps_compose(example):
    schedule = example.NoiseSchedule(100, torch.device("cpu"))
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(101))
    assert schedule.sigma[0].item() == pytest.approx(1e-5**0.5, rel=1e-2)
    assert schedule.alpha[50].item() == pytest.approx(1 - 0.5**2, rel=1e-4)
    assert schedule.alpha[100].item() == pytest.approx(1e-5**0.5, rel=1e-3)
    for t in (1, 2, 50, 99, 100):
        alpha, sigma = schedule.alpha.double(), schedule.sigma.double()
        scale, factor, sigma_q = schedule.step(t)
        # Bayes: precision of q(z_{t-1} | z_t, z_0) is that of q(z_t | z_{t-1}) seen from z_{t-1}, plus the prior's.
        alpha_ts = alpha[t] / alpha[t - 1]
        sigma2_ts = sigma[t] ** 2 - (alpha_ts * sigma[t - 1]) ** 2
        variance = 1 / (alpha_ts**2 / sigma2_ts + 1 / sigma[t - 1] ** 2)
        assert sigma_q**2 == pytest.approx(variance.item(), rel=1e-3)
        # Its mean at the z_t of a given epsilon, by eq. (13) and by Bayes.
        z_0, epsilon = 0.7, -1.3
        z_t = alpha[t] * z_0 + sigma[t] * epsilon
        mean = variance * (alpha_ts * z_t / sigma2_ts + alpha[t - 1] * z_0 / sigma[t - 1] ** 2)
        assert scale * z_t - factor * epsilon == pytest.approx(mean.item(), rel=1e-3, abs=1e-4)


def test_noise_is_centred_masked_and_normal(example):
    torch.manual_seed(0)
    mask = (torch.arange(6) < torch.tensor([[6], [4]])).float().unsqueeze(-1).repeat(5000, 1, 1)
    noise = example.centred_noise(mask)
    assert noise[1::2, 4:].abs().max() == 0
    assert noise[..., :3].sum(1).abs().max() < 1e-5
    for first, n in ((0, 6), (1, 4)):
        variance = noise[first::2, :n].var(dim=(0, 1))
        np.testing.assert_allclose(variance[:3], 1 - 1 / n, atol=0.03)  # a dimension in n is projected away
        np.testing.assert_allclose(variance[3:], 1, atol=0.04)


def test_the_perfect_network_has_no_loss_and_samples_the_molecule(example, datadir):
    torch.manual_seed(0)
    z_0, mask = example.load_molecules(datadir, "train")
    n = int(mask[-1].sum())
    z_0, mask = z_0[-1:, :n], mask[-1:, :n]
    schedule = example.NoiseSchedule(50, torch.device("cpu"))
    perfect = KnowsTheAnswer(schedule, z_0)
    assert example.diffusion_loss(perfect, schedule, z_0.repeat(64, 1, 1), mask.repeat(64, 1, 1)) < 1e-6
    wrong = KnowsTheAnswer(schedule, z_0 + 0.1)
    assert example.diffusion_loss(wrong, schedule, z_0.repeat(64, 1, 1), mask.repeat(64, 1, 1)) > 1e-3
    (molecule,) = example.sample(perfect, schedule, torch.tensor([n]))
    wanted = [list(CHARGES)[i] for i in z_0[0, :, 3:8].argmax(1)]
    assert list(molecule.symbols) == wanted
    np.testing.assert_allclose(molecule.positions, z_0[0, :, :3], atol=0.03)  # sigma_0 / alpha_0 = 0.003


def test_validity_finds_the_smiles_of_real_molecules_and_refuses_the_others(example):
    for molecule, record in zip(REAL, MOLECULES, strict=True):
        assert perceive(molecule).smiles == Chem.CanonSmiles(record["smiles"], useChiral=0)
        assert perceive(Molecule(molecule.symbols, 3 * molecule.positions)).smiles is None
        assert perceive(Molecule(molecule.symbols, np.nan * molecule.positions)).smiles is None
        without_an_atom = Molecule(molecule.symbols[:-1], molecule.positions[:-1])  # an H: a radical is left
        assert perceive(without_an_atom).smiles is None
    nowhere = Molecule(REAL[6].symbols, np.nan * REAL[6].positions)
    metrics, smiles, pieces = example.assess([REAL[4], REAL[4], REAL[5], nowhere])
    assert metrics == {"validity": 0.75, "uniqueness": pytest.approx(2 / 3), "connected": 0.75, "non_finite": 0.25}
    assert [one is None for one in smiles] == [False, False, False, True]
    assert pieces == [1, 1, 1, len(REAL[6])]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_short_run_leaves_its_results(datadir, tmp_path):
    out = tmp_path / "out"
    result = run(
        "--datadir", datadir, "--out", out, "--steps", 40, "--batch_size", 8, "--diffusion_steps", 10,
        "--n_samples", 6, "--lr", 5e-3, "--because", "no network",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "THIS IS NOT EDM: no network" in result.stdout
    assert f"written: metrics.json, molecules.xyz and samples.png in {out}" in result.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    curve = metrics["training_loss"]
    assert curve[-1]["step"] == 40
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    assert metrics["settings"]["n_samples"] == 6
    for name in ("validity", "uniqueness", "connected", "non_finite"):
        assert 0 <= metrics[name] <= 1
    molecules, comments = read_xyz(out / "molecules.xyz")
    assert len(molecules) == len(comments) == 6
    assert sum(comment != "not valid" for comment in comments) == round(6 * metrics["validity"])
    picture = imread(out / "samples.png")
    assert picture.shape[1] == 1600
    assert (picture[..., :3].min(axis=2) < 0.5).mean() > 0.002
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "molecules.xyz", "samples.png"]


def test_a_network_of_ones_own_in_its_place(example, datadir, tmp_path, monkeypatch, capsys):
    words = ["--datadir", datadir, "--out", tmp_path, "--model", "own", "--steps", 30, "--batch_size", 8]
    words += ["--diffusion_steps", 10, "--n_samples", 6, "--lr", 5e-3]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    example.main()
    printed = capsys.readouterr().out
    assert "own, " in printed
    assert "equivariant under O(3), by " in printed
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["training_loss"][-1]["loss"] < 0.8 * metrics["training_loss"][0]["loss"]
    assert len(read_xyz(tmp_path / "molecules.xyz")[0]) == 6


def test_the_example_sees_what_is_not_equivariant(example, datadir):
    torch.manual_seed(0)
    z_0, mask = example.load_molecules(datadir, "train")
    dynamics = example.OwnDynamics()
    plain = dynamics.symmetrised.network
    dynamics.symmetrised.forward = lambda x, *args, mask, **kwargs: plain(x, *args, mask=mask, **kwargs)
    with pytest.raises(NotEquivariantError):
        dynamics.check(z_0[:2], mask[:2])


def test_the_own_network_sees_no_padding(example, datadir):
    torch.manual_seed(0)
    z_0, mask = example.load_molecules(datadir, "train")
    n = int(mask[0].sum())
    network, t = example.Transformer(), torch.full((1, 1), 0.3)
    padded = network(z_0[:1, :, :3], z_0[:1, :, 3:], t, mask[:1])
    alone = network(z_0[:1, :n, :3], z_0[:1, :n, 3:], t, mask[:1, :n])
    for with_padding, without in zip(padded, alone, strict=True):
        torch.testing.assert_close(with_padding[:, :n], without, rtol=1e-4, atol=1e-5)
        assert not with_padding[:, n:].any()
    assert padded[0].sum(1).abs().max() < 1e-4


def test_a_wrong_datadir_is_one_line(tmp_path):
    result = run("--datadir", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "nowhere/qm9/train.npz is missing: make it with python -m symdiff_plugin.data.qm9" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["--n_samples", "0"], ["--minutes", "nan"], ["--model", "symdif"], ["--stpes", "3"]]
)
def test_a_wrong_argument_is_one_line(example, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as stop:
        example.parse_arguments()
    message = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(message.strip().splitlines()) == 1
    assert arguments[0] in message
