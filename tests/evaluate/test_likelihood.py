"""The likelihood of held-out molecules: which molecules, what the model is given, and how its answers are averaged."""

from __future__ import annotations

import math
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.evaluate import likelihood
from symdiff_plugin.evaluate.likelihood import negative_log_likelihood

pytestmark = pytest.mark.edm

SIZES = [5, 2, 4, 3, 1, 5, 4]
NORMS = {"alpha": {"mean": torch.tensor(2.0), "mad": torch.tensor(0.5)}}


class Molecules(list):
    """A data set as EDM's: it shuffles itself, unless it is told not to."""

    perm = (3, 1, 2)

    def __getitem__(self, row):
        assert self.perm is None
        return super().__getitem__(row)


def molecules(sizes: list[int]) -> Molecules:
    generator = torch.Generator().manual_seed(0)
    found = Molecules()
    for n in sizes:
        mask = torch.arange(5) < n
        pairs = mask[:, None] & mask[None] & ~torch.eye(5, dtype=torch.bool)
        found.append({
            "atom_mask": mask,
            "positions": (torch.randn(5, 3, generator=generator) + 1).double() * mask[:, None],
            "one_hot": torch.eye(5, dtype=torch.bool) & mask[:, None],
            "charges": (torch.arange(1, 6) * mask)[:, None],
            "edge_mask": pairs.flatten(),
            "alpha": torch.randn((), generator=generator).double(),
        })  # fmt: skip
    return found


def collate(rows: list[dict]) -> dict:
    rows = [{**row, "positions": 2 * row["positions"]} for row in rows]  # which tells it from any other
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    return {**batch, "edge_mask": batch["edge_mask"].view(-1, 1)}


class Model:
    """Its loss is the sum of all it is given, which it keeps."""

    def __init__(self) -> None:
        self.given = []

    def __call__(self, x, h, node_mask, edge_mask, context):
        assert not torch.is_grad_enabled()
        self.given.append((x, h, node_mask, edge_mask, context))
        return x.square().sum((1, 2)).double() + edge_mask.sum(1)


def log_probability(n: torch.Tensor) -> torch.Tensor:
    assert n.dtype == torch.int64
    return -0.25 * n.double()


def stub(sizes: list[int] = SIZES, **changes) -> SimpleNamespace:
    args = Namespace(**{"batch_size": 4, "include_charges": True, "conditioning": [], **changes.pop("args", {})})
    loader = DataLoader(molecules(sizes), collate_fn=collate)
    loaders = {"test": loader, "valid": DataLoader(molecules(sizes[:3]), collate_fn=collate)}
    return SimpleNamespace(**{
        "args": args, "loaders": loaders, "model": Model(), "device": torch.device("cpu"), "geom": None,
        "nodes_dist": SimpleNamespace(log_prob=log_probability), "property_norms": NORMS, **changes,
    })  # fmt: skip


def losses(data: Molecules) -> torch.Tensor:
    """Those of the model, molecule by molecule, with -log p(N)."""
    found = []
    for row in list.__iter__(data):
        n = int(row["atom_mask"].sum())
        x = 2 * row["positions"][:n].float()
        found.append((x - x.mean(0)).square().sum().double() + n * (n - 1) + 0.25 * n)
    return torch.stack(found)


def test_the_mean_over_all_molecules_and_its_standard_error():
    run = stub()
    wanted = losses(run.loaders["test"].dataset)
    found = negative_log_likelihood(run, "test")
    assert found == {
        "nll": pytest.approx(wanted.mean().item(), rel=1e-6),
        "nll_standard_error": pytest.approx(wanted.std().item() / math.sqrt(7), rel=1e-6),
        "nll_molecules": 7,
    }
    assert [len(x) for x, *_ in run.model.given] == [4, 3]  # the run's batch size
    assert [type(found[name]) for name in ("nll", "nll_standard_error")] == [float, float]


def test_what_the_model_is_given():
    run = stub()
    negative_log_likelihood(run, "test", batch_size=7)
    ((x, h, node_mask, edge_mask, context),) = run.model.given
    assert [tuple(v.shape) for v in (x, node_mask, edge_mask)] == [(7, 5, 3), (7, 5, 1), (7, 25)]
    assert {v.dtype for v in (x, node_mask, edge_mask, *h.values())} == {torch.float32}
    assert x.sum(1).abs().max() < 1e-5
    assert torch.equal(node_mask.sum((1, 2)), torch.tensor(SIZES).float())
    assert torch.equal(h["integer"][..., 0], torch.arange(1.0, 6) * node_mask[..., 0])
    assert torch.equal(h["categorical"], torch.eye(5) * node_mask)
    assert context is None


