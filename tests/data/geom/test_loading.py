"""Batches from the disk: upstream's, with processes of their own too, and what is refused on the way."""

from __future__ import annotations

import argparse
import itertools
import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from geom_conformers import make_molecules, write

from symdiff_plugin.data import DataError
from symdiff_plugin.data.geom.layout import GeomFiles
from symdiff_plugin.data.geom.loading import Loader, dataloaders
from symdiff_plugin.edm import import_edm

pytestmark = pytest.mark.edm


@pytest.fixture
def files(tmp_path: Path) -> GeomFiles:
    return write(make_molecules(60), tmp_path / "geom")


@pytest.fixture
def info(edm_path: Path) -> dict:
    return import_edm("configs.datasets_config").geom_with_h


@pytest.fixture
def upstream(edm_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """EDM's module, which cuts a list of arrays with np.split; since NumPy 1.24 that refuses ragged ones."""
    split = np.split

    def cut(data: np.ndarray | list[np.ndarray], ends: list[int]) -> list:
        if isinstance(data, np.ndarray):
            return split(data, ends)
        return [data[start:end] for start, end in itertools.pairwise([0, *ends, len(data)])]

    monkeypatch.setattr(np, "split", cut)
    return import_edm("build_geom_dataset")


def options(files: GeomFiles, **given: object) -> argparse.Namespace:
    defaults = {
        "data_file": str(files.data), "batch_size": 8, "include_charges": False, "filter_molecule_size": None,
        "sequential": False, "num_workers": 0, "split": "official", "split_seed": 0,
    }  # fmt: skip
    return argparse.Namespace(**{**defaults, **given})


def upstream_loaders(
    upstream: ModuleType, files: GeomFiles, info: dict, args: argparse.Namespace
) -> dict[str, torch.utils.data.DataLoader]:
    """main_geom_drugs.py:129-139 at the pinned commit."""
    parts = upstream.load_split_data(files.data, 0.1, 0.1)  # it filters before the split, which then fails
    if args.filter_molecule_size:
        parts = [[molecule for molecule in part if len(molecule) <= args.filter_molecule_size] for part in parts]
    transform = upstream.GeomDrugsTransform(info, args.include_charges, torch.device("cpu"), False)
    return {
        key: upstream.GeomDrugsDataLoader(
            False, upstream.GeomDrugsDataset(part, transform), args.batch_size, shuffle=key == "train"
        )
        for key, part in zip(("train", "val", "test"), parts, strict=True)
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "given",
    [{}, {"include_charges": True}, {"batch_size": 5}, {"filter_molecule_size": 30}, {"num_workers": 2}],
    ids=str,
)
def test_the_batches_are_upstreams(files: GeomFiles, info: dict, upstream: ModuleType, given: dict) -> None:
    """To the last bit, epoch after epoch, the random numbers drawn on the way too."""
    args = options(files, **given)
    epochs = []
    for loaders in (dataloaders(args, info), upstream_loaders(upstream, files, info, args)):
        torch.manual_seed(6)
        found = [list(loaders[key]) for _ in range(2) for key in ("train", "val", "test")]
        epochs.append((found, torch.get_rng_state()))
    (ours, state), (theirs, their_state) = epochs
    assert [len(part) for part in ours] == [len(part) for part in theirs]
    assert min(len(part) for part in ours) >= 1
    assert all(same(a, b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))
    assert torch.equal(state, their_state)


def test_a_filter_leaves_the_split_as_it_is(files: GeomFiles, info: dict) -> None:
    whole = dataloaders(options(files), info)
    some = dataloaders(options(files, filter_molecule_size=30), info)
    for key in whole:
        all_of_it, kept = whole[key].dataset, some[key].dataset
        assert sorted(kept.indices) == sorted(all_of_it.indices[all_of_it.sizes <= 30])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_sequential_goes_through_everything_once(files: GeomFiles, info: dict, num_workers: int) -> None:
    loaders = dataloaders(options(files, sequential=True, num_workers=num_workers), info)
    plain = dataloaders(options(files), info)
    torch.manual_seed(1)
    train = list(loaders["train"])
    n = len(loaders["train"].dataset)
    assert [len(batch["positions"]) for batch in train] == [8] * (n // 8) + [n % 8] * (n % 8 > 0)
    first_atoms = sorted(x for batch in train for x in batch["positions"][:, 0].tolist())
    assert first_atoms == sorted(x for batch in plain["train"] for x in batch["positions"][:, 0].tolist())
    assert [int(batch["atom_mask"].sum(1).max()) for batch in train] == [b["positions"].size(1) for b in train]
    for key in ("val", "test"):  # smallest first, always
        first, again, unsorted = list(loaders[key]), list(loaders[key]), list(plain[key])
        assert all(same(a, b) and same(a, c) for a, b, c in zip(first, again, unsorted, strict=True))


def test_processes_change_nothing(files: GeomFiles, info: dict) -> None:
    found = []
    for num_workers in (0, 2):
        torch.manual_seed(2)
        loader = dataloaders(options(files, sequential=True, num_workers=num_workers), info)["train"]
        found.append([*loader, *loader])
    assert all(same(a, b) for a, b in zip(*found, strict=True))


def test_a_process_gets_no_copy_of_the_data(files: GeomFiles, info: dict) -> None:
    dataset = dataloaders(options(files), info)["train"].dataset
    content = pickle.dumps(dataset)
    assert len(content) < files.data.stat().st_size / 10
    assert same(pickle.loads(content)[3], dataset[3])


def test_the_edge_mask_leaves_out_what_upstreams_alone_keeps(
    files: GeomFiles, info: dict, upstream: ModuleType
) -> None:
    """Upstream's --sequential takes all edges away but each atom's to itself."""
    transform = upstream.GeomDrugsTransform(info, False, torch.device("cpu"), True)
    loader = dataloaders(options(files, batch_size=1), info)["val"]
    for index, batch in enumerate(loader):
        theirs = transform(loader.dataset.conformers[int(loader.dataset.indices[index])].copy())["edge_mask"]
        assert torch.equal(1 - theirs, batch["edge_mask"].flatten())
        assert theirs.sum() == batch["positions"].size(1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unknown_element_is_named(files: GeomFiles, info: dict, num_workers: int) -> None:
    rows = np.load(files.data)
    rows[rows[:, 0] == 17, 1] = np.where(np.arange((rows[:, 0] == 17).sum()) == 2, 34, rows[rows[:, 0] == 17, 1])
    np.save(files.data, rows)
    loaders = dataloaders(options(files, num_workers=num_workers), info)
    with pytest.raises(DataError, match=r"conformer 17 has an atom of Se \(atomic number 34\), which is not") as error:
        [list(loader) for loader in loaders.values()]
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(files.data))


def test_who_loads_may_say_how_it_is_refused(files: GeomFiles, info: dict) -> None:
    rows = np.load(files.data)
    rows[:, 1] = 8.5
    np.save(files.data, rows)

    def refuse(error: DataError) -> None:
        raise SystemExit(str(error))

    loader: Loader = dataloaders(options(files), info, refuse=refuse)["val"]
    with pytest.raises(SystemExit, match=r"atomic number 8\.5"):
        next(iter(loader))


def test_sizes_that_the_description_lacks_are_refused(files: GeomFiles, info: dict) -> None:
    largest = int(np.load(files.n_atoms).max())
    sizes = dict.fromkeys(range(1, largest), 1)
    with pytest.raises(DataError, match=rf"molecules of {largest} atoms, .* --filter_molecule_size {largest - 1}, or"):
        dataloaders(options(files), {**info, "n_nodes": sizes})
    assert dataloaders(options(files, filter_molecule_size=largest - 1), {**info, "n_nodes": sizes})
    gap = {n: 1 for n in range(1, largest + 1) if n != 27}
    with pytest.raises(DataError, match=r"molecules of 27 atoms, .* none: make the data with their own description"):
        dataloaders(options(files), {**info, "n_nodes": gap})


def test_a_filter_that_leaves_nothing_is_refused(files: GeomFiles, info: dict) -> None:
    with pytest.raises(DataError, match=r"--filter_molecule_size 4 leaves no molecule .* for train"):
        dataloaders(options(files, filter_molecule_size=4), info)
