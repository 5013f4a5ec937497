"""Archives in GEOM-Drugs' format for the tests: read and written by plain msgpack, spoilt, converted."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
from in_process import call

from symdiff_plugin.data.geom.__main__ import PROG, main
from symdiff_plugin.edm import import_edm

ARCHIVE = "drugs_crude.msgpack"
Map = dict[str, Any]


def read_maps(path: Path) -> list[Map]:
    """The archive as EDM reads it."""
    with path.open("rb") as file:
        return list(msgpack.Unpacker(file))


def write_maps(path: Path, maps: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(msgpack.packb, maps)))
    return path


def mirror_images(conformers: list[Map]) -> list[Map]:
    """Each conformer in its eight reflections, which have the very same energy, as ties to be sorted."""
    signs = list(itertools.product((1.0, -1.0), repeat=3))
    return [
        conformer | {"xyz": [[z, *(s * x for s, x in zip(sign, row, strict=True))] for z, *row in conformer["xyz"]]}
        for sign in signs
        for conformer in conformers
    ]


def repeated(path: Path, archive: Path, times: int) -> Path:
    """The archive several times over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for _ in range(times):
            file.write(archive.read_bytes())
    return path


def names(conformations: int = 30, remove_h: bool = False) -> dict[str, str]:
    """EDM's three files and ours."""
    rest = f"{'no_h_' if remove_h else ''}{conformations}"
    return {
        "data": f"geom_drugs_{rest}.npy", "n": f"geom_drugs_n_{rest}.npy", "smiles": "geom_drugs_smiles.txt",
        "conformers": f"geom_drugs_conformers_{rest}.npy",
    }  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """All there is in a folder but the archive, hidden files too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ARCHIVE
    }


def edm_converts(archive: Path, conformations: int = 30, remove_h: bool = False) -> dict[str, bytes]:
    """What EDM's own script writes beside the archive."""
    options = argparse.Namespace(
        data_dir=str(archive.parent), data_file=archive.name, conformations=conformations, remove_h=remove_h
    )
    with contextlib.redirect_stdout(io.StringIO()):
        import_edm("build_geom_dataset").extract_conformers(options)
    return contents(archive.parent)


def command(*arguments: object, capsys: Any) -> subprocess.CompletedProcess[str]:
    """The command in this process: exit status and what it printed."""
    return call(main, capsys, *arguments)


def process(*arguments: object, code: str | None = None, **options: Any) -> subprocess.Popen[str]:
    """The command, or other code that takes the arguments, in a process of its own."""
    how = ["-m", "symdiff_plugin.data.geom"] if code is None else ["-c", code]
    line = [sys.executable, *how, *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def assert_refused(result: subprocess.CompletedProcess[str], subcommand: str, status: int, *words: str) -> None:
    """One line that holds ``words``, after the progress bar if there was one, and the exit status."""
    lines = result.stderr.replace("\r", "\n").strip().splitlines()
    assert result.returncode == status, result.stderr
    assert lines[-1].startswith(f"{PROG} {subcommand}: "), result.stderr
    assert sum(line.startswith(PROG) for line in lines) == 1
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[-1]