def test_without_charges_there_are_none():
    run = stub(args={"include_charges": False})
    negative_log_likelihood(run, "test")
    assert run.model.given[0][1]["integer"].numel() == 0


def test_a_conditional_model_is_given_its_property():
    run = stub(args={"conditioning": ["alpha"]})
    negative_log_likelihood(run, "test", batch_size=7)
    ((_, _, node_mask, _, context),) = run.model.given
    alpha = torch.stack([row["alpha"] for row in list.__iter__(run.loaders["test"].dataset)])
    torch.testing.assert_close(context, ((alpha - 2) / 0.5)[:, None, None].float() * node_mask)
    assert context.dtype == torch.float32


@pytest.mark.parametrize("seed", [0, 1])
def test_some_molecules_are_the_same_ones_whatever_the_seed(seed):
    torch.manual_seed(seed)
    run = stub()
    found = negative_log_likelihood(run, "test", n_molecules=3)
    rows = torch.randperm(7, generator=torch.Generator().manual_seed(0))[:3].sort().values
    assert found["nll"] == pytest.approx(losses(run.loaders["test"].dataset)[rows].mean().item(), rel=1e-6)
    assert found["nll_molecules"] == 3
    sizes = torch.cat([mask.sum((1, 2)) for _, _, mask, *_ in run.model.given])
    assert sizes.tolist() == [SIZES[row] for row in rows.tolist()]


@pytest.mark.parametrize("n_molecules", [7, 50])
def test_no_more_than_there_are(n_molecules):
    run = stub()
    assert negative_log_likelihood(run, "test", n_molecules)["nll_molecules"] == 7
    assert torch.cat([mask.sum((1, 2)) for _, _, mask, *_ in run.model.given]).tolist() == SIZES  # in their order


def test_a_single_molecule_has_no_standard_error():
    assert negative_log_likelihood(stub([3]), "test")["nll_standard_error"] is None
    assert negative_log_likelihood(stub([3, 4]), "test")["nll_standard_error"] > 0


def test_edms_two_names_of_the_validation_partition():
    assert negative_log_likelihood(stub(), "val")["nll_molecules"] == 3
    geom = stub(geom=SimpleNamespace())
    geom.loaders["val"] = geom.loaders.pop("valid")
    assert negative_log_likelihood(geom, "val")["nll_molecules"] == 3
    with pytest.raises(EvaluationError, match="there is no partition 'train': choose test or val"):
        negative_log_likelihood(stub(), "train")


def test_several_draws_go_to_the_importance_weighted_bound(monkeypatch):
    calls = []

    def bound(model, x, h, node_mask, edge_mask, context, draws):
        calls.append((draws, edge_mask.shape[1], context))
        values = model(x, h, node_mask, edge_mask, context)
        return values - 1, torch.arange(len(x)).double()

    monkeypatch.setattr(likelihood, "importance_weighted_nll", bound)
    run = stub()
    found = negative_log_likelihood(run, "test", draws=2)
    gains = torch.tensor([0.0, 1, 2, 3, 0, 1, 2])
    assert calls == [(2, 25, None)] * 2
    assert found["nll"] == pytest.approx(losses(run.loaders["test"].dataset).mean().item() - 1, rel=1e-6)
    assert found["nll_gain"] == pytest.approx(gains.mean().item())
    assert found["nll_gain_standard_error"] == pytest.approx(gains.std().item() / math.sqrt(7))
    negative_log_likelihood(run, "test", draws=1)
    assert len(calls) == 2


def test_the_mean_is_taken_in_float64():
    values = 1e6 + torch.arange(1000).float() / 8
    mean, error = likelihood._mean_and_error(values)
    assert mean == pytest.approx(1e6 + 999 / 16, abs=1e-6)
    assert error == pytest.approx(values.double().std().item() / math.sqrt(1000), rel=1e-12)


def test_data_that_are_not_shuffled_are_left_as_they_are():
    run = stub()
    run.loaders["test"] = DataLoader(list(list.__iter__(molecules(SIZES))), collate_fn=collate)
    assert negative_log_likelihood(run, "test")["nll_molecules"] == 7  # a list takes no attribute
