"""Loading pretrained models and sampling from them, all without EDM: on a tiny model that the tests make."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from matplotlib.image import imread
from molecules import randomise
from rdkit import Chem

from symdiff_plugin import build_dynamics, pretrained, sample
from symdiff_plugin.molecules.molecule import read_xyz
from symdiff_plugin.pretrained import PretrainedError, load
from symdiff_plugin.pretrained.export import store
from symdiff_plugin.sample import sample_pretrained

SMALL = {
    "hidden_size": 32, "depth": 1, "num_heads": 2, "xh_hidden_size": 16, "K": 8,
    "enc_hidden_size": 16, "enc_depth": 1, "enc_num_heads": 2, "dec_hidden_features": 8,
}  # fmt: skip
CARD: dict[str, Any] = {
    "model": "symdiff", "architecture": SMALL, "dataset": "qm9", "atom_types": list("HCNOF"),
    "include_charges": True, "normalize_factors": [1, 4, 10], "n_nodes": {"5": 2, "9": 3, "3": 1},
    "diffusion": {"steps": 12, "noise_schedule": "polynomial_2", "noise_precision": 1e-5},
    "metrics": {"atom_stability": 0.75, "molecule_stability": 0.125, "validity": 0.5, "connected": 0.25},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of models with one, ``tiny``."""
    network = randomise(build_dynamics("symdiff", 6, **SMALL), std=0.05)
    store(tmp_path / "models", "tiny", network.state_dict(), CARD)
    return tmp_path / "models"


@pytest.fixture
def shipped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder in the place of the package's own, and a working directory beside it."""
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    monkeypatch.chdir(folder.parent)
    return folder


def coordinates(sampled: sample.Sampled) -> np.ndarray:
    return np.concatenate([molecule.positions for molecule in sampled.molecules])


def test_what_is_stored_is_what_is_loaded(folder: Path) -> None:
    network = randomise(build_dynamics("symdiff", 6, **SMALL), std=0.05)
    store(folder, "tiny", network.state_dict(), CARD)
    model = load("tiny", folder=folder)
    assert model.dynamics.state_dict().keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(model.dynamics.state_dict()[key], value)
    assert not model.dynamics.training
    assert load("tiny", precision="bf16", folder=folder).dynamics.architecture.precision == "bf16"


def test_sizes_follow_the_histogram(folder: Path) -> None:
    torch.manual_seed(0)
    sizes, counts = load("tiny", folder=folder).draw_sizes(6000).unique(return_counts=True)
    assert sizes.tolist() == [3, 5, 9]
    np.testing.assert_allclose(counts / 6000, [1 / 6, 2 / 6, 3 / 6], atol=0.03)


def test_samples_repeat_with_their_seed_in_the_order_of_their_sizes(folder: Path) -> None:
    model = load("tiny", folder=folder)
    first = sample_pretrained(model, 10, 4, seed=3)
    assert first.batch_sizes == [4, 4, 2]
    torch.manual_seed(3)
    assert [len(molecule) for molecule in first.molecules] == model.draw_sizes(10).tolist()
    again = sample_pretrained(model, 10, 4, seed=3)
    assert np.array_equal(coordinates(first), coordinates(again))
    assert [one.symbols for one in first.molecules] == [one.symbols for one in again.molecules]
    other = sample_pretrained(model, 10, 4, seed=4)
    assert coordinates(first).shape != coordinates(other).shape or not np.allclose(
        coordinates(first), coordinates(other)
    )


def test_a_diverged_molecule_is_not_finite_and_spoils_no_other(folder: Path) -> None:
    model = load("tiny", folder=folder)
    forward = model.dynamics._forward

    def diverging(t, xh, node_mask, *rest):
        out = forward(t, xh, node_mask, *rest)
        out[0] = torch.where(t[0] < 0.5, torch.nan, out[0])
        return out

    sound = sample_pretrained(model, 5, 5)
    model.dynamics._forward = diverging
    spoilt = sample_pretrained(model, 5, 5)
    assert sum(not molecule.is_finite for molecule in spoilt.molecules) == 1
    for before, after in zip(sound.molecules, spoilt.molecules, strict=True):
        if after.is_finite:
            np.testing.assert_array_equal(before.positions, after.positions)


