"""With EDM's own model a patched run equals upstream's to the last bit.

Upstream runs from an export of the pinned commit, mended no further than it takes to run: a ``wandb`` of a few
lines, which also seeds (upstream has no seed) and keeps the losses, the cache of SMILES that upstream makes
at its first analysis, drawing random numbers for it, and for its visualisation, which draws more at every tested
epoch but the first, our patch for today's matplotlib, and as few frames of a chain as there are diffusion steps.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch
from runs import Workplace

from symdiff_plugin.edm import PINNED_SHA, Edm
from symdiff_plugin.edm.git import git
from symdiff_plugin.process import probabilistic_model, sampler
from symdiff_plugin.training.history import read_rows

pytestmark = pytest.mark.edm

SEED = 5
FLAGS = (
    "--model", "egnn_dynamics", "--nf", 16, "--n_layers", 2, "--diffusion_steps", 8, "--batch_size", 64,
    "--n_epochs", 4, "--test_epochs", 2, "--n_stability_samples", 20, "--n_report_steps", 1, "--no_wandb",
    "--exp_name", "egnn", "--data_augmentation", "True", "--augment_noise", 0.01, "--lr", 1e-3,
)  # fmt: skip
WANDB = f"""
import json, random
import numpy, torch
random.seed({SEED}); numpy.random.seed({SEED}); torch.manual_seed({SEED})
class Settings:
    def __init__(self, **kwargs): pass
def init(**kwargs): pass
def save(*args): pass
def Image(*args, **kwargs): return None
Video = Image
def log(record, **kwargs):
    with open("logged.jsonl", "a") as file:
        row = {{key: float(value) for key, value in record.items() if not isinstance(value, list)}}
        file.write(json.dumps(row) + "\\n")
"""


@pytest.fixture(scope="module")
def upstream(edm_path: Path, qm9_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A finished run of EDM as it is at the pinned commit."""
    source = tmp_path_factory.mktemp("upstream")
    assert PINNED_SHA in git("rev-parse", "HEAD", cwd=edm_path).decode()
    git("checkout-index", "--all", f"--prefix={source / 'edm'}/", cwd=edm_path)  # the index is not patched
    assert "symdiff" not in (source / "edm" / "main_qm9.py").read_text()
    git("apply", Edm().patches / "todays-packages.patch", cwd=source / "edm")
    sampling = source / "edm/qm9/sampling.py"
    sampling.write_text(sampling.read_text().replace("keep_frames=100", "keep_frames=flow.T"))
    (source / "standin").mkdir()
    (source / "standin" / "wandb.py").write_text(WANDB)
    place = Workplace(source / "work", source / "edm")
    (place.folder / "qm9/temp").mkdir(parents=True)
    with open(place.folder / "qm9/temp/qm9_smiles.pickle", "wb") as file:
        pickle.dump(["C"], file)
    place.run("main_qm9.py", *FLAGS, "--datadir", qm9_slice, python_path=source / "standin")
    return place


@pytest.fixture(scope="module")
def patched(workplace: Workplace, qm9_slice: Path) -> Workplace:
    workplace.run("main_qm9.py", *FLAGS, "--datadir", qm9_slice, "--seed", SEED)
    return workplace


def test_every_loss_is_upstreams(upstream: Workplace, patched: Workplace) -> None:
    logged = read_rows(upstream.folder / "logged.jsonl")
    expected = [row["Batch NLL"] for row in logged if "Batch NLL" in row]
    assert len(expected) == 16
    assert (upstream.output("egnn") / "epoch_2_0/chain").is_dir()
    assert [row["loss"] for row in read_rows(patched.output("egnn") / "train_loss.jsonl")] == expected
    epochs = read_rows(patched.output("egnn") / "history.jsonl")
    for ours, theirs in (("val_nll", "Val loss "), ("test_nll", "Test loss "), ("atm_stable", "atm_stable")):
        *found, last = [row[ours] for row in epochs if ours in row]
        assert found == [row[theirs] for row in logged if theirs in row]  # upstream does not test the last epoch
        assert len(found) == 2
        assert math.isfinite(last)


def test_every_weight_is_upstreams(upstream: Workplace, patched: Workplace) -> None:
    for name in ("generative_model_0.npy", "generative_model_2.npy", "generative_model_ema_2.npy"):
        ours, theirs = (torch.load(place.output("egnn") / name, weights_only=True) for place in (patched, upstream))
        assert ours.keys() == theirs.keys()
        assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


SAMPLE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from egnn.models import EGNN_dynamics_QM9
from equivariant_diffusion.en_diffusion import EnVariationalDiffusion
found = []
for mode, schedule, nf in (("egnn_dynamics", "polynomial_2", 2), ("gnn_dynamics", "learned", 0)):
    torch.manual_seed(3)
    network = EGNN_dynamics_QM9(7, nf, 3, hidden_nf=16, n_layers=2, mode=mode, attention=True, tanh=True)
    loss = "vlb" if schedule == "learned" else "l2"
    model = EnVariationalDiffusion(network, 6, 3, 12, noise_schedule=schedule, loss_type=loss, norm_values=(1, 4, 10))
    for sizes in ([3, 5, 2], [4]):
        mask = (torch.arange(5) < torch.tensor(sizes)[:, None]).float()
        edges = mask[:, :, None] * mask[:, None] * (1 - torch.eye(5))
        context = torch.randn(len(sizes), 5, nf) * mask[..., None] if nf else None
        inputs = mask[..., None], edges.view(-1, 1), context
        for fix_noise in (False, True):
            x, h = model.sample(len(sizes), 5, *inputs, fix_noise=fix_noise)
            found += [x, h["categorical"], h["integer"]]
        found.append(model.sample_chain(len(sizes), 5, *inputs, keep_frames=4))
torch.save(found, "samples.pt")
"""


def test_every_sample_is_upstreams(upstream: Workplace, patched: Workplace) -> None:
    samples = []
    for place in (upstream, patched):
        (place.folder / "sample.py").write_text(SAMPLE)
        Workplace(place.folder, place.folder).run("sample.py", place.edm)
        samples.append(torch.load(place.folder / "samples.pt", weights_only=True))
    assert len(samples[0]) == 28
    assert all(torch.isfinite(sample).all() for sample in samples[0])
    assert [i for i, (a, b) in enumerate(zip(*samples, strict=True)) if not torch.equal(a, b)] == []


def test_defaults_and_arguments_are_upstreams(upstream: Workplace, patched: Workplace) -> None:
    ours, theirs = (
        vars(pickle.loads((place.output("egnn") / "args.pickle").read_bytes())) for place in (patched, upstream)
    )
    assert {name: ours[name] for name in theirs} == theirs
    recorded = {"resume_from", "resumed", "data_sha256"}
    flags = {"seed", "all_classes", "keep_checkpoints", "checkpoint_minutes", "overwrite", "debug_checks"}
    flags |= {*sampler.KINDS, *probabilistic_model.KINDS}
    assert set(ours) - set(theirs) == flags | recorded


def test_a_model_trained_upstream_is_evaluated(upstream: Workplace, edm_path: Path) -> None:
    place = Workplace(upstream.folder, edm_path)
    printed = place.run("eval_analyze.py", "--model_path", "outputs/egnn", "--n_samples", 4)
    assert "Final test nll" in printed
