"""Our dataset_info against EDM's of GEOM-Drugs, and the rules of EDM's that it is for."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest
from geom_conformers import info_of, save_info
from own_molecules import conformers_of, each_conformer, make, molecules, write_sdf

from symdiff_plugin import hooks
from symdiff_plugin.data.geom.dataset_info import ELEMENTS, load_dataset_info, of_run
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.schema import DataError
from symdiff_plugin.edm import import_edm


@pytest.fixture
def edms(edm_path):
    return import_edm("configs.datasets_config").geom_with_h


@pytest.fixture
def rules(edm_path):
    return import_edm("qm9.bond_analyze")


def ragged(numbers: list[list[int]]) -> list[np.ndarray]:
    random = np.random.RandomState(0)
    return [np.column_stack([one, random.randn(len(one), 3)]) for one in numbers]


@pytest.fixture
def dataset(tmp_path) -> GeomFiles:
    """Real molecules in GEOM's format."""
    path = write_sdf(tmp_path / "in.sdf", each_conformer(molecules()))
    assert make(path, "--name", "mine", "--out", tmp_path / "data") == 0
    return GeomFiles(tmp_path / "data" / "mine.npy")


def test_the_elements_are_those_that_edm_has_rules_colours_and_radii_for(edms, rules):
    symbols = [symbol for symbol, _ in ELEMENTS.values()]
    assert symbols == edms["atom_decoder"]
    assert set(symbols) == set(rules.allowed_bonds)
    info = info_of(ragged([list(ELEMENTS)]))
    for key in ("name", "atom_encoder", "atomic_nb", "atom_decoder", "colors_dic", "radius_dic", "with_h"):
        assert info[key] == edms[key], key


def test_edm_knows_no_other_elements(edms):
    """Why they are refused: the analysis, which comes when an epoch has been trained, raises a KeyError."""
    check_stability = import_edm("qm9.analyze").check_stability
    positions = np.array([[0.0, 0, 0], [1.46, 0, 0]])
    info = {**edms, "atom_decoder": ["H", "Se"]}
    with pytest.raises(KeyError, match="Se"):
        check_stability(positions, np.array([1, 0]), info)
    with pytest.raises(DataError, match=r"\[34\]"):
        info_of(ragged([[1, 34]]))


def test_every_key_type_and_sum_is_as_in_edms(edms, dataset):
    """The histograms follow the same sums as those of EDM: one entry a conformer, one an atom."""
    info = load_dataset_info(dataset)
    assert set(info) - {"data_set"} == set(edms) - {"datadir"}  # which EDM adds
    assert info["data_set"] == "mine"
    conformers = conformers_of(dataset.data.parent)
    for key, value in info.items():
        if key in ("n_nodes", "atom_types"):
            assert {type(part) for pair in value.items() for part in pair} == {int}
        if key in edms:
            assert type(value) is type(edms[key]), key
    for one, atoms in ((info, sum(map(len, conformers))), (edms, 322_877_623)):
        assert sum(one["atom_types"].values()) == sum(s * c for s, c in one["n_nodes"].items()) == atoms
        assert max(one["n_nodes"]) == one["max_n_nodes"]
        assert sorted(one["atom_types"]) == list(range(len(one["atom_decoder"])))
        assert one["atomic_nb"] == sorted(one["atomic_nb"])
    assert sum(edms["n_nodes"].values()) == 6_922_516  # all conformers, not those trained on
    assert sum(info["n_nodes"].values()) == len(conformers)
    sizes, counts = np.unique([len(one) for one in conformers], return_counts=True)
    assert info["n_nodes"] == dict(zip(sizes.tolist(), counts.tolist(), strict=True))
    numbers, counts = np.unique(np.concatenate(conformers)[:, 0], return_counts=True)
    assert info["atomic_nb"] == numbers.tolist()
    assert list(info["atom_types"].values()) == counts.tolist()


def test_edms_own_is_one_that_can_be_loaded(edms, tmp_path):
    """So our checks ask for nothing that EDM's does not fulfil."""
    files = GeomFiles(tmp_path / "geom_drugs_30.npy")
    assert load_dataset_info(files) is None
    info = {key: value for key, value in edms.items() if key != "datadir"} | {"data_set": "geom_drugs_30"}
    save_info(info, files)
    assert files.info == tmp_path / "geom_drugs_30_info.json"
    assert load_dataset_info(files) == info
    # JSON has no integer keys: without restoring them the comparison fails.
    assert json.loads(files.info.read_text()) != info


