"""The evaluation of tiny trained runs, and the likelihood against EDM's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from symdiff_plugin.data import load_split
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.__main__ import main
from symdiff_plugin.evaluate.likelihood import negative_log_likelihood
from symdiff_plugin.evaluate.trained_run import load_run
from symdiff_plugin.molecules.molecule import read_xyz

pytestmark = pytest.mark.edm


def evaluate(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_trained_run_is_evaluated(copied, capsys):
    partitions = ["--partition", "test", "val"]
    assert evaluate(copied, "--n_samples", 5, "--batch_size", 2, "--nll_molecules", 12, *partitions) == 0
    text = capsys.readouterr().out
    metrics = json.loads((copied / "metrics.json").read_text())
    assert metrics["checkpoint"] == "generative_model_ema.npy"
    assert not metrics["untrained"]
    assert metrics["test_nll_molecules"] == metrics["val_nll_molecules"] == 12
    assert metrics["test_nll"] != metrics["val_nll"]
    assert (metrics["batch_size"], metrics["batch_size_auto"]) == (2, False)
    assert metrics["batch_sizes"] == [[2, 2], [1, 1]]
    for name in ("atom_stability", "molecule_stability", "validity", "uniqueness", "novelty", "connected"):
        assert 0 <= metrics[name] <= 1
        assert f"{metrics[name]:7.2%}" in text
    molecules, _ = read_xyz(copied / "molecules.xyz")
    assert len(molecules) == metrics["n_samples"] == 5
    assert len(list((copied / "xyz").iterdir())) == 5
    assert metrics["n_runs"] == 1
    assert "std" not in metrics
    for path in ("molecules.xyz", "molecules.sdf", "xyz", "samples.png", "metrics.json"):
        assert str(copied / path) in text


def test_the_same_seed_gives_the_same_and_another_seed_others(copied):
    def positions(seed: int) -> np.ndarray:
        assert evaluate(copied, "--n_samples", 3, "--nll_molecules", 0, "--seed", seed) == 0
        return np.concatenate([m.positions for m in read_xyz(copied / "molecules.xyz")[0]])

    first, again, other = positions(1), positions(1), positions(2)
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.allclose(first, other)


def test_the_batch_size_that_was_chosen_repeats_the_evaluation(copied):
    def record(*arguments: object) -> tuple[dict, str]:
        assert evaluate(copied, "--n_samples", 7, "--nll_molecules", 60, *arguments) == 0
        return json.loads((copied / "metrics.json").read_text()), (copied / "molecules.xyz").read_text()

    chosen, molecules = record("--batch_size", "auto")
    assert chosen.pop("batch_size_auto")
    assert chosen["batch_size"] > 7
    assert chosen["batch_sizes"] == [[7, 1]]
    again, same = record("--batch_size", chosen["batch_size"])
    assert not again.pop("batch_size_auto")
    for metrics in (chosen, again):
        assert metrics.pop("seconds_per_sample") > 0
        for one in (metrics, *metrics["runs"]):
            for name in ("seconds_per_sample", "batch_size_auto"):
                one.pop(name, None)
            del one["settings"]["batch_size_auto"]
    assert again == chosen
    assert same == molecules
    smaller, others = record("--batch_size", 3)  # both come from the random numbers of their batches
    assert smaller["test_nll"] != chosen["test_nll"]
    assert others != molecules


def test_an_untrained_model_goes_to_files_of_its_own(copied):
    before = sorted(path.name for path in copied.iterdir())
    assert evaluate(copied, "--untrained", "--n_samples", 2, "--nll_molecules", 4) == 0
    new = sorted({path.name for path in copied.iterdir()} - set(before))
    assert new == [
        "evaluation_untrained", "metrics_untrained.json", "molecules_untrained.sdf", "molecules_untrained.xyz",
        "samples_untrained.png", "xyz_untrained",
    ]  # fmt: skip
    metrics = json.loads((copied / "metrics_untrained.json").read_text())
    assert metrics["untrained"]
    assert metrics["checkpoint"] is None


@pytest.mark.parametrize(
    "changes", [{"conditioning": ["alpha", "mu"], "context_node_nf": 2}, {"model": "egnn_dynamics"}]
)
def test_conditional_and_edms_own_models_are_evaluated(changes, copied):
    config = json.loads((copied / "config.json").read_text())
    config["args"].update(changes)
    (copied / "config.json").write_text(json.dumps(config))
    assert evaluate(copied, "--untrained", "--n_samples", 3, "--nll_molecules", 4) == 0
    metrics = json.loads((copied / "metrics_untrained.json").read_text())
    assert metrics["model"] == config["args"]["model"]
    assert metrics["test_nll"] > 0


def test_the_context_of_the_nll_is_normalised(copied):
    """By mean and mean absolute deviation over the training split, which EDM's own evaluation script forgot."""
    config = json.loads((copied / "config.json").read_text())
    config["args"].update({"conditioning": ["alpha"], "context_node_nf": 1})
    (copied / "config.json").write_text(json.dumps(config))
    run = load_run(copied, untrained=True)
    seen, dynamics = [], run.model.dynamics
    forward = dynamics._forward
    dynamics._forward = lambda t, xh, node_mask, edge_mask, context: (
        seen.append(context[:, 0, 0]) or forward(t, xh, node_mask, edge_mask, context)
    )
    negative_log_likelihood(run, "test")
    train, test = (torch.from_numpy(load_split(run.args.datadir, split)["alpha"]) for split in ("train", "test"))
    wanted = (test - train.mean()) / (train - train.mean()).abs().mean()
    once = torch.cat(seen[::2])  # two calls a batch: at t and at 0
    torch.testing.assert_close(once.sort().values, wanted.sort().values, atol=1e-4, rtol=1e-4)


