"""Flags of ``main_geom_drugs.py`` that say which data to train on."""

from __future__ import annotations

import argparse
from pathlib import Path

from symdiff_plugin.data.geom.split import SPLITS

DATA_FILE = "./data/geom/geom_drugs_30.npy"  # upstream's, relative to the working directory


def add_flags(group: argparse._ArgumentGroup) -> None:
    """Add ``--data_file``, ``--split`` and ``--split_seed``."""
    group.add_argument(
        "--data_file", metavar="PATH", default=DATA_FILE,
        help=f"EDM's array of atoms, or one's own made by python -m symdiff_plugin.data.geom; default: {DATA_FILE}",
    )  # fmt: skip
    group.add_argument(
        "--split", metavar="|".join(SPLITS), default="official",
        help="official: EDM's, by geom_permutation.npy, of conformers; molecule: at random, no molecule in two parts",
    )  # fmt: skip
    group.add_argument("--split_seed", default=0, help="seed of --split molecule")


def missing(data_file: str) -> str | None:
    """What to say where there is no such file; None where there is."""
    if Path(data_file).is_file():
        return None
    return (
        f"no {data_file}: make it with `python -m symdiff_plugin.data.geom convert` from GEOM-Drugs' archive (its "
        "--help names the others), or name the file with --data_file"
    )