def test_the_order_of_elements_is_the_one_that_edm_needs(rules):
    """C=S is in EDM's table, S=C is not; EDM asks with the earlier type first."""
    info = info_of(ragged([[16, 6, 8]]))
    first, second = sorted(info["atom_encoder"][symbol] for symbol in ("S", "C"))
    decoder = info["atom_decoder"]
    assert rules.geom_predictor((decoder[first], decoder[second]), 1.6) == 2
    assert rules.geom_predictor((decoder[second], decoder[first]), 1.6) == 1


def break_it(info: dict, how: str) -> str:
    if how == "cut":
        return json.dumps(info)[:-20]
    if how == "list":
        return "[1, 2]"
    if how == "key":
        del info["colors_dic"]
    elif how == "other name":
        info["name"] = "mine"
    elif how == "word":
        info["n_nodes"]["many"] = 3
    elif how == "negative":
        info["n_nodes"][next(iter(info["n_nodes"]))] *= -1
    elif how == "float":
        info["atom_types"]["0"] += 0.5
    elif how == "order":
        info["atomic_nb"].reverse()
    elif how == "element":
        info["atomic_nb"][-1] = 34
    elif how == "largest":
        info["max_n_nodes"] += 1
    elif how == "atoms":
        info["atom_types"]["0"] += 1
    elif how == "null":
        info["atom_types"] = None
    elif how == "conformers":
        size = next(iter(info["n_nodes"]))
        info["n_nodes"][size] += 1
        info["atom_types"]["0"] += int(size)
    return json.dumps(info)


HOWS = ("cut", "list", "key", "other name", "word", "negative", "float", "order", "element", "largest", "atoms", "null",
        "conformers")  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
def test_a_broken_file_is_one_line(dataset, edms, capsys, how):
    text = break_it(json.loads(dataset.info.read_text()), how)
    dataset.info.write_text(text)
    with pytest.raises(DataError) as caught:
        load_dataset_info(dataset)
    message = str(caught.value)
    assert str(dataset.info) in message
    assert "\n" not in message
    assert "make the data set again" in message
    with pytest.raises(SystemExit) as ended:
        hooks.geom_dataset_info(Namespace(dataset="geom", data_file=str(dataset.data)), edms)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_has_the_dataset_info_of_its_data(dataset, edms, tmp_path, monkeypatch, capsys):
    own = Namespace(dataset="geom", data_file=str(dataset.data))
    assert hooks.geom_dataset_info(own, edms) == load_dataset_info(dataset)
    assert own.all_classes
    assert "all of them sampled" in capsys.readouterr().out
    assert hooks.geom_dataset_info(own, edms) == load_dataset_info(dataset)
    assert capsys.readouterr().out == ""  # said once, by who trains
    for others in (Namespace(dataset="qm9", data_file=str(dataset.data)), Namespace(dataset="geom"),
                   Namespace(dataset="geom", data_file=str(tmp_path / "geom_drugs_30.npy"))):  # fmt: skip
        found = hooks.geom_dataset_info(others, edms)
        assert found == edms
        assert found is not edms
        assert not hasattr(others, "all_classes")  # EDM's published way
    monkeypatch.chdir(tmp_path)
    there = GeomFiles("data/geom/geom_drugs_30.npy")
    save_info({**load_dataset_info(dataset), "data_set": "geom_drugs_30"}, there)
    assert of_run(Namespace(dataset="geom"), edms)["data_set"] == "geom_drugs_30"  # EDM's place, without the flag


def test_no_conformers_have_no_dataset_info():
    with pytest.raises(DataError, match="no conformer"):
        info_of([])


@pytest.mark.parametrize("spheres", [False, True])
def test_edm_draws_writes_and_reads_molecules_of_any_number_of_types(edm_path, tmp_path, dataset, spheres):
    import torch

    visualizer = import_edm("qm9.visualizer")
    for name, info in (("own", load_dataset_info(dataset)), ("one", info_of(ragged([[6, 6, 6]])))):
        types = torch.arange(4) % len(info["atom_decoder"])
        one_hot = torch.nn.functional.one_hot(types, len(info["atom_decoder"]))[None].float()
        positions = 1.4 * torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0))
        folder = tmp_path / name
        visualizer.save_xyz_file(f"{folder}/", one_hot, torch.zeros(0), positions, info)
        found, again, _ = visualizer.load_molecule_xyz(str(folder / "molecule_000.txt"), info)
        np.testing.assert_allclose(found, positions[0], atol=1e-6)
        assert torch.equal(again, one_hot[0])
        path = folder / "picture.png"
        visualizer.plot_data3d(found, again.argmax(1).numpy(), info, save_path=str(path), spheres_3d=spheres)
        assert path.stat().st_size > 1000
