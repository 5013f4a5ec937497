"""The package installed from a wheel, far from any clone: it brings the patches, and gets EDM where one stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from symdiff_plugin.edm import EDM_FOLDER, PATCHES, REPOSITORY_ROOT


def pip(*words: str | Path, cwd: Path) -> None:
    command = [sys.executable, "-m", "pip", *map(str, words), "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a wheel of ours is installed into."""
    if int(version("setuptools").split(".")[0]) < 77:  # not by importing it: it takes the place of distutils
        pytest.skip("needs setuptools 77")
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    for name in ("symdiff_plugin", "patches"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY_ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY_ROOT / name, source)
    pip("wheel", ".", "--no-build-isolation", "--wheel-dir", place, cwd=source)
    pip("install", "--no-index", "--target", place / "packages", *place.glob("*.whl"), cwd=place)
    return place / "packages"


def test_it_brings_the_patches(installed: Path) -> None:
    found = {path.name: path.read_bytes() for path in (installed / "symdiff_plugin/edm/patches").iterdir()}
    assert found == {path.name: path.read_bytes() for path in PATCHES.iterdir()}


def test_it_gets_and_patches_edm_where_one_stands_or_says(installed: Path, edm_checkout: Path, tmp_path: Path) -> None:
    def run(*words: str, **environment: str) -> tuple[int, str]:
        kept = {name: value for name, value in os.environ.items() if name != "EDM_DIR"}
        said = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True,
            env={**kept, "PYTHONPATH": str(installed), "EDM_REPO": str(edm_checkout), **environment},
        )  # fmt: skip
        return said.returncode, said.stdout + said.stderr

    edm = ("-m", "symdiff_plugin.edm")
    where = "from symdiff_plugin.edm import import_edm; print(import_edm('configs.datasets_config').__file__)"
    assert run("-c", where)[0] != 0
    assert run(*edm, "get")[0] == 0
    assert run(*edm, "status") == (1, "not applied\n")
    assert run(*edm, "apply")[0] == 0
    assert run(*edm, "status") == (0, "applied\n")
    assert run("-c", where) == (0, f"{tmp_path / EDM_FOLDER / 'configs/datasets_config.py'}\n")
    other = str(tmp_path / "some" / "folder")
    assert run(*edm, "get", "--into", other)[0] == 0
    assert run(*edm, "status", "--into", other) == (1, "not applied\n")
    assert run(*edm, "apply", EDM_DIR=other)[0] == 0
    assert run("-c", where, EDM_DIR=other) == (0, f"{other}/configs/datasets_config.py\n")
    status, said = run("-m", "symdiff_plugin.sample", "--help")
    assert (status, "--pretrained" in said) == (0, True)
