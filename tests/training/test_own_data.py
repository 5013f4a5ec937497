"""A run of main_geom_drugs.py on a data set of one's own: types, sizes, samples, pictures and evaluation are its."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from own_molecules import each_conformer, make, molecules, write_sdf
from runs import SHORT, TINY, Workplace

from symdiff_plugin.data.geom.dataset_info import load_dataset_info
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.pretrained.export import export

DATA = "data/mine/mine.npy"
PICTURES = ("--visualize_every_batch", 3, "--batch_size", 16)


@pytest.fixture(scope="module")
def own(workplace: Workplace) -> GeomFiles:
    """72 conformers of 24 molecules with H, C, N, O, S, Cl and Br."""
    files = GeomFiles(workplace.folder / DATA)
    path = write_sdf(workplace.folder / "in.sdf", each_conformer(molecules(24, 3, 10, 30)))
    assert make(path, "--name", "mine", "--out", files.data.parent) == 0
    return files


@pytest.fixture(scope="module")
def run(workplace: Workplace, own: GeomFiles) -> tuple[str, str]:
    """The name of a finished run on it and what it printed."""
    flags = ("--data_file", DATA, "--split", "molecule", "--seed", 1, "--exp_name", "own")
    return "own", workplace.run("main_geom_drugs.py", "--model", "symdiff", *flags, *TINY, *SHORT, *PICTURES)


def frames(folder: Path) -> list[list[str]]:
    """The symbols of every molecule that EDM wrote under ``folder``."""
    return [[line.split()[0] for line in path.read_text().splitlines()[2:]] for path in sorted(folder.rglob("*.txt"))]


def check_samples(found: list[list[str]], info: dict) -> None:
    assert {len(symbols) for symbols in found} <= set(info["n_nodes"])
    # Of an untrained model all types come up about as often, the last one, which upstream cuts off, included.
    assert set(Counter(symbol for symbols in found for symbol in symbols)) == set(info["atom_decoder"])


def test_the_model_and_what_it_samples_have_the_types_and_sizes_of_the_data(workplace, own, run):
    name, printed = run
    info = load_dataset_info(own)
    types = len(info["atom_decoder"])
    assert info["atom_decoder"] == ["H", "C", "N", "O", "S", "Cl", "Br"]
    assert "Elements of mine: H C N O S Cl Br, all of them sampled (--all_classes)" in printed
    weights = torch.load(workplace.output(name) / "generative_model.npy", weights_only=True)
    assert weights["dynamics.xh_embedder.weight"].shape[1] == 3 + types
    args = json.loads((workplace.output(name) / "config.json").read_text())["args"]
    assert (args["data_file"], args["all_classes"]) == (DATA, True)
    found = frames(workplace.output(name))
    assert len(found) >= 2 * (5 + 8)  # after each epoch five molecules and the chain's frames
    check_samples(found, info)
    assert len({len(symbols) for symbols in found}) > 2  # without the padding, which would be as large as the largest


def test_pictures_of_the_molecules_and_of_the_chain_are_drawn(workplace, run):
    folder = workplace.output(run[0]) / "epoch_1_2"
    assert len(list(folder.glob("molecule_*.png"))) == 5
    assert list(folder.glob("chain/*.gif"))


def test_edms_evaluation_takes_the_run(workplace, own, run):
    folder = workplace.output(run[0])
    flags = ("--model_path", folder.relative_to(workplace.folder), "--save_to_xyz", True)
    printed = workplace.run("eval_analyze.py", *flags, "--n_samples", 9, "--batch_size_gen", 4)
    assert "Final test nll" in printed
    assert "nan" not in printed.lower()
    check_samples(frames(folder / "eval"), load_dataset_info(own))


def test_an_exported_model_has_the_types_and_sizes_of_its_data(workplace, own, run, tmp_path, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    _, card = export(workplace.output(run[0]), "own", tmp_path)
    record = json.loads(card.read_text())
    info = load_dataset_info(own)
    assert record["atom_types"] == info["atom_decoder"]
    assert {int(size): count for size, count in record["n_nodes"].items()} == info["n_nodes"]


def test_a_damaged_description_stops_the_run_in_one_line(workplace, own, run, tmp_path):
    text = own.info.read_text()
    own.info.write_text(text[:-10])
    try:
        done = workplace.start("main_geom_drugs.py", "--data_file", DATA, "--split", "molecule", "--no_wandb")
    finally:
        own.info.write_text(text)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "mine_info.json is no dataset_info of EDM" in done.stderr