def test_initial_weights_are_drawn_and_trained_ones_are_loaded(copied):
    trained, fresh, other = load_run(copied), load_run(copied, untrained=True), load_run(copied, untrained=True, seed=1)
    saved = torch.load(copied / "generative_model_ema.npy", weights_only=True)
    assert not trained.model.training
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, saved[name])
    name = "dynamics.xh_embedder.weight"
    assert not torch.equal(fresh.model.state_dict()[name], saved[name])
    assert not torch.equal(fresh.model.state_dict()[name], other.model.state_dict()[name])


def test_the_nll_is_that_of_edms_test_loop(copied):
    """Over the whole partition, with the noise of the same seed, in the same batches."""
    run = load_run(copied, batch_size=16)
    torch.manual_seed(3)
    found = negative_log_likelihood(run, "test")
    loader = run.loaders["test"]  # its shuffle was lifted by the call above, as was EDM's for both
    torch.manual_seed(3)
    wanted = import_edm("eval_analyze").test(
        run.args, run.model, run.nodes_dist, run.device, torch.float32, loader, num_passes=1
    )
    assert found["nll"] == pytest.approx(wanted, rel=1e-6)
    assert found["nll_molecules"] == len(loader.dataset)
    assert found["nll_standard_error"] > 0


def test_a_subset_for_the_nll_does_not_depend_on_the_seed(copied):
    def rows(seed: int) -> list[int]:
        run = load_run(copied, seed=seed)
        seen = []
        data = run.loaders["test"].dataset
        fetch = type(data).__getitem__
        data.__class__ = type("Recorded", (type(data),), {"__getitem__": lambda s, i: seen.append(i) or fetch(s, i)})
        negative_log_likelihood(run, "test", 7)
        return seen

    assert rows(0) == rows(5)
    assert len(set(rows(0))) == 7


