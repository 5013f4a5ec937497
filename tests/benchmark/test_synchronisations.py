"""How often EDM's training step and denoising step read from the device, and that the counter would notice."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import Workplace

from symdiff_plugin import hooks
from symdiff_plugin.benchmark.synchronisations import count_synchronisations
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.trained_run import TrainedRun, load_run
from symdiff_plugin.presets import PRESETS
from symdiff_plugin.training.debug_checks import enable_checks

X = torch.tensor([1.0, -2.0, 3.0])


@pytest.mark.parametrize(
    ("work", "counts"),
    [
        (lambda: X[0].item(), {"aten::item": 1}),
        (lambda: float(X[0]) + int(X[1]), {"aten::item": 2}),
        (lambda: 1 if X.isnan().any() else 0, {"aten::is_nonzero": 1}),
        (lambda: f"{X[0]:.2f}", {"aten::item": 1}),
        (lambda: X[X > 0], {"aten::nonzero": 1}),
        (lambda: X.unique(), {"aten::_unique2": 1}),
        (lambda: torch.equal(X, X), {"aten::equal": 1}),
        (lambda: torch.allclose(X, X), {"aten::allclose": 1}),
        (lambda: X.tolist(), {"Tensor.tolist": 1}),
        (lambda: (X.cpu(), X.to("cpu")), {"Tensor.cpu": 1, "Tensor.to": 1}),
        (lambda: (X.numpy(), np.asarray(X)), {"Tensor.numpy": 1, "Tensor.__array__": 1}),
        (lambda: torch.where(X > 0, X, 0.0).sum().double().to(torch.float32), {}),
    ],
)
def test_what_reads_a_tensor_is_counted_once(work: Callable[[], object], counts: dict[str, int]) -> None:
    assert count_synchronisations(work) == counts


def test_an_optimisers_own_counts_lie_on_the_host() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optim = torch.optim.AdamW([weight], foreach=False)  # reads its step counters, as the profiler shows
    weight.grad = torch.ones(3)
    assert count_synchronisations(optim.step) == {}


@pytest.fixture(params=["egnn_dynamics", "symdiff_tiny"])
def run(request: pytest.FixtureRequest, workplace: Workplace, trained: str, tmp_path: Path) -> TrainedRun:
    """A run at its initial weights, on real molecules."""
    folder = Path(shutil.copytree(workplace.output(trained), tmp_path / "run"))
    config = json.loads((folder / "config.json").read_text())
    config["args"].update(asdict(PRESETS["symdiff_tiny"].architecture))
    config["args"].update(depth=1, enc_depth=1, nf=16, n_layers=1)  # each layer is as the others
    # No report and, for the EGNN, no pictures on the way.
    config["args"].update(model=request.param, n_report_steps=1000, test_epochs=1000, diffusion_steps=20)
    (folder / "config.json").write_text(json.dumps(config))
    return load_run(folder, untrained=True, batch_size=6, device="cpu")


@pytest.fixture(params=[False, True], ids=["as it is", "with checks"])
def checks(request: pytest.FixtureRequest) -> Iterator[bool]:
    enable_checks(request.param)
    yield request.param
    enable_checks(False)


def reads(work: Callable[[int], object], more: int) -> dict[str, float]:
    """The reads of one unit of work: of ``2 + more`` less those of two, so that what comes once is left out."""
    few, many = (Counter(count_synchronisations(lambda n=n: work(n))) for n in (2, 2 + more))
    return {name: (many[name] - few[name]) / more for name in many if many[name] != few[name]}


@pytest.mark.edm
def test_a_training_step_reads_once(run: TrainedRun, checks: bool, capsys: pytest.CaptureFixture[str]) -> None:
    args, model = run.args, run.model
    optim = import_edm("qm9.models").get_optim(args, model)
    average, queue = copy.deepcopy(model), import_edm("utils").Queue()
    queue.add(3000)
    ema = import_edm("equivariant_diffusion.utils").EMA(args.ema_decay)
    batches = [batch for _, batch in zip(range(4), run.loaders["train"], strict=False)]
    before = torch.nn.utils.parameters_to_vector(model.parameters())

    def train(steps: int) -> None:
        import_edm("train_test").train_epoch(
            args, batches[:steps], 1, model, model, average, ema, args.device, torch.float32, {}, optim,
            run.nodes_dist, queue, run.dataset_info, None,
        )  # fmt: skip

    train(1)
    found = reads(train, more=2)
    assert not torch.equal(before, torch.nn.utils.parameters_to_vector(model.parameters()))  # it did train
    layout = 0 if args.model == "egnn_dynamics" else 1  # AtomLayout reads the molecules' sizes once a batch
    if checks:
        assert sum(found.values()) > 12 + layout
    else:
        assert sum(found.values()) <= 1 + layout, found


@pytest.mark.edm
@pytest.mark.parametrize(("way", "batch"), [("sample", 3), ("sample_chain", 1)])
def test_a_denoising_step_reads_nothing(run: TrainedRun, checks: bool, way: str, batch: int) -> None:
    mask = torch.ones(batch, 5, 1)
    mask[0, 3:] = 0
    edges = (mask * mask.transpose(1, 2) * (1 - torch.eye(5))).view(-1, 1)

    def denoise(steps: int) -> None:
        run.model.T = steps
        getattr(run.model, way)(batch, 5, mask, edges, None)

    denoise(1)
    found = reads(denoise, more=2)
    if checks:
        assert sum(found.values()) >= 8
    else:
        assert found == {}


def test_numbers_are_read_together() -> None:
    losses = torch.randn(4, requires_grad=True)
    assert count_synchronisations(lambda: hooks.read(*losses, 2.0)) == {"Tensor.tolist": 1}
