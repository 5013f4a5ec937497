"""Data and weights that cannot be used, where EDM's scripts and the evaluation read them: one line, status 2."""

from __future__ import annotations

import pickle
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import SHORT, TINY, Workplace

from symdiff_plugin import hooks
from symdiff_plugin.data import SPLITS, write_slice
from symdiff_plugin.data.qm9_loading import species
from symdiff_plugin.edm import import_edm
from symdiff_plugin.evaluate.__main__ import main as evaluate

pytestmark = pytest.mark.edm


@pytest.fixture
def datadir(qm9_thousand: Path, tmp_path: Path) -> Path:
    """A datadir with 40/10/10 molecules, to be spoilt at will."""
    write_slice(qm9_thousand, tmp_path / "data", 40, 10, 10)
    return tmp_path / "data"


def rewrite(datadir: Path, split: str, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    path = datadir / "qm9" / f"{split}.npz"
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(path, **arrays)


def one_nan(arrays: dict[str, np.ndarray]) -> None:
    arrays["positions"][7, 0, 1] = np.nan


def far_away(arrays: dict[str, np.ndarray]) -> None:
    arrays["positions"][7, 0, 1] = 1e6


def sulfur(arrays: dict[str, np.ndarray]) -> None:
    arrays["charges"][7, 0] = 16


def objects(arrays: dict[str, np.ndarray]) -> None:
    arrays["alpha"] = arrays["alpha"].astype(object)


def shorter(arrays: dict[str, np.ndarray]) -> None:
    arrays["charges"] = arrays["charges"][:-1]


def nothing(arrays: dict[str, np.ndarray]) -> None:
    for key in arrays:
        arrays[key] = arrays[key][:0]


SPOILT = {
    one_nan: "molecule 7 (counted from 0) has positions that are not finite",
    far_away: "molecule 7 (counted from 0) has coordinates beyond 10,000 Angstrom",
    sulfur: "molecule 7 (counted from 0) has an element other than H C N O F",
    objects: "holds Python objects, not numbers, which are never unpickled",
    shorter: "'charges' of shape",
    nothing: "no molecules",
}


def config(datadir: Path, **changes: object) -> Namespace:
    plain = {"dataset": "qm9", "batch_size": 8, "num_workers": 0, "filter_n_atoms": None, "remove_h": False}
    return Namespace(**{**plain, "include_charges": True, "datadir": str(datadir), **changes})


def refused(capsys: pytest.CaptureFixture[str], call: Callable[[], object]) -> str:
    """The one line that a call ends in."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        call()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("spoil", SPOILT)
def test_edms_loaders_refuse_it(spoil, split: str, datadir: Path, capsys) -> None:
    rewrite(datadir, split, spoil)
    retrieve = import_edm("qm9.dataset").retrieve_dataloaders
    line = refused(capsys, lambda: retrieve(config(datadir)))
    assert SPOILT[spoil] in line
    assert f"error: {datadir}/qm9/{split}.npz" in line


def test_the_arrays_are_upstreams(datadir: Path) -> None:
    for split in SPLITS:
        path = datadir / "qm9" / f"{split}.npz"
        with np.load(path) as file:
            expected = {key: torch.from_numpy(values) for key, values in file.items()}
        found = hooks.read_split(str(path))
        assert list(found) == list(expected)
        for key, values in expected.items():
            assert found[key].dtype == values.dtype
            assert torch.equal(found[key], values)
    utils = import_edm("qm9.data.utils")
    data = {split: hooks.read_split(str(datadir / "qm9" / f"{split}.npz")) for split in SPLITS}
    for remove_h in (False, True):
        if remove_h:
            data = {split: {"charges": one["charges"] * (one["charges"] > 1)} for split, one in data.items()}
        wanted = utils._get_species(data)
        found = species(data, remove_h)
        assert (found.tolist(), found.dtype) == (wanted.tolist(), wanted.dtype)


@pytest.mark.parametrize("model", ["symdiff", "egnn_dynamics"])
def test_training_does_not_begin(model: str, workplace: Workplace, datadir: Path) -> None:
    rewrite(datadir, "valid", one_nan)
    tiny = TINY if model == "symdiff" else ()
    flags = ("--model", model, "--datadir", datadir, "--exp_name", f"spoilt_{model}", *tiny, *SHORT)
    done = workplace.start("main_qm9.py", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "valid.npz: molecule 7 (counted from 0) has positions that are not finite" in line
    assert not workplace.output(f"spoilt_{model}").exists()


def test_the_evaluation_does_not_begin(copied: Path, datadir: Path, capsys) -> None:
    rewrite(datadir, "test", far_away)
    before = sorted(copied.rglob("*"))
    for flags in ([str(copied), "--n_samples", "2"], ["--data", "test", "--out", str(copied / "data")]):
        assert evaluate([*flags, "--datadir", str(datadir)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "test.npz: molecule 7 (counted from 0) has coordinates beyond" in line
    assert sorted(copied.rglob("*")) == before


def without_fluorine(arrays: dict[str, np.ndarray]) -> None:
    kept = (arrays["charges"] != 9).all(axis=1)
    for key in arrays:
        arrays[key] = arrays[key][kept]


@pytest.mark.parametrize("splits", [("test",), SPLITS])
@pytest.mark.parametrize("remove_h", [False, True])
def test_a_split_without_an_element_is_said(splits, remove_h: bool, datadir: Path, capsys) -> None:
    """Upstream raises if one split lacks it, and builds a model that does not fit its data if all do."""
    for split in splits:
        rewrite(datadir, split, without_fluorine)
    retrieve = import_edm("qm9.dataset").retrieve_dataloaders
    line = refused(capsys, lambda: retrieve(config(datadir, remove_h=remove_h)))
    assert f"the molecules of {splits[0]} hold no F" in line


@pytest.mark.parametrize("wanted", [30, 2, 0])
def test_a_filter_that_leaves_nothing_is_said(wanted: int, datadir: Path, capsys) -> None:
    retrieve = import_edm("qm9.dataset").retrieve_dataloaders
    line = refused(capsys, lambda: retrieve(config(datadir, filter_n_atoms=wanted)))
    assert f"--filter_n_atoms {wanted} leaves no molecule of train" in line
    size = int(line.rsplit(", ", 1)[1])
    assert wanted != size <= 29


@pytest.mark.parametrize("script", ["eval_analyze", "eval_sample"])
def test_edms_evaluation_refuses_weights_that_are_not_finite(
    script: str, copied: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied / "generative_model_ema.npy"
    weights = torch.load(path, weights_only=True)
    weights["dynamics.xh_embedder.weight"][0, 0] = torch.nan
    torch.save(weights, path)
    monkeypatch.chdir(copied)
    monkeypatch.setattr(sys, "argv", [script, "--model_path", str(copied)])
    line = refused(capsys, import_edm(script).main)
    assert "generative_model_ema.npy holds weights that are not finite, in dynamics.xh_embedder.weight" in line
    assert not (copied / "eval").exists()


def test_edms_conditional_evaluation_refuses_them_too(tmp_path: Path, capsys) -> None:
    module = import_edm("eval_conditional_qm9")
    args = Namespace(nf=8, n_layers=1, attention=False, node_attr=0)
    (tmp_path / "args.pickle").write_bytes(pickle.dumps(args))
    torch.save({"a": torch.tensor([torch.nan])}, tmp_path / "best_checkpoint.npy")
    assert "not finite, in a" in refused(capsys, lambda: module.get_classifier(str(tmp_path)))
