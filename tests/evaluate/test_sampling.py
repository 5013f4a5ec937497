"""Sampling sorted by size: what belongs together stays together, and memory is kept within its limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from symdiff_plugin.common import progress
from symdiff_plugin.common.errors import EvaluationError
from symdiff_plugin.common.memory import peak_memory
from symdiff_plugin.evaluate.batch_size import AT_MOST, FASTEST_ON_CPU, choose_batch_size
from symdiff_plugin.evaluate.sampling import Samples, sample_molecules
from symdiff_plugin.evaluate.trained_run import TrainedRun, load_run

pytestmark = pytest.mark.edm

EGNN = {"model": "egnn_dynamics", "nf": 32, "n_layers": 2}
CONDITIONAL = {"conditioning": ["alpha", "mu"], "context_node_nf": 2}
models = pytest.mark.parametrize("changes", [{}, EGNN], ids=["symdiff", "egnn"])


@pytest.fixture
def build(copied: Path) -> Callable[..., TrainedRun]:
    """Makes the run of a tiny SymDiff, or of what other arguments make of it, at initial weights."""

    def changed(**changes: object) -> TrainedRun:
        config = json.loads((copied / "config.json").read_text())
        config["args"].update(changes)
        (copied / "config.json").write_text(json.dumps(config))
        return load_run(copied, untrained=True)

    return changed


class Seen:
    """Stands between EDM and a real dynamics: keeps what that is called with, and may do more before and after."""

    def __init__(self, run: TrainedRun) -> None:
        self.forward = run.model.dynamics._forward
        self.calls: list[tuple[Tensor, Tensor | None]] = []
        run.model.dynamics._forward = self

    def __call__(self, t: Tensor, xh: Tensor, node_mask: Tensor, edge_mask: Tensor, context: Tensor | None) -> Tensor:
        self.before(xh)
        self.calls.append((node_mask, context))
        return self.after(self.forward(t, xh, node_mask, edge_mask, context), context)

    def before(self, xh: Tensor) -> None:
        pass

    def after(self, out: Tensor, context: Tensor | None) -> Tensor:
        return out


def sample(run: TrainedRun, n_samples: int, batch_size: int) -> Samples:
    torch.manual_seed(7)
    return sample_molecules(run, n_samples, batch_size)


def drawn_sizes(run: TrainedRun, n_samples: int) -> Tensor:
    torch.manual_seed(7)
    return run.nodes_dist.sample(n_samples)


@models
def test_molecules_come_in_the_order_of_their_sizes_with_padding_to_their_batch_alone(changes, build):
    run = build(**changes)
    seen = Seen(run)
    samples = sample(run, 23, 5)
    sizes = drawn_sizes(run, 23)
    assert [len(molecule) for molecule in samples.molecules] == sizes.tolist()
    assert sorted(sizes.tolist(), reverse=True) != sizes.tolist()  # or there was nothing to put back in order
    assert all(molecule.is_finite for molecule in samples.molecules)
    assert samples.batch_sizes == [5, 5, 5, 5, 3]
    assert samples.context is None
    masks = [mask for mask, _ in seen.calls]
    assert len(masks) == 5 * (run.args.diffusion_steps + 1)
    lengths = [mask.shape[1] for mask in masks]
    assert lengths == [int(mask.sum(1).max()) for mask in masks]
    assert lengths == sorted(lengths, reverse=True)  # the largest first
    padding = sum(mask.numel() - int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    upstream = 1 - sizes.sum() / (23 * run.dataset_info["max_n_nodes"])
    assert padding < 0.1 < 0.3 < upstream
    assert not getattr(run.model.dynamics, "_edges_dict", {})  # EGNN's edges of every shape of batch so far


@models
def test_every_molecule_is_made_with_its_own_properties(changes, build):
    """The dynamics loses the molecules whose first property is above the median: these, and no others, are NaN."""
    run = build(**changes, **CONDITIONAL)
    sizes = drawn_sizes(run, 20)
    context = run.prop_dist.sample_batch(sizes)  # as upstream draws them, right after the sizes
    median = context[:, 0].median()

    class Loses(Seen):
        def after(self, out: Tensor, context: Tensor | None) -> Tensor:
            high = context[:, 0, 0] > median  # the first atom is never padding
            return torch.where(high[:, None, None], torch.nan, out)

    seen = Loses(run)
    samples = sample(run, 20, 6)
    assert torch.equal(samples.context, context)
    assert [len(molecule) for molecule in samples.molecules] == sizes.tolist()
    lost = [not molecule.is_finite for molecule in samples.molecules]
    assert lost == (context[:, 0] > median).tolist()
    assert any(lost)
    assert not all(lost)
    pairs = {
        (int(mask.sum()), tuple(row[0].tolist()))
        for masks, rows in seen.calls
        for mask, row in zip(masks, rows, strict=True)
    }
    assert pairs == {(int(n), tuple(row.tolist())) for n, row in zip(sizes, context, strict=True)}


@models
def test_the_batch_size_keeps_within_the_memory_given(changes, build):
    run = build(**changes)
    small, double, plenty = 4 * 2**20, 8 * 2**20, 2**40
    assert choose_batch_size(run, 1) == 1  # one is always tried
    n, twice_n, most = (choose_batch_size(run, free) for free in (small, double, plenty))
    assert 2 <= n < twice_n < most <= AT_MOST["cpu"]
    assert twice_n == pytest.approx(2 * n, abs=1)
    assert peak_memory(lambda: sample_molecules(run, n, n), "cpu") <= small
    assert peak_memory(lambda: sample_molecules(run, twice_n, twice_n), "cpu") <= double
    assert peak_memory(lambda: sample_molecules(run, most, most), "cpu") <= FASTEST_ON_CPU
    # Nor is it timid: half of the memory and the largest size allow a few times as many, but not 20 times.
    assert peak_memory(lambda: sample_molecules(run, 20 * n, 20 * n), "cpu") > small


def test_on_a_device_whose_memory_is_not_known_a_number_is_needed(build):
    run = build()
    run.args.device = torch.device("mps")
    with pytest.raises(EvaluationError, match="--batch_size auto needs a cpu or cuda device, not mps: give a number"):
        choose_batch_size(run)


class OutOfMemory(Seen):
    """A dynamics for which more than ``most`` molecules are too many, from call number ``since`` on."""

    def __init__(self, run: TrainedRun, most: int, since: int = 0) -> None:
        super().__init__(run)
        self.most, self.since = most, since

    def before(self, xh: Tensor) -> None:
        if len(xh) > self.most and len(self.calls) >= self.since:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@models
@pytest.mark.parametrize("since", [0, 3])
def test_out_of_memory_halves_the_batch_and_gives_what_that_batch_size_gives(changes, since, build, capsys):
    run = build(**changes)
    wanted = sample(run, 8, 3)
    capsys.readouterr()
    OutOfMemory(run, 3, since)
    found = sample(run, 8, 6)
    assert found.batch_sizes == wanted.batch_sizes == [3, 3, 2]
    for a, b in zip(found.molecules, wanted.molecules, strict=True):
        assert a.symbols == b.symbols
        np.testing.assert_array_equal(a.positions, b.positions)
    assert capsys.readouterr().err == "Out of memory: sampling 3 molecules at once, not 6\n"


def test_a_molecule_that_does_not_fit_is_one_line(build, capsys):
    run = build()
    OutOfMemory(run, 0)
    largest = int(drawn_sizes(run, 3).max())
    with pytest.raises(EvaluationError, match=f"^a molecule of {largest} atoms does not fit into the memory of"):
        sample(run, 3, 3)
    assert len(capsys.readouterr().err.splitlines()) == 1  # 3 to 1; then there is nothing left to halve


def test_progress_counts_molecules(build, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    run = build()
    OutOfMemory(run, 2, since=3)  # what was done of the batch that failed is taken back
    sample(run, 6, 4)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Sampling 6 molecules:")]
    assert len(lines) == 3 + 1 + 3 * (run.args.diffusion_steps + 1)
    assert all(line.endswith(" molecules/s]") for line in lines)
    done = [int(line.split("| ")[1].split("/")[0]) for line in lines[4:]]
    assert done == sorted(done)
    assert done[run.args.diffusion_steps] == 2
    assert done[-1] == 6