def test_samples_that_are_not_finite_are_reported_not_fatal(copied):
    path = copied / "generative_model_ema.npy"
    weights = torch.load(path, weights_only=True)
    weights["dynamics.xh_embedder.weight"].fill_(3e38)  # finite, and nothing computed with it is
    torch.save(weights, path)
    assert evaluate(copied, "--n_samples", 3, "--nll_molecules", 4) == 0
    metrics = json.loads((copied / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert metrics["non_finite"] == 1
    for name in ("connected", "atom_stability", "molecule_stability", "validity", "uniqueness", "novelty"):
        assert metrics[name] == 0
    assert metrics["test_nll"] is None


def cut_short(run: Path) -> None:
    path = run / "generative_model_ema.npy"
    path.write_bytes(path.read_bytes()[:5000])


def of_another_model(run: Path) -> None:
    torch.save({"dynamics.weight": torch.zeros(3)}, run / "generative_model_ema.npy")


def hostile_pickle(run: Path) -> None:
    torch.save({"x": Path("executes code when unpickled")}, run / "generative_model_ema.npy")


def one_nan(run: Path) -> None:
    path = run / "generative_model_ema.npy"
    weights = torch.load(path, weights_only=True)
    weights["dynamics.xh_embedder.weight"][0, 0] = torch.nan
    torch.save(weights, path)


def one_inf_in_the_checkpoint(run: Path) -> None:
    record = torch.load(run / "checkpoint.pt", weights_only=True)
    record["model_ema"]["dynamics.xh_embedder.weight"][0, 0] = torch.inf
    torch.save(record, run / "checkpoint.pt")


def bad_config(run: Path) -> None:
    (run / "config.json").write_text("{")


# A config.json that is JSON, and no configuration: where, what stands there, what is said.
OTHER_SHAPES = [
    ("batch_size", "many", "its batch_size must be a whole number"),
    ("ema_decay", "slow", "its ema_decay must be a number in [0, 1)"),
    ("dataset", 3, "its dataset must be one of qm9"),
    ("conditioning", 5, "its conditioning must be"),
    ("hidden_size", None, "its hidden_size must be"),
    ("normalize_factors", {}, "its normalize_factors must be 3 numbers"),
    ("remove_h", ..., "lacks 'remove_h'"),
    (None, [], "no 'model' or no 'args'"),
]


def with_config(where, value):
    def spoil(run: Path) -> None:
        config = json.loads((run / "config.json").read_text())
        if where is None:
            config["args"] = value
        elif value is ...:
            del config["args"][where]
        else:
            config["args"][where] = value
        (run / "config.json").write_text(json.dumps(config))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (cut_short, [], "generative_model_ema.npy is damaged or holds no weights"),
        (of_another_model, [], "does not fit the model of config.json"),
        (hostile_pickle, [], "is damaged or holds no weights"),
        (lambda run: (run / "generative_model_ema.npy").unlink(), [], "generative_model_ema.npy is missing"),
        (one_nan, [], "generative_model_ema.npy holds weights that are not finite, in dynamics.xh_embedder.weight"),
        (one_inf_in_the_checkpoint, ["--checkpoint", "checkpoint.pt"], "pt holds weights that are not finite, in dyn"),
        (bad_config, [], "config.json is damaged"),
        *((with_config(where, value), [], words) for where, value, words in OTHER_SHAPES),
        (lambda run: [path.unlink() for path in run.glob("[ac]*.[jp]*")], [], "has neither config.json nor"),
        (lambda run: None, ["--checkpoint", "none.npy"], "none.npy is missing"),
        (lambda run: None, ["--datadir", "/nowhere"], "/nowhere/qm9/train.npz is missing"),
        (lambda run: None, ["--device", "mps"], "--device mps cannot be used here"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(spoil, arguments, message, copied, capsys):
    spoil(copied)
    before = sorted(path.name for path in copied.iterdir())
    assert evaluate(copied, "--n_samples", 2, "--nll_molecules", 2, *arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert sorted(path.name for path in copied.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--n_samples", "0"],
        ["--batch_size", "0"],
        ["--batch_size", "many"],
        ["--nll_molecules", "x"],
        ["--untrained", "--checkpoint", "a"],
        ["--runs", "0"],
        ["--runs", "2", "--seed", str(2**32 - 1)],
        ["--data", "test"],
        ["--out", "there"],
    ],
)
def test_wrong_options_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate("outputs/run", *arguments)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
