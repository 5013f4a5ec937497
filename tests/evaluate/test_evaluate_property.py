"""EDM's eval_conditional_qm9.py with a perfect classifier, which returns the property that was asked for."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.trained_run import load_run

pytestmark = pytest.mark.edm

PROPERTIES = ["alpha", "mu", "gap"]  # whose norms are far apart


@pytest.fixture
def generator(copied: Path) -> Path:
    """The folder of a run on three properties, at initial weights, as EDM's script reads it."""
    config = json.loads((copied / "config.json").read_text())
    config["args"].update(conditioning=PROPERTIES, context_node_nf=3, dataset="qm9_second_half")
    (copied / "config.json").write_text(json.dumps(config))
    run = load_run(copied, untrained=True)
    torch.save(run.model.state_dict(), copied / "generative_model_ema.npy")
    (copied / "args.pickle").write_bytes(pickle.dumps(Namespace(**config["args"])))
    return copied


class Perfect(nn.Module):
    """Knows what was asked of the generator: ``asked``, the normalised properties (B, 3) of each batch so far."""

    def __init__(self, column: int, asked: list[Tensor]) -> None:
        super().__init__()
        self.column, self.asked = column, asked

    def forward(self, x: Tensor, n_nodes: int, **rest: object) -> Tensor:
        found = self.asked[-1][:, self.column]
        assert len(x) == len(found) * n_nodes
        return found


def mean_error(
    generator: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, seen_by: str, batch_size: int, iterations: int
) -> tuple[float, int]:
    """The error reported for ``wanted``, the classifier being perfect for ``seen_by``, and how often was sampled."""
    module = import_edm("eval_conditional_qm9")
    asked: list[Tensor] = []
    real, reported = module.sample, []

    def sample(*args: object, context: Tensor, **more: object) -> tuple[Tensor, ...]:
        asked.append(context)
        return real(*args, context=context, **more)

    monkeypatch.setattr(module, "sample", sample)
    monkeypatch.setattr(module, "get_classifier", lambda *_: Perfect(PROPERTIES.index(seen_by), asked))
    test = module.test
    monkeypatch.setattr(module, "test", lambda *args: reported.append(test(*args)) or reported[-1])
    module.main_quantitative(Namespace(
        classifiers_path="", generators_path=str(generator), device=torch.device("cpu"), property=wanted, task="edm",
        batch_size=batch_size, iterations=iterations, debug_break=False, log_interval=1,
    ))  # fmt: skip
    monkeypatch.undo()
    assert all(len(one) == batch_size for one in asked)
    return reported[0], len(asked)


@pytest.mark.parametrize("wanted", PROPERTIES)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_perfect_classifier_makes_no_error_in_exactly_the_iterations_asked_for(
    wanted: str, batch_size: int, generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    error, batches = mean_error(generator, monkeypatch, wanted, wanted, batch_size, 3)
    scale = {"alpha": 10, "mu": 1, "gap": 1}[wanted]  # of the property, in which float32 rounds
    assert error == pytest.approx(0, abs=1e-5 * scale)
    assert batches == 3


def test_a_classifier_of_another_property_makes_an_error(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    error, batches = mean_error(generator, monkeypatch, "mu", "alpha", 4, 1)
    assert error > 0.1
    assert batches == 1


def test_a_property_that_the_generator_does_not_know_is_one_line(
    generator: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        mean_error(generator, monkeypatch, "Cv", "mu", 1, 1)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: --property Cv: the generator is conditional on alpha, mu, gap; give one that it was trained with"
    )
