"""A slice of real QM9, and the trained runs that tests of several rooms share."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
from geom_data import drugs, write_geom
from runs import SHORT, TINY, Workplace

from symdiff_plugin.data import make_slice_from_qm9pack, write_slice
from symdiff_plugin.data.qm9pack_source import find_qm9pack


@pytest.fixture(scope="session")
def qm9_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datadir with 1300/60/60 molecules of QM9, made once for all processes of pytest-xdist. Not to be written to."""
    if find_qm9pack() is None:
        pytest.skip("needs qm9pack: pip install qm9pack")
    own = tmp_path_factory.getbasetemp()
    datadir = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "thousand"
    with open(datadir.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_slice_from_qm9pack(datadir, 1300, 60, 60)  # nothing to do where it is made
    return datadir


@pytest.fixture(scope="session")
def qm9_slice(qm9_thousand: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datadir with 240/60/60 molecules of QM9. Not to be written to, save by the runs themselves."""
    datadir = tmp_path_factory.mktemp("qm9") / "slice"
    write_slice(qm9_thousand, datadir, 240, 60, 60)
    return datadir


@pytest.fixture(scope="session")
def workplace(edm_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A folder to train in."""
    return Workplace(tmp_path_factory.mktemp("workplace"), edm_path)


@pytest.fixture(scope="session")
def trained(workplace: Workplace, qm9_slice: Path) -> str:
    """The name of a finished run: two epochs of a tiny SymDiff."""
    flags = ("--model", "symdiff", "--datadir", qm9_slice, "--seed", 1, *TINY, *SHORT)
    workplace.run("main_qm9.py", *flags)
    return "symdiff"


@pytest.fixture
def copied(workplace: Workplace, trained: str, tmp_path: Path) -> Path:
    """A run of a tiny SymDiff, to be spoilt at will."""
    return Path(shutil.copytree(workplace.output(trained), tmp_path / "run"))


@pytest.fixture(scope="session")
def geom_file(workplace: Workplace) -> Path:
    """40 drug-like molecules of two conformers each, as GEOM-Drugs in ``workplace``. Not to be written to."""
    return write_geom(workplace.folder / "data/geom/geom_drugs_30.npy", drugs(40))


@pytest.fixture(scope="session")
def trained_on_geom(workplace: Workplace, geom_file: Path) -> Path:
    """The folder of a finished run of main_geom_drugs.py: one epoch of a tiny SymDiff. Not to be written to."""
    short = ("--diffusion_steps", 8, "--batch_size", 16, "--n_epochs", 1, "--n_stability_samples", 2, "--no_wandb")
    flags = ("--model", "symdiff", "--exp_name", "geom", "--seed", 1, *TINY, *short)
    workplace.run("main_geom_drugs.py", *flags)
    return workplace.output("geom")


@pytest.fixture
def copied_geom(trained_on_geom: Path, tmp_path: Path) -> Path:
    """That run, to be spoilt at will; its data are found from anywhere."""
    folder = Path(shutil.copytree(trained_on_geom, tmp_path / "geom_run"))
    config = json.loads((folder / "config.json").read_text())
    config["args"]["data_file"] = str(trained_on_geom.parents[1] / "data/geom/geom_drugs_30.npy")
    (folder / "config.json").write_text(json.dumps(config))
    return folder
