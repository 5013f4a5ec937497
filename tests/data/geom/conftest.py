"""RDKit's conformers, and archives of them, made once a session. The archives are not to be written to."""

from __future__ import annotations

from pathlib import Path

import pytest
from geom_archives import ARCHIVE, mirror_images, read_maps, write_maps
from own_molecules import molecules
from rdkit import Chem

from symdiff_plugin.data.geom.rdkit_archive import make_archive


@pytest.fixture(scope="session")
def rdkit_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 molecules in maps of 10, up to five conformers each, as the command makes them."""
    path = tmp_path_factory.mktemp("rdkit") / ARCHIVE
    make_archive(path, molecules=24, conformers=5, seed=1, map_molecules=10)
    return path


@pytest.fixture(scope="session")
def archive(rdkit_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, six of the molecules with up to 40 conformers, eight of each energy, and one without any."""
    maps = read_maps(rdkit_archive)
    for number, (smiles, record) in enumerate(item for some in maps for item in some.items()):
        if number % 4 == 1:
            record["conformers"] = mirror_images(record["conformers"])
        if number == 15:
            record["conformers"] = []
        assert smiles
    return write_maps(tmp_path_factory.mktemp("archive") / ARCHIVE, maps)


@pytest.fixture(scope="session")
def mols() -> tuple[Chem.Mol, ...]:
    """Drug-like molecules with a few conformers each."""
    return molecules()
