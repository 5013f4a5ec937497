"""From a run of EDM's main_qm9.py to a pretrained model, and the models that come with the package."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.metrics import judge, summarise
from symdiff_plugin.evaluate.sampling import sample_molecules
from symdiff_plugin.evaluate.trained_run import load_run
from symdiff_plugin.pretrained import Pretrained, available, load
from symdiff_plugin.pretrained.__main__ import main
from symdiff_plugin.process.schedule import NoiseSchedule
from symdiff_plugin.sample import sample_pretrained

pytestmark = pytest.mark.edm


def export(run: Path, folder: Path, name: str = "tiny") -> int:
    return main(["export", str(run), "--name", name, "--folder", str(folder)])


def test_a_run_becomes_a_model_that_samples_what_the_run_samples(copied: Path, tmp_path: Path) -> None:
    (copied / "metrics.json").write_text(json.dumps({"atom_stability": 0.5, "runs": [{}], "n_runs": 1}))
    assert export(copied, tmp_path) == 0
    assert sorted(path.name for path in tmp_path.glob("tiny.*")) == ["tiny.json", "tiny.safetensors"]
    model = load("tiny", folder=tmp_path)
    saved = torch.load(copied / "generative_model_ema.npy", weights_only=True)
    for key, value in model.dynamics.state_dict().items():
        assert torch.equal(value, saved[f"dynamics.{key}"])
    run = load_run(copied)
    torch.manual_seed(7)
    edms = sample_molecules(run, 9, 4)
    ours = sample_pretrained(model, 9, 4, seed=7)
    assert ours.batch_sizes == edms.batch_sizes
    for mine, theirs in zip(ours.molecules, edms.molecules, strict=True):
        assert mine.symbols == theirs.symbols
        # Float32; EDM's average of its table of gamma, a constant, has moved by some rounding errors.
        torch.testing.assert_close(
            torch.from_numpy(mine.positions), torch.from_numpy(theirs.positions), rtol=1e-3, atol=1e-3
        )


def test_the_card_says_how_it_was_made(copied: Path, tmp_path: Path) -> None:
    (copied / "metrics.json").write_text(json.dumps({"atom_stability": 0.5, "runs": [{}], "n_runs": 1}))
    assert export(copied, tmp_path) == 0
    card = json.loads((tmp_path / "tiny.json").read_text())
    config = json.loads((copied / "config.json").read_text())
    rows = [json.loads(line) for line in (copied / "history.jsonl").read_text().splitlines()]
    best = min(rows, key=lambda row: row["val_nll"])
    words, found = config["command"].split(), card["training"]["command"].split()
    assert config["args"]["datadir"] in words  # a folder of this machine, which is nobody else's business
    assert found == [word.rpartition("/")[2] if word.startswith("/") else word for word in words]
    assert card["training"]["commit"] == config["versions"]["commit"]
    assert card["training"]["epochs"] == best["epoch"] + 1
    assert card["training"]["steps"] == 4 * (best["epoch"] + 1)  # 240 molecules, 64 a step
    seconds = sum(row["seconds"] for row in rows[: best["epoch"] + 1])
    assert card["training"]["seconds"] == pytest.approx(seconds, abs=0.1)
    assert card["training"]["lr"] == [{"lr": config["args"]["lr"], "epochs": best["epoch"] + 1}]
    assert card["training"]["val_nll"] == best["val_nll"]
    assert card["metrics"] == {"atom_stability": 0.5, "n_runs": 1}
    assert card["diffusion"]["steps"] == config["args"]["diffusion_steps"]
    info = import_edm("configs.datasets_config").get_dataset_info("qm9", False)
    assert card["n_nodes"] == {str(size): count for size, count in info["n_nodes"].items()}
    assert card["atom_types"] == info["atom_decoder"]
    assert card["weights"]["bytes"] == (tmp_path / "tiny.safetensors").stat().st_size


def test_the_last_epochs_weights_can_be_taken_instead_of_the_best(copied: Path, tmp_path: Path) -> None:
    record = torch.load(copied / "checkpoint.pt", weights_only=True)
    record["model_ema"] = {k: v + 0.25 * k.startswith("dynamics.") for k, v in record["model_ema"].items()}
    torch.save(record, copied / "checkpoint.pt")
    rows = [json.loads(line) for line in (copied / "history.jsonl").read_text().splitlines()]
    with open(copied / "history.jsonl", "a") as file:  # an epoch that was begun after the checkpoint
        file.write(json.dumps({**rows[-1], "epoch": rows[-1]["epoch"] + 1, "lr": 1.0}) + "\n")
    assert main(["export", str(copied), "--name", "last", "--folder", str(tmp_path), "--checkpoint", "last"]) == 0
    model = load("last", folder=tmp_path)
    for key, value in model.dynamics.state_dict().items():
        assert torch.equal(value, record["model_ema"][f"dynamics.{key}"])
    training = model.card["training"]
    assert (training["epochs"], training["weights"]) == (record["epoch"], "checkpoint.pt")
    assert sum(phase["epochs"] for phase in training["lr"]) == record["epoch"]
    assert training["val_nll"] == rows[-1].get("val_nll")
    run = load_run(copied, checkpoint="checkpoint.pt")
    assert torch.equal(run.model.state_dict()["buffer"], record["model_ema"]["buffer"])
    assert all(torch.equal(v, record["model_ema"][k]) for k, v in run.model.state_dict().items())
    (copied / "metrics.json").write_text(json.dumps({"checkpoint": "generative_model_ema.npy"}))
    assert main(["export", str(copied), "--name", "last", "--folder", str(tmp_path), "--checkpoint", "last"]) == 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"model": "egnn_dynamics"}, "only the plugin's models"),
        ({"conditioning": ["alpha"]}, "conditional"),
        ({"diffusion_noise_schedule": "cosine"}, "only polynomial_P"),
        ({"diffusion_steps": 9}, "table of 10 gammas"),
        ({"diffusion_noise_precision": 1e-4}, "another noise schedule"),
        ({"depth": 2}, "does not fit"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_in_a_line(spoil, words, copied, tmp_path, capsys) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["args"].update(spoil)
    (copied / "config.json").write_text(json.dumps(config))
    before = sorted(tmp_path.iterdir())
    assert export(copied, tmp_path) == 2
    said = capsys.readouterr().err.strip()
    assert words in said
    assert len(said.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_filtered_runs_sizes_are_those_it_was_trained_on(copied: Path, tmp_path: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["args"]["filter_n_atoms"] = 17
    (copied / "config.json").write_text(json.dumps(config))
    assert export(copied, tmp_path) == 0
    (card,) = tmp_path.glob("*.json")
    assert json.loads(card.read_text())["n_nodes"] == {"17": 13025}


def test_missing_files_and_bad_names_are_refused(copied: Path, tmp_path: Path, capsys) -> None:
    assert export(copied, tmp_path, "../up") == 2
    assert "small letters" in capsys.readouterr().err
    history = (copied / "history.jsonl").read_bytes()
    (copied / "history.jsonl").write_text("[]\n")
    assert export(copied, tmp_path) == 2
    assert "history.jsonl is damaged" in capsys.readouterr().err
    (copied / "history.jsonl").write_bytes(history)
    weights = copied / "generative_model_ema.npy"
    state = torch.load(weights, weights_only=True)
    name = next(key for key in state if key.endswith("means"))
    torch.save({**state, name: state[name] * float("nan")}, weights)
    assert export(copied, tmp_path) == 2
    assert f"not finite, in {name}" in capsys.readouterr().err
    weights.unlink()
    assert export(copied, tmp_path) == 2
    assert "generative_model_ema.npy is missing" in capsys.readouterr().err
    assert export(tmp_path / "nowhere", tmp_path) == 2
    assert not list(tmp_path.glob("*.json"))


def test_the_shipped_models_are_better_than_untrained_ones() -> None:
    if not available():
        pytest.skip("NO PRETRAINED MODEL IS IN THE PACKAGE: export one, python -m symdiff_plugin.pretrained export")
    for name in available():
        shipped = load(name)
        info = import_edm("configs.datasets_config").get_dataset_info(shipped.card["dataset"], shipped.card["remove_h"])
        # Every twentieth step: the times are the same ones, and 0.76 of the atoms are stable, of shuffled weights none.
        model = replace(shipped, schedule=NoiseSchedule(shipped.schedule.gamma[::20]))

        def atom_stability(model: Pretrained, info: dict[str, Any]) -> float:
            molecules = sample_pretrained(model, 20, 20).molecules
            return summarise(molecules, judge(molecules, info))["atom_stability"]

        trained = atom_stability(model, info)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.dynamics.parameters():  # weights of the same sizes that have learned nothing
            shuffled = parameter.flatten()[torch.randperm(parameter.numel(), generator=generator)]
            parameter.copy_(shuffled.view_as(parameter))
        assert trained > atom_stability(model, info) + 0.1