def refused(name: str, folder: Path) -> str:
    with pytest.raises(PretrainedError) as caught:
        load(name, folder=folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_name_lists_what_there_is(folder: Path) -> None:
    assert "no pretrained model is called 'tony' (available: tiny)" in refused("tony", folder)
    assert "available" in refused("../models/tiny", folder)
    assert "none is there" in refused("tiny", folder / "nowhere")


def test_damage_is_found_and_said_in_a_line(folder: Path) -> None:
    weights, card = folder / "tiny.safetensors", folder / "tiny.json"
    content, text = weights.read_bytes(), card.read_text()
    for spoilt in (content[:-4], content[:-1] + bytes([content[-1] ^ 1]), b"", b"\x80" + content[1:]):
        weights.write_bytes(spoilt)
        assert "SHA-256 differs" in refused("tiny", folder)
    weights.unlink()
    assert "cannot be read" in refused("tiny", folder)
    weights.write_bytes(content)
    record = json.loads(text)
    broken = safetensors.torch.load(content)
    broken["xh_embedder.weight"][0, 0] = torch.nan
    weights.write_bytes(safetensors.torch.save(broken))
    about = {**record["weights"], "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    card.write_text(json.dumps({**record, "weights": about}))
    assert "tiny.safetensors holds weights that are not finite, in xh_embedder.weight" in refused("tiny", folder)
    weights.write_bytes(content)
    for change, words in (
        ({"architecture": {**SMALL, "depth": 2}}, "should be"),
        ({"architecture": {**SMALL, "hidden": 2}}, "does not describe a model"),
        ({"n_nodes": {"many": 1}}, "does not describe a model"),
        ({"diffusion": {**CARD["diffusion"], "noise_schedule": "cosine"}}, "does not describe a model"),
        ({"format": 2}, "install a newer one"),
        ({"weights": {}}, "SHA-256 differs"),
    ):
        card.write_text(json.dumps({**record, **change}))
        assert words in refused("tiny", folder)
    card.write_text(text[:100])
    assert "tiny.json is damaged" in refused("tiny", folder)
    card.write_text(text)
    assert load("tiny", folder=folder).name == "tiny"


def test_the_command_leaves_all_its_files(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--pretrained", "tiny", "--n_samples", "7", "--seed", "1", "--precision", "bf16"]
    names = ["molecules.sdf", "molecules.xyz", "samples.png", "summary.json"]
    assert sample.main(arguments) == 0
    out = Path("samples/tiny")
    assert sorted(path.name for path in out.iterdir()) == names
    said = capsys.readouterr().out
    for words in ("Connected", "Validity", "DetermineBondOrders", "Not EDM's", "atom stability 75.0%", "molecules.sdf"):
        assert words in said
    molecules, comments = read_xyz(out / "molecules.xyz")
    assert len(molecules) == len(comments) == 7
    record = json.loads((out / "summary.json").read_text())
    assert record["sha256"] == json.loads((shipped / "tiny.json").read_text())["weights"]["sha256"]
    assert (record["n_samples"], record["seed"], record["precision"]) == (7, 1, "bf16")
    assert sum(size * count for size, count in record["batch_sizes"]) == 7
    read = [mol for mol in Chem.SDMolSupplier(str(out / "molecules.sdf"), removeHs=False, sanitize=False) if mol]
    assert [mol.GetNumAtoms() for mol in read] == [len(one) for one in molecules if one.is_finite]
    assert imread(out / "samples.png").shape[1] == 1600
    again = [*arguments, "--out", "again", "--batch_size", str(record["batch_size"])]
    assert sample.main(again) == 0
    assert Path("again/molecules.xyz").read_bytes() == (out / "molecules.xyz").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pretrained", "tony"], "available"),
        (["--pretrained", "tiny", "--n_samples", "0"], "--n_samples must be a whole number from 1"),
        (["--pretrained", "tiny", "--batch_size", "0"], "--batch_size"),
        (["--pretrained", "tiny", "--seed", "-1"], "--seed"),
        (["--pretrained", "tiny", "--device", "abacus"], "abacus"),
        (["--pretrained", "tiny", "--n_sample", "3"], "unrecognized"),
        ([], "--pretrained"),
    ],
)
def test_bad_input_is_one_line(arguments, words, shipped, capsys) -> None:
    try:
        status = sample.main(arguments)
    except SystemExit as error:
        status = error.code
    said = capsys.readouterr().err.strip()
    assert status == 2
    assert words in said
    assert len(said.splitlines()) == 1
    assert not Path("samples").exists()


def test_sampling_never_touches_edm(folder: Path) -> None:
    """In a fresh interpreter, where importing any of EDM's packages would fail."""
    code = (
        "import sys; from pathlib import Path\n"
        "for name in ('qm9', 'egnn', 'configs', 'equivariant_diffusion', 'utils'): sys.modules[name] = None\n"
        "from symdiff_plugin.pretrained import load; from symdiff_plugin.sample import sample_pretrained\n"
        f"sampled = sample_pretrained(load('tiny', folder=Path({str(folder)!r})), 3, 3)\n"
        "print(len(sampled.molecules), any('e3_diffusion' in path for path in sys.path))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert done.stdout.split() == ["3", "False"], done.stderr


def test_the_shipped_models_are_whole_and_say_how_they_were_trained() -> None:
    if not pretrained.available():
        pytest.skip("NO PRETRAINED MODEL IS IN THE PACKAGE: export one, python -m symdiff_plugin.pretrained export")
    for name in pretrained.available():
        model = load(name)  # the hash, the card and the shapes
        assert model.card["training"]["command"]
        assert model.card["training"]["commit"]
        assert model.card["weights"]["bytes"] < 20e6  # it is in everybody's clone


def test_the_table_does_without_what_was_not_measured() -> None:
    record = {"connected": 1.0, "validity": 0.5, "uniqueness": 1.0, "non_finite": 0.0, "seconds_per_sample": 0.5,
              "n_samples": 2, "rule": "a rule"}  # fmt: skip
    for metrics in (None, {}, {"atom_stability": 0.5, "molecule_stability": None}):
        assert "With EDM" not in sample.samples_table({**record, "measured_with_edm": metrics})
